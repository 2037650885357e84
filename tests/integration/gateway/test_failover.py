"""Backends may fail: before the first byte the request moves on unnoticed, after it there is an honest error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.fleet import probe
from gateway.sim import Fault, SimConfig, SimFleet, SimServer, Timing
from tests.fakes.pair import attempts, pair, said
from tests.fakes.raw_client import events, text_of
from tests.harness import Backend, Stage, configuration, staged

TOKENS = 12
LITELLM = ", litellm: {provider: gemini}"


@asynccontextmanager
async def two(
    home: Path, timing: Timing, *faults: Fault, kind: str = "vllm"
) -> AsyncIterator[tuple[Stage, SimServer, SimServer]]:
    """Run a gateway over two equal simulators; the first breaks in the ways of ``faults``."""
    configs = [SimConfig(name=name, timing=timing, answer_tokens=TOKENS) for name in ("first", "second")]
    async with SimFleet(configs) as fleet, staged(home, pair(*fleet.urls.values(), kind=kind)) as stage:
        fleet["first"].faults.arm(*faults)
        await fleet["first"].settled()
        yield stage, fleet["first"], fleet["second"]


async def test_a_replica_that_was_restarted_is_taken_back_when_it_is_ready(tmp_path: Path) -> None:
    """Requests that found it down had ejected it for half a minute; a second time in a row that holds."""
    sim = SimConfig(name="only", answer_tokens=2)
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(SimFleet([sim]))
        stage = await stack.enter_async_context(staged(tmp_path, configuration([Backend("only", fleet["only"].url)])))
        load = stage.gateway.registry.fleet.replicas["only"].load

        async def restarted() -> int:
            fleet["only"].faults.arm(Fault(kind="refuse"))
            await fleet["only"].settled()
            async with asyncio.timeout(20):
                while load.ready or load.ejected_until <= time.monotonic():
                    await stage.chat()
            fleet["only"].faults.clear()
            await fleet["only"].settled()
            async with asyncio.timeout(20):
                while not load.ready:
                    await asyncio.sleep(0.02)
            return (await stage.chat()).status_code

        assert await restarted() == 200
        assert await restarted() == 503


async def healthy_text() -> str:
    """Return what an unbroken simulator answers to the usual request."""
    async with SimFleet([SimConfig(answer_tokens=TOKENS)]) as fleet, httpx.AsyncClient(verify=False) as http:
        request = {"model": "Qwen/Qwen3-32B", "messages": [{"role": "user", "content": "Tell me about weirs."}]}
        answer = await http.post(f"{fleet['sim'].url}/v1/chat/completions", json=request)
        return str(answer.json()["choices"][0]["message"]["content"])


BEFORE = {
    "refuse": (Fault(kind="refuse"), {"connect"}),
    "accept and reset": (Fault(kind="refuse", mode="rst"), {"connect", "reset"}),
    "reset": (Fault(kind="reset"), {"reset"}),
    "slow": (Fault(kind="slow", delay=5.0), {"first_byte"}),
    "stall behind the head": (Fault(kind="stall"), {"first_byte"}),
    "stall without a head": (Fault(kind="stall", mode="silent"), {"first_byte"}),
    "cut": (Fault(kind="cut_mid_stream", after_chunks=0), {"cut"}),
    "cut cleanly": (Fault(kind="cut_mid_stream", after_chunks=0, mode="end"), {"cut"}),
    "reset behind the head": (Fault(kind="reset_mid_stream", after_chunks=0), {"cut"}),
    "500": (Fault(kind="error_status", status=500), {"error"}),
    "503": (Fault(kind="error_status", status=503), {"overloaded"}),
    "429": (Fault(kind="error_status", status=429), {"overloaded"}),
    "401": (Fault(kind="error_status", status=401), {"error"}),
    "404": (Fault(kind="error_status", status=404), {"error"}),
    "302": (Fault(kind="error_status", status=302), {"error"}),
    "error in a 200": (Fault(kind="error_in_200"), {"error"}),
    "HTML in a 200": (Fault(kind="error_status", status=200, body="<html>welcome</html>"), {"malformed"}),
    "rubbish": (Fault(kind="bad_json_event", after_chunks=0), {"malformed"}),
}


@pytest.mark.parametrize("name", BEFORE)
async def test_before_the_first_byte_the_request_moves_on_unnoticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller sees one whole answer, for a stream and for JSON; the ledger names the try that failed and why."""
    fault, causes = BEFORE[name]
    monkeypatch.setattr(probe, "FAILURES", 1_000_000)  # the request finds out, however long it takes to get there
    expected = await healthy_text()
    async with two(tmp_path, Timing(), fault) as (stage, first, second):
        for number, stream in enumerate((True, False), 1):
            answer = await stage.chat(stream=stream)
            assert said(answer, stream=stream) == expected
            assert "/second; " in answer.headers["x-weir-route"]
            tried = await attempts(stage, answer)
            assert [each[:2] for each in tried] == [("first", "failed"), ("second", "ok")]
            assert tried[0][2] in causes
            assert second.books.totals.completed == number
            if causes == {"overloaded"}:
                await asyncio.sleep(1.1)  # a full backend is spared for a second
        assert first.books.totals.completed == 0 or name == "rubbish"
        assert (await stage.keeper.audit()).ok


