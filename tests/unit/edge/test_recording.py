"""What is recorded of responses and noted of answers, piece by piece, and handing it over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.anthropic_reply import MessagesReply
from gateway.edge.clerk import MOST_WAITING, Clerk
from gateway.edge.idempotency import REPLAYED, Recording, replay
from gateway.edge.openai_reply import OpenAIReply
from gateway.edge.openai_responses_reply import ResponsesReply
from gateway.edge.witness import Witness
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.call import Call, Need, Operation
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.content import ContentChoice, chosen
from gateway.types.errors import Unavailable, UpstreamFailed
from gateway.types.ids import RequestIds
from gateway.types.repetition import HITS, KEEP, RELEASE, CacheHit, Kept
from gateway.types.reply import Bill
from gateway.types.tokens import NO_USAGE

CLAIM = ("somekey1", b"n" * 32)
_new = RequestIds().new


class Keeper:
    """Notes what it is asked; away for the first ``away`` questions."""

    def __init__(self, away: int = 0) -> None:
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.away = away

    async def ask(self, method: Any, arguments: Sequence[Any] = ()) -> Any:
        """Answer or be away."""
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        self.asked.append((method.name, tuple(arguments)))
        return True


class Caller:
    """An exchange that notes what it is told."""

    def __init__(self) -> None:
        self.request_id = _new()
        self.path, self.body, self.arrived = b"/v1/chat/completions", b"{}", 1.0
        self.headers: Mapping[bytes, bytes] = {}
        self.gone = self.begun = False
        self.flow: Any = None
        self.said: list[Any] = []

    def steer(self, flow: Any) -> None:
        """See ``Exchange``."""
        self.flow = flow

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """See ``Exchange``."""
        self.said.append((status, headers, body))

    def open(self, headers: bytes) -> None:
        """See ``Exchange``."""
        self.begun = True
        self.said.append(headers)

    def write(self, data: bytes) -> None:
        """See ``Exchange``."""
        self.said.append(data)

    def framed(self) -> None:
        """See ``Exchange``: there are none."""

    def close(self, data: bytes) -> None:
        """See ``Exchange``."""
        self.said.append((data,))


class Flow:
    """Notes how it is steered."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def abort(self) -> None:
        """See ``Flow``."""
        self.heard.append("abort")

    def pause(self) -> None:
        """See ``Flow``."""
        self.heard.append("pause")

    def resume(self) -> None:
        """See ``Flow``."""
        self.heard.append("resume")


def clerk(keeper: Keeper) -> Clerk:
    """Return a clerk of its own metrics."""
    return Clerk(keeper, GatewayMetrics("test").unkept)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.booleans())
def test_what_was_sent_is_given_again(pieces: list[bytes], streamed: bool) -> None:
    """Any response, piece by piece; its end leaves only when the keeper has it."""

    async def run() -> None:
        caller, keeper = Caller(), Keeper()
        recording = Recording(caller, CLAIM, clerk(keeper), 1000)
        if streamed:
            recording.open(b"a: b\r\n")
            for piece in pieces[:-1]:
                recording.write(piece)
            recording.close(pieces[-1])
            assert caller.said == [b"a: b\r\n", *pieces[:-1]]
        else:
            recording.respond(200, b"a: b\r\n", pieces[0])
            assert caller.said == []
        await recording.keep()
        ((name, (key_id, digest, request_id, content)),) = keeper.asked
        assert (name, key_id, digest, request_id) == (KEEP.name, *CLAIM, caller.request_id)
        again = Caller()
        replay(msgspec.msgpack.decode(content, type=Kept), again)
        marked = b"a: b\r\n" + REPLAYED
        assert again.said == ([marked, (b"".join(pieces),)] if streamed else [(200, marked, pieces[0])])
        assert len(caller.said) == (len(pieces) + 1 if streamed else 1)

    asyncio.run(run())


async def test_a_caller_that_leaves_stops_only_what_cannot_be_kept() -> None:
    """While the record fits, the backend goes on and is not held up; past the bound it is stopped."""
    caller, flow, keeper = Caller(), Flow(), Keeper()
    recording = Recording(caller, CLAIM, clerk(keeper), 10)
    recording.steer(flow)
    caller.flow.pause()
    caller.gone = True
    caller.flow.abort()
    caller.flow.pause()
    assert flow.heard == ["pause", "resume"]
    recording.open(b"")
    recording.write(b"12345")
    before = recording.gone
    recording.write(b"678901")
    assert flow.heard == ["pause", "resume", "abort"]
    assert (before, recording.gone) == (False, True)
    await recording.keep()
    assert [name for name, _ in keeper.asked] == [RELEASE.name]


async def test_an_error_is_sent_and_lets_the_claim_go_once() -> None:
    """Before and in mid-stream, nothing is recorded or held back after it."""
    for streamed in (False, True):
        caller, keeper = Caller(), Keeper()
        recording = Recording(caller, CLAIM, clerk(keeper), 1000)
        if streamed:
            recording.open(b"")
        await recording.release()
        if streamed:
            recording.close(b"error")
        else:
            recording.respond(500, b"", b"error")
        recording.drop()
        assert caller.said[-1] == ((b"error",) if streamed else (500, b"", b"error"))
        assert [name for name, _ in keeper.asked] == [RELEASE.name]


