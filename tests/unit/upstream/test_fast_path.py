"""The fast path says to the caller and to the books, to the byte, what the long way says."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering import meter as metering
from gateway.metering.meter import Meter
from gateway.upstream import attempt as attempts
from gateway.upstream.attempt import ALIKE, Attempt
from gateway.upstream.fast_path import LONGEST, STRANGERS, FastPath, learned
from gateway.upstream.wire import Connection
from tests.fakes.attempt import asked
from tests.fakes.fuzz import cut
from tests.fakes.streamed_answer import DONE, HEAD, LAST, SLOW, World, counted, event, frame, piece


def play(reads: list[bytes | str], *, slow: bool, **world: Any) -> tuple[tuple[Any, ...], int]:
    """Return what comes of ``reads``, in which a word stands for what the caller does, and how many were fast."""

    async def run() -> tuple[tuple[Any, ...], int]:
        with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            if slow:
                patch.setattr(attempts, "ALIKE", -1)
            made = World(Path(folder), **world)
            for read in reads:
                if isinstance(read, bytes):
                    made.read(read)
                else:
                    getattr(made.attempt, read)()
            told = made.end()
            await made.journal.close()
            return told, made.taken

    return asyncio.run(run())


def both(reads: list[bytes | str], **world: Any) -> tuple[tuple[Any, ...], int]:
    """Return what comes of ``reads`` on the fast path, which is what comes of them without it."""
    slow, none = play(reads, slow=True, **world)
    assert not none
    fast, taken = play(reads, slow=False, **world)
    assert fast == slow
    return fast, taken


WORDS = st.one_of(
    st.text(min_size=1, max_size=6),
    st.sampled_from(
        [
            "a",
            " b",
            '"',
            "\\",
            "\n",
            "\n\n",
            "a\nb",
            "\\n",
            "é",
            "字",
            "\u2028",
            "\x7f",
            "the words go here",
            '"content":"',
            "𝄞",
        ]
    ),
)
MEMBERS = st.sampled_from(["content", "content", "content", "reasoning_content", "reasoning"])
ODD = st.sampled_from(
    [
        event(piece("")),
        event(piece(None)),
        event(piece("x", id="other")),
        event(piece("x", usage=None)),
        event(piece("x", error={"message": "full"})),
        event(piece("x", vendor=1)),
        event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c"}]}}]}),
        event({"choices": [{"index": 0, "delta": {"content": "z"}, "finish_reason": "stop"}]}),
        event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}),
        event(piece("x")).replace(b'"x"', b'"\x01"'),
        event(piece("x")).replace(b"}]}", b"}]]"),
        event(counted("x", 5)).replace(b"}}\n", b"}]\n"),
        event(piece("x")) + b"\r\n: ping\n\n",
        b": ping\n\n",
        b"data: {\n\n",
        DONE,
    ]
)
FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGES = st.sampled_from([None, True, False])


@st.composite
def streams(draw: st.DrawFn) -> list[bytes | str]:
    """Return reads of one answer: runs of like pieces in several forms, odd events between, cut anywhere."""
    reads: list[bytes | str] = [HEAD]
    tokens = 0
    for _ in range(draw(st.integers(1, 3))):
        member, spaced, total_first = draw(MEMBERS), draw(st.booleans()), draw(USAGES)
        form = draw(st.sampled_from([b"%x", b"%X", b"0%x"]))
        for words in draw(st.lists(WORDS, max_size=9)):
            tokens += draw(st.sampled_from([1, 1, 1, 2, -1, 1 << 50]))
            document = piece(words, member)
            if total_first is not None:
                document["usage"] = counted("", max(0, tokens), total_first=total_first)["usage"]
            data = frame(event(document, spaced=spaced), form)
            reads += (
                cut(data, draw(st.lists(st.integers(1, 300), max_size=1))) if draw(st.integers(0, 9)) == 0 else [data]
            )
        reads += [frame(each) for each in draw(st.lists(ODD, max_size=2))]
        if draw(st.integers(0, 4)) == 0:
            reads += ["pause", "resume"]
    ends: list[list[bytes | str]] = [[], [LAST], [frame(DONE), LAST], [frame(DONE) + LAST], ["abort"]]
    return [*reads, *draw(st.sampled_from(ends))]


@given(streams(), st.booleans(), st.booleans())
def test_nothing_tells_the_fast_path_from_the_long_way(
    reads: list[bytes | str], openrouter: bool, exclude: bool
) -> None:
    """The caller's bytes, the counts, what a continuation would know and how it ended are the same."""
    both(reads, openrouter=openrouter, exclude=exclude)


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("form", [b"%x", b"%X"])
@pytest.mark.parametrize("total_first", [None, True, False])
@pytest.mark.parametrize("openrouter", [False, True])
def test_pieces_of_text_take_it(spaced: bool, form: bytes, total_first: bool | None, openrouter: bool) -> None:
    """Engines of every habit are fast; what the caller reads is each of their words."""
    words = [f" word{number}" for number in range(20)]
    documents = [
        piece(each) if total_first is None else counted(each, number, total_first=total_first)
        for number, each in enumerate(words, start=1)
    ]
    reads: list[bytes | str] = [HEAD, *[frame(event(each, spaced=spaced), form) for each in documents]]
    (written, failure, chunks, (usage, _), *_), taken = both([*reads, frame(DONE), LAST], openrouter=openrouter)
    assert taken == 20 - SLOW + 1  # the end as well: it came there and went round
    assert b"".join(re.findall(rb'"content":"([^"]*)"', written)).decode() == "".join(words)
    assert (failure, chunks) == (None, 20)
    assert total_first is None or usage.completion == 20


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("exclude", [False, True])
def test_thoughts_take_it_too_unless_the_caller_wants_none(member: str, exclude: bool) -> None:
    """What an engine thinks is most of what some models say."""
    reads: list[bytes | str] = [HEAD, *[frame(event(piece(f" {number}", member))) for number in range(9)]]
    (*_, kept), taken = both([*reads, frame(DONE), LAST], openrouter=True, exclude=exclude)
    assert kept[1] == ("" if exclude else "".join(f" {number}" for number in range(9)))
    assert bool(taken) is not exclude


