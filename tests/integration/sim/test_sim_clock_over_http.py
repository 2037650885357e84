"""Time, cancellation, back-pressure and the books, over real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sim import Fault, SimConfig, SimFleet, SimServer, Timing

PATH = "/v1/chat/completions"
ROOT = Path(__file__).parents[3]


async def test_a_token_leaves_before_the_next_is_made(start: Any, connect: Any, chat: Any) -> None:
    """With gaps between tokens each arrives on its own while the engine has not made the next."""
    sim = await start(timing=Timing(itl=0.75))
    raw = await connect(sim.url)
    raw.send(PATH, chat(stream=True, max_tokens=3))
    for number in range(1, 4):
        async with asyncio.timeout(10):
            while True:
                line = await raw.reader.readuntil(b"\n\n")
                if b'"content":"' in line and b'"content":""' not in line:
                    break
        assert sim.books[0].completion_tokens == number


async def test_headers_come_early_or_with_the_first_token(start: Any, connect: Any, chat: Any) -> None:
    """Some engines send the headers of a stream before the first token exists, others wait for it."""
    for kind, early in (("vllm", True), ("tgi", True), ("sglang", False), ("openai", False)):
        sim = await start(kind=kind, timing=Timing(base_ttft=60 if early else 0.2))
        raw = await connect(sim.url)
        raw.send(PATH, chat(stream=True))
        async with asyncio.timeout(10):
            await raw.reader.readuntil(b"\r\n\r\n")
        assert (sim.books[0].first_token_at == 0.0) is early


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["queued", "prefill", "decode"])
@pytest.mark.parametrize("how", ["fin", "rst", "half"])
async def test_a_client_that_goes_frees_the_slot(
    stream: bool, phase: str, how: str, start: Any, connect: Any, chat: Any, until: Any
) -> None:
    """In every phase and by every way of leaving, the engine stops at once and the books say when and where."""
    sim = await start(timing=Timing(base_ttft=30 if phase == "prefill" else 0, itl=0.02, slots=1))
    long = chat(stream=stream, max_tokens=2_000, ignore_eos=True)
    if phase == "queued":
        ahead = await connect(sim.url)
        ahead.send(PATH, chat(stream=True, max_tokens=2_000, ignore_eos=True))
        await until(lambda: len(sim.engine.running) == 1)
    raw = await connect(sim.url)
    raw.send(PATH, long)
    waiting: Callable[[], bool] = {
        "queued": lambda: len(sim.engine.waiting) == 1,
        "prefill": lambda: len(sim.engine.running) == 1,
        "decode": lambda: len(sim.books) > 0 and sim.books[-1].first_token_at > 0,
    }[phase]
    await until(waiting)
    if phase == "decode":
        await asyncio.sleep(0.07)
    left_at = time.monotonic()
    if how == "fin":
        raw.writer.close()
    elif how == "rst":
        raw.writer.transport.abort()
    else:
        raw.writer.write_eof()
    entry = sim.books[-1]
    await until(lambda: entry.outcome == "cancelled")
    assert entry.phase == phase
    assert left_at <= entry.ended_at < left_at + 5
    assert (entry.completion_tokens > 0) is (phase == "decode")
    made = entry.completion_tokens
    assert made < 2_000
    assert not sim.engine.waiting
    assert len(sim.engine.running) == (1 if phase == "queued" else 0)
    await asyncio.sleep(0.05)
    assert entry.completion_tokens == made


async def test_the_slot_of_a_client_that_goes_is_used_by_the_next(
    start: Any, client: Any, chat: Any, until: Any
) -> None:
    """A request that waited starts as soon as the one before it is cancelled."""
    sim = await start(timing=Timing(base_ttft=0.01, itl=30, slots=1))
    first = asyncio.create_task(client.post(sim.url + PATH, json=chat()))
    await until(lambda: len(sim.engine.running) == 1)
    second = asyncio.create_task(client.post(sim.url + PATH, json=chat(max_tokens=1)))
    await until(lambda: len(sim.engine.waiting) == 1)
    first.cancel()
    async with asyncio.timeout(10):
        assert (await second).status_code == 200
    assert [entry.outcome for entry in sim.books] == ["cancelled", "completed"]


async def test_a_reader_that_does_not_read_stops_the_engine(start: Any, connect: Any, chat: Any, until: Any) -> None:
    """Back-pressure: the engine makes little more than the sockets hold, and goes on when the client reads."""
    sim = await start(context_length=1_000_000)
    raw = await connect(sim.url)
    raw.send(PATH, chat(stream=True, max_tokens=200_000, ignore_eos=True))
    await until(lambda: len(sim.books) > 0 and sim.books[0].completion_tokens > 0)
    before = -1
    while before != sim.books[0].completion_tokens:
        before = sim.books[0].completion_tokens
        await asyncio.sleep(0.2)
    assert before < 100_000
    answer = await raw.read()
    assert answer.complete
    assert sim.books[0].completion_tokens == 200_000
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_a_request_behind_an_unread_answer_waits_too(start: Any, connect: Any, chat: Any, until: Any) -> None:
    """When the answer before it still fills the connection, a stream makes nothing until the client reads."""
    sim = await start(context_length=1_000_000)
    sim.faults.arm(Fault(kind="big_event", size=20_000_000, count=1))
    raw = await connect(sim.url)
    raw.send(PATH, chat())
    raw.send(PATH, chat(stream=True, max_tokens=5_000, ignore_eos=True))
    await until(lambda: len(sim.books) == 2)
    await asyncio.sleep(0.2)
    assert sim.books[1].completion_tokens == 0
    while sim.books[1].outcome == "running":
        await raw.reader.read(1_000_000)
    assert sim.books[1].completion_tokens == 5_000


async def test_the_books_are_read_over_http(start: Any, client: Any, chat: Any) -> None:
    """GET /sim/books has bodies, headers, tokens and totals; DELETE forgets them."""
    sim = await start()
    await client.post(sim.url + PATH, json=chat(max_tokens=3, priority=5), headers={"X-Trace": "abc"})
    await client.post(sim.url + PATH, content=b"not json")
    books = (await client.get(f"{sim.url}/sim/books")).json()
    good, bad = books["requests"]
    assert good["body"]["priority"] == 5
    assert good["headers"]["x-trace"] == "abc"
    assert (good["outcome"], good["status"], good["completion_tokens"]) == ("completed", 200, 3)
    assert (bad["outcome"], bad["status"], bad["body"]) == ("refused", 400, "not json")
    assert books["totals"]["requests"] == 2
    assert (books["running"], books["waiting"]) == (0, 0)
    assert (await client.delete(f"{sim.url}/sim/books")).status_code == 204
    books = (await client.get(f"{sim.url}/sim/books")).json()
    assert books["requests"] == []
    assert books["totals"]["requests"] == 0


async def test_totals_outlive_the_entries(start: Any, client: Any, chat: Any) -> None:
    """Only the newest requests are kept one by one, the totals count all; an entry is found by the answer's id."""
    sim = await start(books_limit=3)
    for _ in range(7):
        answer = await client.post(sim.url + PATH, json=chat(max_tokens=2))
    assert len(sim.books) == 3
    assert (sim.books.totals.completed, sim.books.totals.completion_tokens) == (7, 14)
    found = sim.books.find(answer.json()["id"].removeprefix("chatcmpl-"))
    assert found is sim.books[-1]
    assert sim.books.find("nothing") is None


