"""kill -9 of the only process, at every kind of moment; then three books are compared.

The books of the callers (what each saw), of the simulated engines (what they produced) and of the gateway (its ledger)
are independent of one another. The process is started anew in the same state folder after each kill, so the
books grow from test to test, in whatever order they run.
"""

from __future__ import annotations

import asyncio
import json
import signal
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from gateway.keeper.client import KeeperClient
from gateway.types.generation import MeterReport
from tests.e2e.callers import Seen, ask, caller
from tests.e2e.conftest import Serve
from tests.e2e.processes import AUTHORIZED, Simulators, WeirProcess, presently
from tests.fakes.backend import SSE_HEAD, Visit, chunk, event, hand_backend

UNBILLED = 256
"""Tokens of a stream that a kill may leave unbilled: progress is journalled this often, or each second."""
CALLERS = 8
MICRO = Decimal("0.000001")
MODELS = """models:
  - id: house/hand
    context_length: 4096
    price: {prompt: "1", completion: "1"}
    endpoints: [{backend: hand}]
"""


class Rounds:
    """The process under test, and all that its callers ever saw.

    Attributes:
        elsewhere: how many requests went to another engine than the simulated ones.
    """

    def __init__(self, serve: Serve, simulators: Simulators) -> None:
        self._serve = serve
        self.simulators = simulators
        self.process: WeirProcess = serve()
        self.seen: list[Seen] = []
        self.elsewhere = 0

    def kill(self) -> None:
        """Kill the process now."""
        self.process.signal(signal.SIGKILL)

    def start_again(self) -> WeirProcess:
        """Start a process in the place of the one that was killed."""
        assert self.process.ended() == -signal.SIGKILL
        self.process = self._serve(self.process.home)
        return self.process

    async def compare(self) -> dict[str, dict[str, Any]]:
        """Compare the three books and return the ledger's view of every request that an engine saw, by its id."""
        self.process.ready()
        await presently(lambda: all(entry["outcome"] != "running" for entry in self.simulators.books().values()))
        books = self.simulators.books()
        async with caller(self.process.url) as http:
            ledger = {identity: await generation(http, identity) for identity in books}
        for identity, found in ledger.items():
            check(found, books[identity])
        for seen in self.seen:
            if seen.finished:
                assert ledger[seen.id]["status"] == "ok", seen
            if seen.usage is not None:
                check_usage(seen, ledger[seen.id])
            if seen.status == 200 and ledger[seen.id]["status"] == "orphaned":
                assert ledger[seen.id]["tokens_completion"] >= seen.tokens - UNBILLED, seen
        check_sums(await audit(self.process.home), list(ledger.values()), len(self.seen) + self.elsewhere)
        return ledger


async def audit(home: Path) -> MeterReport:
    """Return what the running keeper's audit says; it must be that all books agree."""
    client = KeeperClient(home)
    await client.start()
    try:
        report = await client.audit()
    finally:
        await client.stop()
    assert report.ok, report
    return report


async def generation(http: httpx.AsyncClient, identity: str) -> dict[str, Any]:
    """Return what the gateway says of an answer; money is exact."""
    answer = await http.get("/api/v1/generation", params={"id": identity}, headers=AUTHORIZED)
    assert answer.status_code == 200, (identity, answer.text)
    return dict(json.loads(answer.text, parse_float=Decimal)["data"])


def check(found: dict[str, Any], produced: dict[str, Any]) -> None:
    """Check one answer in the ledger against what the engine ``produced``: one row, its tokens, their price."""
    assert [attempt["outcome"] for attempt in found["provider_responses"]] == [found["status"]]
    tokens = found["tokens_prompt"], found["native_tokens_cached"], found["tokens_completion"]
    if found["status"] == "ok":
        assert produced["outcome"] == "completed"
        assert tokens == (produced["prompt_tokens"], produced["cached_tokens"], produced["completion_tokens"])
    else:
        assert found["status"] == "orphaned", found
        assert tokens[2] <= produced["completion_tokens"]
    prompt, cached, completion = tokens
    price = (prompt - cached) * Decimal("0.10") + cached * Decimal("0.02") + completion * Decimal("0.30")
    assert found["total_cost"] == (price * MICRO if completion else 0), found


def check_usage(seen: Seen, found: dict[str, Any]) -> None:
    """Check what a caller was told against the ledger."""
    usage = seen.usage
    assert usage is not None
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (found["tokens_prompt"], found["tokens_completion"])
    assert usage["cost"] == found["total_cost"]
    assert found["usage_source"] == "upstream"


def check_sums(report: MeterReport, ledger: list[dict[str, Any]], asked: int) -> None:
    """Check the whole ledger: nothing in it but those answers, and attempts that never reached an engine."""
    whole = report.ledger
    assert len(ledger) <= whole["requests"] <= asked
    assert whole.get("rows_ok", 0) == sum(found["status"] == "ok" for found in ledger)
    assert whole.get("rows_ok", 0) + whole.get("rows_orphaned", 0) == whole["requests"]
    assert whole["tokens_prompt"] == sum(found["tokens_prompt"] for found in ledger)
    assert whole["tokens_completion"] == sum(found["tokens_completion"] for found in ledger)
    assert Decimal(whole["charge_nano"]).scaleb(-9) == sum(Decimal(found["total_cost"]) for found in ledger)


@pytest.fixture(scope="module")
def rounds(serve: Serve, simulators: Simulators) -> Rounds:
    """A process that runs."""
    return Rounds(serve, simulators)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_an_answer_whose_end_was_seen_is_metered_though_the_process_dies_that_moment(
    rounds: Rounds, stream: bool
) -> None:
    """What finishes an answer leaves only when its usage is on disk."""

    def kill_at_the_end(seen: Seen) -> None:
        if seen.finished:
            rounds.kill()

    rounds.process.ready()
    async with caller(rounds.process.url) as http:
        seen = await ask(http, stream=stream, watch=kill_at_the_end)
    assert seen.finished
    rounds.seen.append(seen)
    rounds.start_again()
    assert (await rounds.compare())[seen.id]["tokens_completion"] == 10