def test_one_that_is_odd_where_it_would_begin_only_delays_it() -> None:
    """The place where it is tried again is not far."""
    like = [frame(event(piece(f" {number}"))) for number in range(4 * SLOW)]
    _, taken = both([HEAD, *like[:ALIKE], frame(event(piece("a\n"))), *like, frame(DONE), LAST])
    assert taken == 1 + ALIKE + len(like) + 1 - 1 - 4 * ALIKE


@pytest.mark.parametrize(
    "odd",
    [
        piece('say "x"'),
        piece("back\\slash"),
        piece("back\\new\n"),
        piece("a\tb"),
        piece("x" * (LONGEST + 1)),
        piece("soft\xadhyphen"),
        piece(""),
        piece("x", id="chatcmpl-2"),
        piece("x", service_tier=None),
    ],
)
def test_one_that_is_odd_goes_round_and_the_next_one_is_fast_again(odd: dict[str, Any]) -> None:
    """Order is kept, and nothing is learned anew for one line's end."""
    like = [frame(event(piece(f" {number}"))) for number in range(8)]
    _, taken = both([HEAD, *like, frame(event(odd)), *like, frame(DONE), LAST])
    assert taken == 8 - SLOW + 1 + 8 + 1


@pytest.mark.parametrize("words", ["\n", "\n\n", "end.\n\nBegin", "x" * LONGEST])
def test_ends_of_lines_take_it_as_well(words: str) -> None:
    """Half of what a model writes in code and lists."""
    like = [frame(event(piece(f" {number}"))) for number in range(8)]
    (written, *_, kept), taken = both([HEAD, *like, frame(event(piece(words))), *like, frame(DONE), LAST])
    assert taken == 8 - SLOW + 1 + 8 + 1
    assert json.dumps(words).encode() in written
    assert words in kept[0]