async def test_a_fleet_has_backends_by_name(chat: Any) -> None:
    """Several backends of several kinds live in one process, each with its own books and faults."""
    configs = [SimConfig(name="a"), SimConfig(name="b", kind="tgi"), SimConfig(name="c", kind="openai")]
    async with SimFleet(configs) as fleet, httpx.AsyncClient(verify=False) as client:
        assert len(fleet) == len(set(fleet.urls.values())) == 3
        fleet["b"].faults.arm(Fault(kind="error_status", status=500))
        statuses = [(await client.post(url + PATH, json=chat())).status_code for url in fleet.urls.values()]
        assert statuses == [200, 500, 200]
        assert [sim.books.totals.completed for sim in fleet] == [1, 0, 1]
    with pytest.raises(ValueError, match="name"):
        SimFleet([SimConfig(), SimConfig()])


async def test_a_fleet_that_cannot_start_leaves_nothing_open(start: Any) -> None:
    """When one port is taken, the backends already started are stopped again."""
    taken = await start()
    fleet = SimFleet([SimConfig(name="a"), SimConfig(name="b", port=taken.port)])
    with pytest.raises(OSError, match="in use"):
        await fleet.__aenter__()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", fleet["a"].port)


async def test_stopping_ends_open_connections(connect: Any, chat: Any) -> None:
    """Leaving the block resets what is still connected and cancels what still runs."""
    async with SimServer(SimConfig(timing=Timing(base_ttft=60))) as sim:
        raw = await connect(sim.url)
        raw.send(PATH, chat())
        while not sim.engine.running:
            await asyncio.sleep(0.002)
    with pytest.raises(ConnectionResetError):
        await raw.rest()
    assert sim.books[0].outcome == "cancelled"
    assert not sim.engine.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    """``run`` prints one READY line per backend, serves, and ends cleanly on SIGTERM and SIGINT."""
    program = (
        "import asyncio\n"
        "from gateway.sim import SimConfig, run\n"
        "asyncio.run(run([SimConfig(name='one'), SimConfig(name='two', kind='tgi')]))\n"
    )

    async def story() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            lines = [(await process.stdout.readline()).decode().split() for _ in range(2)]
            assert [line[:2] for line in lines] == [["READY", "one"], ["READY", "two"]]
            async with httpx.AsyncClient(verify=False) as client:
                for _, _, url in lines:
                    assert (await client.get(f"{url}/health")).status_code == 200
            process.send_signal(number)
            assert await process.wait() == 0
            assert await process.stdout.read() == b""

    asyncio.run(story())