async def test_the_end_is_not_seen_before_it_is_metered(rounds: Rounds, config: Path) -> None:
    """An engine has finished and not yet told what that took: its last event waits here, so a kill loses no answer."""

    async def say_all_but_the_usage(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("one")), event(chunk(" two", finish="stop")))
        await visit.gone.wait()

    good, seen = config.read_text(), Seen()
    async with hand_backend(say_all_but_the_usage) as engine:
        backend = f'  - {{name: hand, kind: vllm, url: "{engine.url}"}}\n'
        config.write_text(good.replace("models:\n", backend + MODELS))
        try:
            rounds.process.ready()
            async with caller(rounds.process.url) as http, asyncio.TaskGroup() as group:
                while "house/hand" not in (await http.get("/v1/models", headers=AUTHORIZED)).text:
                    await asyncio.sleep(0.05)
                group.create_task(ask(http, model="house/hand", seen=seen))
                await presently(lambda: seen.tokens > 0)
                await asyncio.sleep(0.2)
                rounds.kill()
        finally:
            config.write_text(good)
    rounds.elsewhere += 1
    assert seen.broken
    assert not seen.finished
    rounds.start_again()
    await rounds.compare()
    async with caller(rounds.process.url) as http:
        assert (await generation(http, seen.id))["status"] == "orphaned"


async def test_a_stream_cut_by_a_kill_is_charged_by_its_last_progress(rounds: Rounds) -> None:
    """The team pays what was produced up to the last progress record, marked as an orphan; the engine is stopped."""

    def kill_in_the_middle(seen: Seen) -> None:
        if seen.tokens == 700:
            rounds.kill()

    rounds.process.ready()
    async with caller(rounds.process.url) as http:
        seen = await ask(http, max_tokens=20_000, watch=kill_in_the_middle)
    assert seen.broken
    assert not seen.finished
    rounds.seen.append(seen)
    rounds.start_again()
    found = (await rounds.compare())[seen.id]
    assert found["status"] == "orphaned"
    assert found["tokens_completion"] >= 700 - UNBILLED
    assert rounds.simulators.books()[seen.id]["outcome"] == "cancelled"


async def kill_under_load(rounds: Rounds, random: Random) -> None:
    """Let many callers ask for short and long answers, one after another, until some were answered; then kill."""
    rounds.process.ready()
    loop, answered, target = asyncio.get_running_loop(), 0, random.randint(20, 80)

    def count(seen: Seen) -> None:
        nonlocal answered
        answered += seen.done
        if seen.done and answered == target:
            loop.call_later(random.uniform(0.0, 0.05), rounds.kill)

    async def keep_asking(http: httpx.AsyncClient, random: Random) -> None:
        seen = Seen()
        while not seen.broken:
            seen = Seen()
            rounds.seen.append(seen)
            tokens = random.choice((1, 5, 20, 60, 400))
            await ask(http, stream=random.random() < 0.7, max_tokens=tokens, seen=seen, watch=count)

    async with caller(rounds.process.url) as http, asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(keep_asking(http, Random(random.random())))


@pytest.mark.parametrize("seed", range(3))
async def test_no_answer_is_lost_or_doubled_by_kills_under_load(rounds: Rounds, seed: int) -> None:
    """Whatever callers and shipper are doing when the process dies, all three books agree afterwards."""
    await kill_under_load(rounds, Random(seed))
    rounds.start_again()
    ledger = await rounds.compare()
    assert {found["status"] for found in ledger.values()} == {"ok", "orphaned"}


async def test_a_kill_while_the_books_are_mended_does_no_harm(rounds: Rounds) -> None:
    """What is repeated after a kill may be killed and repeated again."""
    random = Random(7)
    await kill_under_load(rounds, random)
    again = rounds.start_again()
    lock = again.home / "keeper.lock"
    await presently(lambda: lock.read_text().strip() == str(again.pid))  # about to open the database and to ship
    await asyncio.sleep(random.uniform(0.0, 0.2))
    rounds.kill()
    rounds.start_again()
    await rounds.compare()


def test_being_told_to_stop_ends_it_with_status_0_and_everything_shipped(rounds: Rounds) -> None:
    """SIGTERM of the only process is a clean end: the ledger is complete without another start."""
    rounds.process.ready()
    assert rounds.process.stop() == 0
    assert rounds.process.left_nothing()
    assert not (rounds.process.home / "keeper.sock").exists()
    report = rounds.process.audit()  # by the command, which keeps the folder itself now
    assert report["journal"]["unshipped_bytes"] == 0


async def test_ctrl_c_pressed_again_ends_it_as_cleanly_as_once(serve: Serve) -> None:
    """A second SIGINT while an answer runs lets it finish, ends with status 0 and leaves no segment unshipped."""
    process = serve().ready()
    begun = asyncio.Event()
    async with caller(process.url) as http:
        answer = asyncio.create_task(ask(http, max_tokens=1200, watch=lambda _seen: begun.set()))
        await begun.wait()
        process.signal(signal.SIGINT)
        await presently(lambda: httpx.get(f"{process.url}/ready").status_code == 503)
        process.signal(signal.SIGINT)
        assert (await answer).done
    assert await asyncio.to_thread(process.ended) == 0
    assert process.left_nothing()
    assert "Traceback" not in process.output
    assert not list((process.home / "journal").glob("*.weirj"))