def test_a_line_that_an_engine_ends_in_other_letters_goes_round() -> None:
    """What the caller gets is the same bytes, whatever the engine escapes."""
    like = [frame(event(piece(f" {number}"))) for number in range(8)]
    odd = event(piece("a")).replace(b'"a"', b'"\\u000a"')
    (written, *_), _ = both([HEAD, *like, frame(odd), *like, frame(DONE), LAST])
    assert b'"\\n"' in written


def test_another_pattern_is_learned_when_the_first_one_does_not_come_back() -> None:
    """An engine thinks first, and answers then."""
    thoughts = [frame(event(piece(f" {number}", "reasoning_content"))) for number in range(8)]
    words = [frame(event(piece(f" {number}"))) for number in range(12)]
    _, taken = both([HEAD, *thoughts, *words, frame(DONE), LAST])
    assert taken == (8 - SLOW) + STRANGERS + (12 - STRANGERS - (ALIKE - 1)) + 1


async def test_what_stands_around_the_words_is_put_to_the_proof() -> None:
    """Neither a decoy nor a second member is taken for the words."""
    for decoy in (
        counted("x", 3, completion_tokens_details={"total_tokens": 12}),
        {"usage": counted("", 1, prompt_tokens_details={"content": "x"})["usage"], **piece("x")},
        {
            "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"content": "x"}, "total_tokens": 3}
            | {"completion_tokens": 2},
            **piece("x"),
        },
        piece("x", choices=[{"index": 0, "delta": {"content": "a", "reasoning": "b"}}]),
        piece("x", choices=[{"index": 0, "delta": {"content": "a\n"}}]),
        piece("x", choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]),
    ):
        assert learned(event(decoy)) is None
    escaped = event(json.dumps(piece("x")).replace('"content"', '"\\u0063ontent"'))
    assert learned(escaped) is None
    twice = event(piece("x")).replace(b'"content":"x"', b'"content":"x","content":"x"')
    found = learned(twice)
    assert found is not None
    assert found.before.endswith(b'"content":"x","content":"')
    found = learned(event(piece("x", system_fingerprint='"content":"y"')))
    assert found is not None
    assert found.before.endswith(b'"delta":{"content":"')


def test_a_count_that_falls_takes_nothing_back() -> None:
    """The report with the most tokens counts, and one beyond all bounds does not."""
    for tokens in ((1, 2, 3, 4, 5, 6, 9, 7, 8), (1, 2, 3, 4, 5, 6, 9, 1 << 50, 8), (1, 2, 3, 4, 5, 9, 0)):
        reads = [frame(event(counted(" w", each))) for each in tokens]
        (_, _, _, (usage, _), *_), _ = both([HEAD, *reads, frame(event(FINISH)), frame(DONE), LAST])
        assert usage.completion == 9


@pytest.mark.parametrize(
    "odd",
    [
        event(piece("x")).replace(b'"x"', b'"\x01"'),
        event(piece("x")).replace(b'"x"', b'"\xff"'),
        event(piece("x")).replace(b"}]}", b"}]]"),
        event(piece("x")) + b"\r\n" + event(piece("y")),
        event(piece("x")) + event(piece("y")),
    ],
)
@pytest.mark.parametrize("counts", [False, True])
def test_what_is_no_event_there_is_none_here(odd: bytes, counts: bool) -> None:
    """Bytes that nearly follow the pattern are read by the long way, for better or worse."""
    like: list[bytes | str] = [frame(event(counted(" w", each) if counts else piece(" w"))) for each in range(1, 8)]
    if counts:
        usage = b',"usage":{"prompt_tokens":9,"total_tokens":17,"completion_tokens":8}}\n\n'
        both([HEAD, *like, frame(odd.replace(b"}\n\n", usage, 1)), *like, frame(DONE), LAST])
        odd = event(counted("x", 9)).replace(b"}}\n", b"}]\n")
    both([HEAD, *like, frame(odd), *like, frame(DONE), LAST])


