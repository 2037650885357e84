"""Several workers: what the death of each process costs, signals, and what all of them must agree on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.keeper.address import KeeperLock
from tests.e2e.callers import Seen, ask, caller
from tests.e2e.conftest import Serve
from tests.e2e.processes import AUTHORIZED, MANAGING, PATIENCE, Simulators, WeirProcess, eventually, presently

SHORT, LONG = 120, 100_000
"""Tokens of answers that take about half a second, and longer than any test."""


@pytest.fixture(scope="module")
def cluster(serve: Serve) -> WeirProcess:
    """Two workers; every test leaves them as it found them."""
    return running(serve(workers=2))


def running(cluster: WeirProcess) -> WeirProcess:
    """Wait until the cluster and both of its workers take requests."""
    cluster.ready()
    eventually(lambda: len(cluster.workers) == 2)
    return cluster


@asynccontextmanager
async def clients(cluster: WeirProcess) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Give the block a client of each worker, oldest worker first."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(cluster.client_of(pid)) for pid in cluster.workers]


async def new_key(http: httpx.AsyncClient, **limits: int) -> tuple[str, dict[str, str]]:
    """Make a key; return its id and the headers of a caller who has it."""
    body = {"name": "e2e", "weir": {"limits": limits}}
    answer = await http.post("/api/v1/keys", json=body, headers=MANAGING)
    assert answer.status_code == 201, answer.text
    document = answer.json()
    return document["data"]["weir"]["key_id"], {"authorization": f"Bearer {document['key']}"}


async def until(look: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> float:
    """Wait until ``look`` says yes; return the seconds that took."""
    began = time.monotonic()
    while not await look():
        assert time.monotonic() - began < seconds, "did not happen in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def begun(group: asyncio.TaskGroup, http: httpx.AsyncClient, tokens: int, **more: Any) -> asyncio.Task[Seen]:
    """Start a stream and return its task once the first token has come."""
    first = asyncio.Event()

    def watch(seen: Seen) -> None:
        if seen.tokens or seen.error:
            first.set()

    task = group.create_task(ask(http, max_tokens=tokens, watch=watch, **more))
    async with asyncio.timeout(PATIENCE):
        await first.wait()
    return task


async def price(http: httpx.AsyncClient) -> str:
    """Return the price of a prompt token as this client's worker knows it."""
    answer = await http.get("/api/v1/models", headers=MANAGING)
    return str(answer.json()["data"][0]["pricing"]["prompt"])


async def test_limits_count_over_all_workers(cluster: WeirProcess) -> None:
    """Of 20 requests of a key with 5 a minute exactly 5 succeed, though each worker alone has seen fewer."""
    async with clients(cluster) as (first, second):
        _, headers = await new_key(first, rpm=5)
        seen = [await ask(first, max_tokens=2, headers=headers) for _ in range(3)]
        seen += [await ask(second, max_tokens=2, headers=headers) for _ in range(4)]
        async with caller(cluster.url) as http:
            seen += await asyncio.gather(*(ask(http, max_tokens=2, headers=headers) for _ in range(13)))
    assert [answer.status for answer in seen[:7]] == [200, 200, 200, 200, 200, 429, 429]
    assert sorted(answer.status for answer in seen) == [200] * 5 + [429] * 15


async def test_a_key_revoked_by_a_command_stops_working_on_every_worker(
    cluster: WeirProcess, record_property: Callable[[str, object], None]
) -> None:
    """Once `weir keys revoke` has returned, no worker takes the key for longer than it takes to tell it."""
    async with clients(cluster) as both:
        key_id, headers = await new_key(both[0])
        for http in both:
            assert (await ask(http, max_tokens=1, headers=headers)).status == 200

        async def refused() -> bool:
            return [(await ask(http, max_tokens=1, headers=headers)).status for http in both] == [401, 401]

        done = await asyncio.to_thread(cluster.weir, "keys", "revoke", key_id)
        assert done.returncode == 0, done.stderr
        seconds = await until(refused, seconds=10.0)
    record_property("seconds_until_refused_everywhere", round(seconds, 3))


async def test_a_changed_file_is_in_force_everywhere_and_a_bad_one_nowhere(cluster: WeirProcess) -> None:
    """The file is read again when it changes; one that is refused leaves the old one running, and the log says why."""
    good = cluster.config.read_text()
    async with clients(cluster) as both:
        before = [await price(http) for http in both]
        assert before[0] == before[1]

        async def are(*prices: str) -> bool:
            return [await price(http) for http in both] == list(prices)

        try:
            cluster.config.write_text(good.replace('prompt: "0.10"', 'prompt: "0.1500"'))
            await until(lambda: are("0.00000015", "0.00000015"))
            said = cluster.events("config.changed")
            assert len(said) <= 3, "once by each worker and by the keeper"
            cluster.config.write_text(good.replace("egress:", "egres:"))
            bad = "config.refused"
            await presently(lambda: len(cluster.events(bad)) >= 2)
            assert all("egres" in event["problems"][0] for event in cluster.events(bad))
            assert await are("0.00000015", "0.00000015")
            assert (await ask(both[0], max_tokens=1)).status == 200
        finally:
            cluster.config.write_text(good)
        await until(lambda: are(*before))