async def test_a_keeper_that_is_away_delays_an_end_and_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets its end after the patience; the answer is kept once the keeper is back."""
    monkeypatch.setattr("gateway.edge.idempotency.PATIENCE_S", 0.02)
    monkeypatch.setattr("gateway.edge.clerk.PAUSE_S", 0.03)
    caller, keeper = Caller(), Keeper(away=2)
    hands = clerk(keeper)
    recording = Recording(caller, CLAIM, hands, 1000)
    recording.respond(200, b"", b"answer")
    await recording.keep()
    assert (caller.said, keeper.asked) == ([(200, b"", b"answer")], [])
    await hands.flush()
    assert [name for name, _ in keeper.asked] == [KEEP.name]


async def test_a_claim_is_ended_however_long_the_keeper_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is dropped in the end, or when too much waits; that it was given is told all the same."""
    monkeypatch.setattr("gateway.edge.idempotency.PATIENCE_S", 0.0)
    monkeypatch.setattr("gateway.edge.clerk.PAUSE_S", 0.0)
    monkeypatch.setattr("gateway.edge.clerk.LATER_S", 0.0)
    for most in (MOST_WAITING, 0):
        monkeypatch.setattr("gateway.edge.clerk.MOST_WAITING", most)
        caller, keeper = Caller(), Keeper(away=50)
        hands = clerk(keeper)
        recording = Recording(caller, CLAIM, hands, 1000)
        recording.respond(200, b"", b"answer")
        await recording.keep()
        await hands.flush()
        assert keeper.asked == [(KEEP.name, (*CLAIM, caller.request_id, None))]
        other = Recording(Caller(), CLAIM, hands, 1000)
        keeper.away = 50
        await other.release()
        await hands.flush()
        assert [name for name, _ in keeper.asked] == [KEEP.name, RELEASE.name]


async def test_the_clerk_is_bounded_and_counts_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much at once, or a keeper that stays away: dropped, counted, and nothing is raised."""
    monkeypatch.setattr("gateway.edge.clerk.PAUSE_S", 0.0)
    metrics, keeper = GatewayMetrics("test"), Keeper(away=99)
    hands = Clerk(keeper, metrics.unkept)
    task = hands.post(KEEP, (), MOST_WAITING)
    assert hands.post(KEEP, (), 1) is None
    assert task is not None
    assert await task is None
    assert metrics.unkept.samples() == {(KEEP.name,): [2.0]}
    keeper.away = 0
    for _ in range(3):
        hands.collect(HITS, CacheHit(b"", b"", "", ""))
    await hands.stop()
    ((name, (items,)),) = keeper.asked
    assert (name, len(items)) == (HITS.name, 3)


class Told:
    """A reply that spoils what it is given, as real ones may."""

    def __init__(self) -> None:
        self.request_id, self.arrived, self.gone, self.calls_sound = _new(), 1.0, False, None
        self.call = Call(Operation.CHAT, {}, "m", True, True, 1, None, 0, 0, Need.NONE, False)

    def begin(self, model: str, provider: str) -> None:
        """See ``Reply``."""

    def send(self, chunks: Sequence[Chunk]) -> None:
        """See ``Reply``."""
        for chunk in chunks:
            if isinstance(chunk, dict):
                chunk.clear()

    def finish(self, chunks: Sequence[Chunk], bill: Bill) -> None:
        """See ``Reply``."""
        self.send(chunks)

    def fail(self, error: Exception) -> None:
        """See ``Reply``."""


texts = st.text(max_size=8).map(
    lambda text: msgspec.json.decode(
        msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": text}}]}), type=TextChunk
    )
)
others = st.text(max_size=8).map(
    lambda text: {"choices": [{"index": 0, "delta": {"x": text, "\x00native": [text]}, "finish_reason": "stop"}]}
)


@given(st.lists(texts | others, max_size=6))
def test_a_witness_keeps_chunks_as_they_came(chunks: list[Any]) -> None:
    """Text chunks as text chunks and the others member by member, whatever the reply does to them."""
    wanted = msgspec.json.encode(chunks)
    witness = Witness(Told(), 10_000)  # type: ignore[arg-type] # it has what is used of a reply
    witness.begin("model", "provider")
    half = len(chunks) // 2
    witness.send(chunks[:half])
    witness.finish(chunks[half:], Bill(NO_USAGE, 0, 0, 0))
    seen = list(witness.seen.chunks())
    assert witness.whole
    assert msgspec.json.encode(seen) == wanted
    assert [type(each) for each in seen] == [type(each) for each in chunks]


def test_a_witness_lets_a_large_answer_pass() -> None:
    """Over the limit nothing is noted, and it says so."""
    witness = Witness(Told(), 100)  # type: ignore[arg-type] # as above
    witness.send([{"choices": [], "x": "y" * 200}])
    witness.fail(UpstreamFailed("no"))
    assert (witness.over, witness.size, witness.whole) == (True, 0, False)
    assert isinstance(witness.error, UpstreamFailed)


def test_a_witness_has_all_that_a_reply_has() -> None:
    """Whoever holds a reply may hold a witness of it."""
    public = {name for reply in (OpenAIReply, ResponsesReply, MessagesReply) for name in dir(reply) if name[0] != "_"}
    assert public <= set(dir(Witness))


def test_the_nearest_choice_counts() -> None:
    """A key's before its team's, in whatever order they are told."""
    team, key = ContentChoice("acme", "", True), ContentChoice("acme", "k1", False, 3)
    for choices in ((team, key), (key, team)):
        assert chosen(choices, "acme", "k1") == key
        assert chosen(choices, "acme", "k2") == team
        assert chosen(choices, "other", "k1") is None