HARMLESS = {
    "slow, but within the limits": Fault(kind="slow", delay=0.2),
    "no [DONE]": Fault(kind="cut_before_done"),
    "no [DONE] and no end of the body": Fault(kind="cut_before_done", mode="fin"),
    "odd events": Fault(kind="malformed_sse"),
    "a big event": Fault(kind="big_event", size=1_500_000),
    "frozen metrics": Fault(kind="frozen_metrics"),
    "one bad health probe": Fault(kind="unhealthy", count=1),
    "no usage": Fault(kind="no_usage"),
    "usage twice": Fault(kind="usage_twice"),
    "wrong usage": Fault(kind="wrong_usage", factor=3),
    "nulls": Fault(kind="null_fields"),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_odd_but_whole_is_answered_by_the_first(name: str, tmp_path: Path) -> None:
    """A backend that is slow, sloppy or strange, but says all there is to say, is good enough."""
    expected = await healthy_text()
    async with two(tmp_path, Timing(), HARMLESS[name]) as (stage, _, second):
        for stream in (True, False):
            answer = await stage.chat(stream=stream)
            assert said(answer, stream=stream).replace("x" * 1_500_000, "") == expected
            assert await attempts(stage, answer) == [("first", "ok", None)]
            usage = (await stage.generation(answer.headers["x-generation-id"]))["tokens_completion"]
            assert usage == {"no usage": usage, "wrong usage": 3 * TOKENS}.get(name, TOKENS)
            assert usage > 0
        assert second.books.totals.requests == 0


AFTER = {
    "reset": (Fault(kind="reset_mid_stream", after_chunks=4), 502, "cut"),
    "cut": (Fault(kind="cut_mid_stream", after_chunks=4), 502, "cut"),
    "cut cleanly": (Fault(kind="cut_mid_stream", after_chunks=4, mode="end"), 502, "cut"),
    "stall": (Fault(kind="stall", after_chunks=4), 504, "idle"),
    "error event": (Fault(kind="error_in_200", after_chunks=4), 502, "error"),
    "rubbish": (Fault(kind="bad_json_event", after_chunks=4), 502, "malformed"),
}


@pytest.mark.parametrize("name", AFTER)
async def test_after_the_first_byte_a_failure_is_told(name: str, tmp_path: Path) -> None:
    """An external API's stream that breaks ends in an error event without [DONE]; nobody pays, nobody else is asked."""
    fault, code, cause = AFTER[name]
    kind = "timeout" if code == 504 else "provider_unavailable"
    expected = await healthy_text()
    async with two(tmp_path, Timing(itl=0.03), fault, kind="openai") as (stage, first, second):
        for path in ("/v1", "/api/v1"):
            request = {
                "model": "qwen/qwen3-32b",
                "messages": [{"role": "user", "content": "Tell me about weirs."}],
                "stream": True,
            }
            answer = await stage.http.post(f"{stage.url}{path}/chat/completions", json=request, headers=stage.headers)
            assert answer.status_code == 200
            found = events(answer.content)
            assert "[DONE]" not in found
            assert [("error" in each) for each in found] == [False] * (len(found) - 1) + [True]
            assert found[-1]["error"]["code"] == code
            assert found[-1]["error"]["metadata"]["error_type"] == kind
            text = text_of(found)
            assert text
            assert expected.startswith(text)
            assert text != expected
            assert await attempts(stage, answer) == [("first", "upstream_error", cause)]
            assert (await stage.generation(answer.headers["x-generation-id"]))["total_cost"] == 0
        assert second.books.totals.requests == 0
        assert first.books.totals.completed == 0
        assert (await stage.keeper.audit()).ok


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engines_refusal_of_the_request_itself_passes_through(stream: bool, tmp_path: Path) -> None:
    """A 400 is the caller's to mend: another replica would say the same, so it is not asked; health stays good."""
    words = '{"error": {"message": "top_k must be positive", "type": "BadRequestError", "param": "top_k", "code": 400}}'
    async with two(tmp_path, Timing(), Fault(kind="error_status", status=400, body=words)) as (stage, first, second):
        for _ in range(8):
            answer = await stage.chat(stream=stream)
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert error["message"] == "top_k must be positive"
            assert (error["code"], error["param"], error["type"]) == (400, "top_k", "invalid_request_error")
            assert error["metadata"]["provider_name"] == "first"
        assert first.books.totals.requests == 8
        assert second.books.totals.requests == 0
        assert stage.gateway.registry.fleet.replicas["first"].load.ejected_until == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(kind="refuse"), "connect: no connection to the backend: Connection refused"),
        (Fault(kind="error_status", status=500, body='{"error": {"message": "a secret prompt"}}'), "error: status 500"),
    ],
)
async def test_the_log_says_why_a_backend_was_taken_out(fault: Fault, reason: str, tmp_path: Path) -> None:
    """Refused, out of descriptors, TLS, a status: that is the first thing to know at night. No engine is quoted."""
    async with two(tmp_path, Timing(), fault) as (stage, _, _):
        with capture_logs() as logs:
            for _ in range(8):
                assert (await stage.chat()).status_code == 200
    assert [line["reason"] for line in logs if line["event"] == "replica ejected"] == [reason]
    assert "secret prompt" not in str(logs)