async def test_who_dies_while_the_file_is_bad_comes_back_with_what_is_in_force(cluster: WeirProcess) -> None:
    """A worker and the keeper: one that could not start would take the service away, one edit after it was harmless."""
    good = cluster.config.read_text()
    try:
        cluster.config.write_text(good.replace('prompt: "0.10"', 'prompt: "0.1200"'))
        async with clients(cluster) as both:
            for http in both:
                await until(partial(_is, http, "0.00000012"))
            _, limited = await new_key(both[0], concurrent=5)
        await asyncio.sleep(1.5)  # the supervisor looks once a second, too
        cluster.config.write_text(good.replace("egress:", "egres:"))
        victims = [cluster.keeper, cluster.workers[0]]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        await presently(lambda: cluster.keeper not in {None, victims[0]})
        await presently(lambda: len(cluster.workers) == 2 and victims[1] not in cluster.workers)
        async with clients(cluster) as both:
            for http in both:

                async def served(http: httpx.AsyncClient = http) -> bool:
                    return (await ask(http, max_tokens=2, headers=limited)).done

                await until(served)
                assert await price(http) == "0.00000012"
    finally:
        cluster.config.write_text(good)
    async with clients(cluster) as both:
        for http in both:
            await until(partial(_is, http, "0.0000001"))


async def test_sighup_reads_the_file_again(cluster: WeirProcess) -> None:
    """The signal to the supervisor reaches every worker, also when the file does not look changed."""
    good, status = cluster.config.read_text(), cluster.config.stat()
    async with clients(cluster) as both:
        before = [await price(http) for http in both]
        try:
            # Same length and time: who looks at the file only from outside does not see this.
            _overwrite(cluster.config, good.replace('prompt: "0.10"', 'prompt: "0.70"'), status)
            cluster.signal(signal.SIGHUP)
            for http in both:
                await until(partial(_is, http, "0.0000007"))
        finally:
            _overwrite(cluster.config, good, status)
            cluster.signal(signal.SIGHUP)
        for http in both:
            await until(partial(_is, http, before[0]))


async def test_sighup_ends_no_process_that_is_starting(serve: Serve) -> None:
    """The signal waits for a worker that has just been started, however early it comes."""
    cluster = serve(workers=2)
    eventually(lambda: "serves http" in cluster.output)
    deadline = time.monotonic() + PATIENCE
    while len(cluster.workers) < 2:
        cluster.signal(signal.SIGHUP)
        await asyncio.sleep(0.01)
        assert time.monotonic() < deadline
    assert cluster.events("process died") == []
    victim = cluster.workers[0]
    os.kill(victim, signal.SIGKILL)
    await presently(lambda: bool(cluster.events("process died")))
    while len(cluster.workers) < 2:
        cluster.signal(signal.SIGHUP)
        await asyncio.sleep(0.01)
        assert time.monotonic() < deadline
    assert [event["pid"] for event in cluster.events("process died")] == [victim]