@pytest.mark.parametrize("number", [b"07", b"1_0", b"+7", b"-7", b"7.0", b" 7", b"", b"99999999999999999999"])
def test_a_count_is_read_by_the_rules_of_json(number: bytes) -> None:
    """What is no number there is none here."""
    like = [frame(event(counted(" w", tokens))) for tokens in range(1, 6)]
    odd = event(counted(" w", 12345)).replace(b"12345", number)
    both([HEAD, *like, frame(odd), frame(DONE), LAST])


@pytest.mark.parametrize("size", [b"0x%x", b"%x;a=b", b"%x ", b"+%x", b"00%x", b"%x\t"])
def test_the_size_of_a_piece_is_read_by_the_rules_of_http(size: bytes) -> None:
    """What the parser refuses is refused; what it takes goes round."""
    like = [frame(event(piece(" w"))) for _ in range(6)]
    odd = event(piece(" w"))
    both([HEAD, *like, (size + b"\r\n%b\r\n") % (len(odd), odd), *like, frame(DONE), LAST])


def test_a_piece_of_a_body_that_is_not_whole_begins_no_fast_path() -> None:
    """Events in the middle of a larger piece: the parser must see all of it."""
    events = [event(piece(f" {number}")) for number in range(9)]
    whole = b"".join(events)
    reads: list[bytes | str] = [HEAD, b"%x\r\n" % len(whole), *events, b"\r\n", LAST]
    _, taken = both(reads)
    assert not taken
    without = HEAD.replace(b"transfer-encoding: chunked\r\n", b"")
    _, taken = both([without, *events])
    assert not taken


@pytest.mark.parametrize(
    "odd",
    [
        frame(event(FINISH)),
        frame(b": ping"),
        frame(b"data: {"),
        frame(b"data: {\n"),
        frame(b"data: [1\r"),
        frame(event(json.dumps(piece("x")).replace('"x"', '"\\ud83d"'))),
        b"1000\r\n",
    ],
)
def test_nothing_passes_what_a_read_left_open(odd: bytes) -> None:
    """A finish that is held back, half a line, half a character, half a piece of a body: the rest stays behind it."""
    like: list[bytes | str] = [frame(event(piece(f" {number}"))) for number in range(8)]
    _, taken = both([HEAD, *like, odd, *like[:2], frame(DONE), LAST])
    assert taken == 8 - SLOW + 1


def test_what_never_follows_is_looked_for_seldom() -> None:
    """An engine that says something new with every piece costs a look now and then, not at every fifth one."""
    like = [frame(event(piece(" w", created=number))) for number in range(300)]
    _, taken = both([HEAD, *like, frame(DONE), LAST])
    assert taken <= 4 * STRANGERS


@pytest.fixture
async def fast(tmp_path: Path) -> World:
    """Return an answer that is on the fast path."""
    world = World(tmp_path, idle=0.2)
    for read in [HEAD, *[frame(event(piece(" w"))) for _ in range(6)]]:
        world.read(read)
    assert world.fast
    return world


async def test_pieces_hold_the_idle_limit_off(fast: World) -> None:
    """The limit is between two pieces, whoever reads them; then it strikes."""
    fast.connection.deadlines.watch(fast.attempt)
    for _ in range(8):
        await asyncio.sleep(0.1)
        fast.read(frame(event(piece(" w"))))
    assert fast.attempt.failure is None
    assert fast.fast
    await fast.attempt.done()
    assert fast.attempt.failure is not None
    assert "sent nothing for 0.2 s" in fast.attempt.failure.message
    assert fast.end()[2] == 14


async def test_an_answer_that_is_read_on_without_its_caller_is_not_written(fast: World) -> None:
    """Where the backend bills on, what comes after the caller left is counted only."""
    written = bytes(fast.caller.written)
    fast.exchange.gone = True
    fast.attempt.resume()  # as the walk does when it reads on
    for _ in range(6):
        fast.read(frame(event(piece(" w"))))
    assert not fast.fast
    assert fast.caller.written == written
    assert fast.attempt.chunks == 12