async def test_how_long_a_full_backend_asks_to_be_left_alone_is_passed_on(tmp_path: Path) -> None:
    """When all are full the caller gets 503 and the shortest wait that a backend named; until then none is asked."""
    config = SimConfig(name="only", faults=(Fault(kind="error_status", status=429, headers={"Retry-After": "7"}),))
    async with SimFleet([config]) as fleet:
        only = fleet["only"]
        async with staged(tmp_path, configuration([Backend("only", only.url)])) as stage:
            first = await stage.chat()
            assert first.status_code == 503
            assert first.headers["retry-after"] == "7"
            assert first.json()["error"]["metadata"]["attempts"] == [
                {"provider": "own", "cause": "overloaded", "status": 429}
            ]
            second = await stage.chat()
            assert second.status_code == 503
            assert 1 <= int(second.headers["retry-after"]) <= 7
            assert only.books.totals.requests == 1


async def test_when_all_are_down_the_answer_is_503_with_retry_after(tmp_path: Path) -> None:
    """Nobody to ask is said at once, first from the tries and then from the probes, and ends when one is back."""
    async with two(tmp_path, Timing(), Fault(kind="refuse")) as (stage, first, second):
        second.faults.arm(Fault(kind="refuse"))
        await second.settled()
        for stream in (True, False):
            answer = await stage.chat(stream=stream)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            error = answer.json()["error"]
            assert error["metadata"]["error_type"] == "provider_unavailable"
            assert {each["cause"] for each in error["metadata"]["attempts"]} == {"connect"}
        loads = [replica.load for replica in stage.gateway.registry.fleet.replicas.values()]
        async with asyncio.timeout(20):
            while any(load.ready for load in loads):
                await asyncio.sleep(0.05)
        answer = await stage.chat()
        assert answer.status_code == 503
        assert {each["filter"] for each in answer.json()["error"]["metadata"]["drops"]} == {"health"}
        first.faults.clear()
        async with asyncio.timeout(20):
            while not any(load.ready for load in loads):
                await asyncio.sleep(0.05)
        assert (await stage.chat()).status_code == 200