def _overwrite(path: Path, text: str, status: os.stat_result) -> None:
    with path.open("r+") as file:
        file.write(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


async def _is(http: httpx.AsyncClient, wanted: str) -> bool:
    return await price(http) == wanted


async def test_serving_goes_on_without_the_keeper(cluster: WeirProcess) -> None:
    """Without it running and unlimited requests go on, limited keys fail closed; with a new one all is as before."""
    async with clients(cluster) as both, asyncio.TaskGroup() as group:
        _, limited = await new_key(both[0], concurrent=1)
        async with caller(cluster.url) as others:
            unlimited = await begun(group, both[0], SHORT)
            held = await begun(group, others, LONG, headers=limited)
            old = cluster.keeper
            cluster.signal(signal.SIGSTOP)  # else the supervisor has a new one before anybody can look
            try:
                os.kill(old, signal.SIGKILL)
                for http in both:
                    assert (await ask(http, max_tokens=2)).done
                refused = await ask(both[1], max_tokens=2, headers=limited)
                assert (refused.status, refused.done) == (503, False)
                assert (await unlimited).done
                gone = (await unlimited).id
            finally:
                cluster.signal(signal.SIGCONT)
            await presently(lambda: cluster.keeper != old)

            # The new keeper knows of the request that still runs, and of the answer that ended meanwhile.
            async def counted() -> bool:
                return (await ask(both[1], max_tokens=2, headers=limited)).status == 429

            await until(counted, seconds=10.0)
            found = await both[1].get("/api/v1/generation", params={"id": gone}, headers=MANAGING)
            assert found.json()["data"]["status"] == "ok"
            held.cancel()

        async def allowed() -> bool:
            return (await ask(both[1], max_tokens=2, headers=limited)).done

        await until(allowed)
    await asyncio.to_thread(cluster.audit)


async def test_the_other_worker_goes_on_when_one_is_killed(cluster: WeirProcess, simulators: Simulators) -> None:
    """Answers of a killed worker break off and never look finished; it comes back, and what it held is free."""
    victim, other = cluster.workers
    async with clients(cluster) as (first, second), asyncio.TaskGroup() as group:
        _, limited = await new_key(second, concurrent=1)

        async def known() -> bool:  # a worker that has not found a new keeper yet knows no key that was made since
            return (await first.get("/api/v1/key", headers=limited)).status_code == 200

        await until(known)
        lost = await begun(group, first, LONG, headers=limited)
        kept = await begun(group, second, SHORT)
        os.kill(victim, signal.SIGKILL)
        assert (await lost).broken
        assert not (await lost).finished
        assert (await kept).done

        async def allowed() -> bool:
            return (await ask(second, max_tokens=2, headers=limited)).done

        await until(allowed)
        found = await orphaned(second, (await lost).id)
        assert found["tokens_completion"] <= simulators.books()[(await lost).id]["completion_tokens"]
    await presently(lambda: len(cluster.workers) == 2)
    assert cluster.workers[0] == other
    async with cluster.client_of(cluster.workers[1]) as new:
        assert (await ask(new, max_tokens=2)).done
    await asyncio.to_thread(cluster.audit)


async def test_a_process_that_hangs_is_replaced(serve: Serve) -> None:
    """Keeper and worker, stopped: whoever waits for them is served again, and the books agree."""
    cluster = running(serve(workers=2, WEIR_WATCHDOG="3"))
    async with clients(cluster) as (first, second), asyncio.TaskGroup() as group:
        _, limited = await new_key(second, concurrent=1)
        lost = await begun(group, first, LONG)
        keeper, victim = cluster.keeper, cluster.workers[0]
        os.kill(keeper, signal.SIGSTOP)
        os.kill(victim, signal.SIGSTOP)
        await presently(lambda: keeper != cluster.keeper and victim not in cluster.workers)
        assert (await lost).broken

        async def allowed() -> bool:
            return (await ask(second, max_tokens=2, headers=limited)).done

        await until(allowed)
        await orphaned(second, (await lost).id)
    await asyncio.to_thread(cluster.audit)


async def orphaned(http: httpx.AsyncClient, identity: str) -> dict[str, Any]:
    """Wait until a request is in the ledger as an orphan and return what is known of it."""
    found: dict[str, Any] = {}

    async def shipped() -> bool:
        answer = await http.get("/api/v1/generation", params={"id": identity}, headers=MANAGING)
        if answer.status_code == 200:
            found.update(answer.json()["data"])
        return bool(found)

    await until(shipped)
    assert found["status"] == "orphaned"
    return found


async def test_a_response_in_the_background_is_everybodys_until_its_worker_dies(cluster: WeirProcess) -> None:
    """Another worker ends it, and follows its stream from the start; when its worker is killed, it is found failed."""
    asked = {"model": "qwen/qwen3-32b", "input": "Hi", "background": True, "max_output_tokens": LONG}
    async with clients(running(cluster)) as (first, second):
        accepted = (await first.post("/v1/responses", json=asked | {"stream": False}, headers=AUTHORIZED)).json()
        place = f"/v1/responses/{accepted['id']}"

        async def status() -> str:
            return str((await second.get(place, headers=AUTHORIZED)).json()["status"])

        assert await status() == "in_progress"
        cancelled = (await second.post(f"{place}/cancel", headers=AUTHORIZED)).json()
        assert (cancelled["id"], cancelled["status"]) == (accepted["id"], "cancelled")

        async with first.stream("POST", "/v1/responses", json=asked | {"stream": True}, headers=AUTHORIZED) as answer:
            lines = answer.aiter_lines()
            while not (line := await anext(lines)).startswith("data: "):
                pass
            place = f"/v1/responses/{json.loads(line[6:])['response']['id']}"
            numbers: list[int] = []
            async with second.stream("GET", f"{place}?stream=true", headers=AUTHORIZED) as followed:
                async for line in followed.aiter_lines():
                    if not line.startswith("data: "):
                        continue
                    event = json.loads(line[6:])
                    numbers.append(event["sequence_number"])
                    if len(numbers) == 50:
                        os.kill(cluster.workers[0], signal.SIGKILL)
        assert numbers == list(range(len(numbers)))
        assert event["type"] == "response.failed"
        assert await status() == "failed"
    running(cluster)


async def test_nothing_is_left_when_the_supervisor_is_killed(serve: Serve) -> None:
    """Running answers finish, then every process stops by itself, and all is metered."""
    cluster = running(serve(workers=2))
    async with clients(cluster) as both:
        _, limited = await new_key(both[0], rpm=1000)
        async with asyncio.TaskGroup() as group:
            streams = [await begun(group, http, SHORT, headers=limited) for http in both]
            cluster.signal(signal.SIGKILL)
        assert [(await stream).done for stream in streams] == [True, True]
    assert await asyncio.to_thread(cluster.left_nothing)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{cluster.url}/health")
    assert (await asyncio.to_thread(cluster.audit))["ledger"]["rows_ok"] == 2


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_nothing_is_left_when_the_supervisor_is_killed_while_its_children_start(serve: Serve, pause: float) -> None:
    """However far the children have come, they end at once, and the state folder is free for the next gateway."""
    cluster = serve(workers=2)
    children = Path(f"/proc/{cluster.pid}/task/{cluster.pid}/children")
    eventually(lambda: len(children.read_text().split()) == 3)
    time.sleep(pause)
    cluster.signal(signal.SIGKILL)
    assert cluster.left_nothing()
    KeeperLock(cluster.home).acquire().release()
    if pause == 0.5:  # that the next one starts then is shown once: it takes seconds
        again = serve(cluster.home)
        again.ready()
        assert again.stop() == 0


def test_a_child_that_cannot_start_says_so_in_the_form_of_the_log(serve: Serve) -> None:
    """A secret that others may read does not let a killed worker be replaced; what reads the log can read why."""
    cluster = running(serve(workers=2))
    secret = cluster.home / "secret"
    secret.chmod(0o644)
    os.kill(cluster.workers[0], signal.SIGKILL)
    eventually(lambda: any(event["status"] > 0 for event in cluster.events("process died")))
    assert "WEIR_SECRET" in cluster.events("cannot start")[0]["reason"]
    assert [line for line in cluster.lines if not line.startswith("{")] == [cluster.lines[0]]
    secret.chmod(0o600)
    eventually(lambda: len(cluster.workers) == 2)


async def test_being_told_to_stop_lets_answers_finish_and_tells_the_rest(serve: Serve) -> None:
    """SIGTERM: not ready, nothing new; what runs has the grace, then an error nobody pays; status 0, all closed."""
    cluster = running(serve(workers=2, WEIR_GRACE="3"))
    async with clients(cluster) as both, caller(cluster.url) as http:
        async with asyncio.TaskGroup() as group:
            short = [await begun(group, http, SHORT) for _ in range(4)]
            long = [await begun(group, http, LONG) for _ in range(4)]
            cluster.signal(signal.SIGTERM)
            for client in both:
                await until(partial(_is_draining, client))
        assert [(await stream).done for stream in short] == [True] * 4
        ends = [await stream for stream in long]
    assert [(seen.finished, seen.done, seen.broken) for seen in ends] == [(False, False, "")] * 4
    assert {seen.error["code"] for seen in ends if seen.error} == {503}
    assert await asyncio.to_thread(cluster.ended) == 0
    assert await asyncio.to_thread(cluster.left_nothing)
    rows = (await asyncio.to_thread(cluster.audit))["ledger"]
    assert {name: count for name, count in rows.items() if name.startswith("rows_")} == {
        "rows_ok": 4,
        "rows_upstream_error": 4,
    }
    paid = [await _paid(cluster, seen.id) for seen in ends]
    assert paid == [("shutdown", 0)] * 4


async def _paid(cluster: WeirProcess, identity: str) -> tuple[str, int]:
    """Return the error of the one attempt of an answer and what its team pays for it."""
    with closing(sqlite3.connect(cluster.home / "weir.db")) as books:
        query = "SELECT error, charge_nano FROM ledger JOIN label_set USING (label_id) WHERE request_id = ?"
        ((error, charge),) = books.execute(query, (bytes.fromhex(identity.removeprefix("gen-")),))
        return error, charge


async def _is_draining(http: httpx.AsyncClient) -> bool:
    """Return whether a worker that is asked on an old connection says that it takes nothing new."""
    ready = await http.get("/ready")
    if ready.status_code == 200:
        return False
    assert "shutting down" in json.dumps(ready.json())
    refused = await ask(http, max_tokens=1)
    assert (refused.status, refused.done) == (503, False)
    return True