async def test_no_limit_strikes_while_the_caller_does_not_read(fast: World) -> None:
    """A piece that came before the pause does not start the clock again."""
    fast.read(frame(event(piece(" w"))))
    fast.attempt.pause()
    assert fast.backend.paused
    assert fast.attempt.deadline == float("inf")
    assert fast.attempt.chunks == 7
    assert fast.attempt.deadline == float("inf")


async def test_the_connection_is_given_back_as_it_was(fast: World) -> None:
    """The next request on it is read by itself."""
    fast.read(frame(DONE) + LAST)
    assert not fast.fast
    assert fast.pool.take() is fast.connection
    second = Attempt(asyncio.get_running_loop(), *attempt_terms())
    second.start(fast.connection, b"again")
    fast.backend.get_protocol().data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")
    assert second.status == 200


def attempt_terms() -> tuple[Any, ...]:
    """Return what else an attempt is made with."""
    made, *_ = asked(first_byte=60, idle=60)
    return made._engine, made._operation, 60.0, 60.0


async def test_progress_is_journalled_on_the_fast_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many deltas as on the long way, and after as much time."""
    world = World(tmp_path)
    told: list[int] = []
    monkeypatch.setattr(Meter, "_progress", lambda meter: told.append(meter.tap.deltas))
    world.read(HEAD)
    for _ in range(2 * metering.PROGRESS_TOKENS + 5):
        world.read(frame(event(piece(" w"))))
    assert world.fast
    assert told == [metering.PROGRESS_TOKENS, 2 * metering.PROGRESS_TOKENS]
    monkeypatch.setattr(metering, "PROGRESS_SECONDS", 0.0)
    assert world.attempt.chunks  # to ask is to be told what has passed, and until when more may
    world.read(frame(event(piece(" w"))))
    assert len(told) > 2


async def test_whoever_asks_how_far_it_is_is_told(fast: World) -> None:
    """Pieces that have passed count at once for who learns from answers under way."""
    fast.read(frame(event(piece(" w"))))
    assert fast.attempt.chunks == 7
    assert fast.meter.tap.deltas == 7
    before = fast.attempt.last_at
    fast.read(frame(event(piece(" w"))))
    assert fast.attempt.last_at > before


async def test_a_connection_that_breaks_is_told_to_the_attempt(fast: World) -> None:
    """Behind the pieces that came."""
    fast.read(frame(event(piece(" w"))))
    fast.backend.lose(ConnectionResetError())
    assert fast.attempt.failure is not None
    assert fast.attempt.chunks == 7
    assert isinstance(fast.backend.get_protocol(), Connection)


async def test_no_more_than_progress_allows_goes_untold_behind_many_at_once(
    fast: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces that came by the long way in one read count towards the next progress, too."""
    behind = told = 0

    def progress(meter: Meter) -> None:
        nonlocal told
        told = meter.tap.deltas

    monkeypatch.setattr(Meter, "_progress", progress)
    monkeypatch.setattr(metering, "PROGRESS_SECONDS", 1000.0)
    count = 6
    assert fast.attempt.chunks  # to ask is to be told what has passed, and how many more may
    for many in [metering.PROGRESS_TOKENS - 20] + 40 * [0]:
        read = b"".join(frame(event(piece(" w"))) for _ in range(max(1, many)))
        fast.read(read)
        count += max(1, many)
        behind = max(behind, count - told)
    assert behind <= metering.PROGRESS_TOKENS


async def test_a_caller_that_is_full_is_told_of_all_its_tokens(tmp_path: Path) -> None:
    """The write that fills it has what passed told at once: with the usage that came with the last piece."""
    world = World(tmp_path)
    for read in [HEAD, *[frame(event(counted(" w", 5 * each))) for each in range(1, 8)]]:
        world.read(read)
    path = world.backend.get_protocol()
    assert isinstance(path, FastPath)
    write = path._write

    def full(data: bytes) -> None:
        write(data)
        world.attempt.pause()

    path._write = full
    world.read(frame(event(counted(" w", 40))))
    assert world.end()[3][0].completion == 40