async def test_an_unhealthy_backend_gets_no_traffic(tmp_path: Path) -> None:
    """What its own health probe says counts, though it would still answer."""
    async with two(tmp_path, Timing(), Fault(kind="unhealthy")) as (stage, first, second):
        load = stage.gateway.registry.fleet.replicas["first"].load
        async with asyncio.timeout(20):
            while load.ready:
                await asyncio.sleep(0.05)
        answer = await stage.chat()
        assert await attempts(stage, answer) == [("second", "ok", None)]
        assert first.books.totals.requests == 0
        assert second.books.totals.completed == 1


@pytest.mark.parametrize(
    "fault", [Fault(kind="error_status", status=500), Fault(kind="cut_mid_stream", after_chunks=1, mode="end")]
)
async def test_failures_in_a_row_eject_and_traffic_avoids_the_replica(fault: Fault, tmp_path: Path) -> None:
    """Five failures in a row, before or after the first byte, and the replica is left alone."""
    async with two(tmp_path, Timing(itl=0.002), fault) as (stage, first, second):
        for _ in range(5):
            await stage.chat(stream=True)
        assert first.books.totals.requests == 5
        before = second.books.totals.completed
        for _ in range(5):
            answer = await stage.chat(stream=True)
            assert await attempts(stage, answer) == [("second", "ok", None)]
        assert first.books.totals.requests == 5
        assert second.books.totals.completed == before + 5
        page = await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)
        assert 'weir_backend_up{backend="first"}' in page.text


async def test_retries_stay_within_their_budget(tmp_path: Path) -> None:
    """When every backend answers 503, four replicas get hardly more tries than there are requests."""
    number, faults = 60, (Fault(kind="error_status", status=503),)
    configs = [SimConfig(name=f"gpu-{name}", faults=faults) for name in "abcd"]
    async with SimFleet(configs) as fleet:
        backends = [Backend(sim.config.name, sim.url) for sim in fleet]
        async with staged(tmp_path, configuration(backends)) as stage:
            began = time.monotonic()
            answers = await asyncio.gather(*(stage.chat(stream=bool(each % 2)) for each in range(number)))
            windows = 1 + int((time.monotonic() - began) / 10)
            assert {answer.status_code for answer in answers} == {503}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
            tries = sum(sim.books.totals.requests for sim in fleet)
            assert number <= tries <= number + windows * max(number // 10, 10)
            told = sum(len(answer.json()["error"]["metadata"]["attempts"]) for answer in answers)
            assert told == tries


async def test_a_refused_connection_costs_no_budget(tmp_path: Path) -> None:
    """What never reached an engine may be tried elsewhere without limit."""
    async with two(tmp_path, Timing(), Fault(kind="refuse", mode="rst")) as (stage, first, _):
        first.faults.arm(Fault(kind="refuse"))
        await first.settled()
        budget = stage.gateway.desk.upstream.budget
        before = budget.remaining(time.monotonic())
        for _ in range(4):
            assert (await stage.chat()).status_code == 200
        assert budget.remaining(time.monotonic()) >= before


@pytest.mark.parametrize("kind", ["openai", "litellm"])
async def test_a_name_service_that_is_silent_costs_the_connect_limit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the next backend answers, and the breaker is told."""

    async def silent(host: str) -> list[str]:
        await asyncio.sleep(600.0)
        return []

    monkeypatch.setenv("WEIR_TEST_KEY", "sk-0123456789")
    more = f'api_key: "${{WEIR_TEST_KEY}}", timeouts: {{connect: 0.3}}{LITELLM if kind == "litellm" else ""}'
    async with SimFleet([SimConfig(name="second", answer_tokens=TOKENS)]) as fleet:
        backends = [
            Backend("first", "https://api.invalid", kind, "openai/gpt-4o", "first", more),
            Backend("second", fleet["second"].url, provider="second"),
        ]
        async with staged(tmp_path, configuration(backends)) as stage:
            monkeypatch.setattr(stage.gateway._guard, "_lookup", silent)
            stage.gateway.registry.fleet.replicas[
                "first"
            ].load.ready = True  # probes may have found no such name before
            began = time.monotonic()
            answer = await stage.chat(provider={"order": ["first", "second"]})
            assert time.monotonic() - began < 20.0
            assert answer.status_code == 200, answer.text
            assert await attempts(stage, answer) == [
                ("first", "failed", "connect"),
                ("second", "ok", None),
            ]
            assert stage.gateway.registry.fleet.replicas["first"].load.failures == 1
