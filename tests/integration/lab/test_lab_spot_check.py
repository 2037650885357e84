"""The lab against life: the same requests through a real gateway over real sockets, and through the lab.

Once over replicas that run the step model in real time, where both must nearly agree, and once over two real llama.cpp
servers, whose figures are measured first. Machines under test are shared, so the tolerances are wide; what is compared
are medians over all requests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import httpx
import pytest

from gateway.app import load_policies
from gateway.lab.setting import Setting
from gateway.lab.trace import Arrival, Trace
from gateway.lab.world import Replay, replay
from gateway.sim import SimConfig, SimFleet
from gateway.stepmodel import PROFILES, Profile
from tests.engine.llama_server import LlamaServer
from tests.harness import NO_TLS, Backend, configuration, over, staged

WORDS = ["water", "level", "gauge", "weir", "mill", "gate", "flood", "river", "stone", "bridge"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One streamed answer as its caller saw it: seconds from sending, and the tokens of its usage."""

    at: float
    ttft: float
    lasted: float
    prompt: int
    completion: int


async def ask(
    http: httpx.AsyncClient, url: str, headers: dict[str, str], body: dict[str, object], since: float
) -> Seen:
    """Stream one chat answer."""
    sent = time.monotonic()
    first, usage = 0.0, {"prompt_tokens": 0, "completion_tokens": 0}
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", f"{url}/v1/chat/completions", json=asked, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if not first and any(choice["delta"].get("content") for choice in event["choices"]):
                first = time.monotonic()
            usage = event.get("usage") or usage
    ended = time.monotonic()
    return Seen(sent - since, first - sent, ended - sent, usage["prompt_tokens"], usage["completion_tokens"])


async def sent(url: str, headers: dict[str, str], bodies: Sequence[dict[str, object]], gap: float) -> list[Seen]:
    """Send ``bodies`` ``gap`` seconds apart, whatever comes back when."""
    async with httpx.AsyncClient(verify=NO_TLS, timeout=60.0) as http:
        since = time.monotonic()
        tasks = []
        for number, body in enumerate(bodies):
            await asyncio.sleep(max(0.0, since + number * gap - time.monotonic()))
            tasks.append(asyncio.create_task(ask(http, url, headers, body, since)))
        return list(await asyncio.gather(*tasks))


async def in_turn(url: str, headers: dict[str, str], bodies: Sequence[dict[str, object]], callers: int) -> list[Seen]:
    """Send ``bodies`` by as many callers, each of whom waits for its answer before it sends the next."""
    async with httpx.AsyncClient(verify=NO_TLS, timeout=60.0) as http:
        since = time.monotonic()

        async def call(number: int) -> list[Seen]:
            return [await ask(http, url, headers, body, since) for body in bodies[number::callers]]

        found = await asyncio.gather(*map(call, range(callers)))
    return sorted((one for each in found for one in each), key=lambda one: one.at)


def chat(model: str, words: int, tokens: int, number: int) -> dict[str, object]:
    """Return a request of about ``words`` words that begins like no other."""
    text = f"number {number} " + " ".join(WORDS[(number + place) % len(WORDS)] for place in range(words))
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0}


def in_the_lab(seen: Sequence[Seen], profile: Profile) -> Replay:
    """Replay what was seen."""
    arrivals = tuple(Arrival(one.at, one.prompt, one.completion) for one in seen)
    setting = Setting(profile, replicas=2)
    return replay(Trace("seen", 16, arrivals), setting, lambda: load_policies()["balanced"], seed=1)


def medians(result: Replay) -> tuple[float, float]:
    """Return the medians of time to first token and of time to the end."""
    ended = [job.ended_at - job.at for job in result.jobs if job.ended_at is not None]
    return median(job.ttft for job in result.jobs if job.ttft is not None), median(ended)


async def test_the_lab_agrees_with_the_gateway_over_the_step_model_in_real_time(tmp_path: Path) -> None:
    """Same engine, same gateway code, other clock: medians differ by the cost of sockets and processes only."""
    fleet = [SimConfig(name=name, profile="fast", prompt_cache=False, seed=number) for number, name in enumerate("ab")]
    bodies = [chat("qwen/qwen3-32b", 40 + 90 * (number % 5), 20 + 10 * (number % 4), number) for number in range(60)]
    bodies = [body | {"ignore_eos": True} for body in bodies]
    for left in (2, 1, 0):
        async with SimFleet(fleet) as sims, staged(tmp_path / str(left), configuration(over(*sims))) as stage:
            seen = await sent(stage.url, stage.headers, bodies, 0.06)
        ttft, lasted = medians(in_the_lab(seen, PROFILES["fast"]))
        found = median(one.ttft for one in seen), median(one.lasted for one in seen)
        agree = found[0] == pytest.approx(ttft, rel=0.5, abs=0.05) and found[1] == pytest.approx(lasted, rel=0.35)
        # What else the machine does meanwhile slows the one in real time only, which is no disagreement.
        assert agree or left, (found, ttft, lasted)
        if agree:
            break


@pytest.fixture
def servers(slow_server: LlamaServer) -> Iterator[tuple[LlamaServer, LlamaServer]]:
    """Two real engines of one model."""
    with LlamaServer(slow_server.model, n_parallel=2, n_ctx_slot=2048, n_batch=32) as second:
        yield slow_server, second


async def measured(servers: Sequence[LlamaServer]) -> Profile:
    """Return a profile with the figures of ``servers``, measured one after the other."""

    async def asked(words: int, tokens: int, number: int) -> Seen:
        body = chat("tiny-qwen3", words, tokens, number)
        found = [(await sent(server.url, {}, [body], 0.0))[0] for server in servers]
        return max(found, key=lambda seen: seen.lasted)

    await asked(5, 4, 9_000)
    short, long = await asked(10, 40, 9_001), await asked(45, 4, 9_002)
    step = (short.lasted - short.ttft) / (short.completion - 1)
    rate = (long.prompt - short.prompt) / max(long.ttft - short.ttft, 1e-3)
    return replace(
        PROFILES["fast"],
        step_s=step,
        sequence_s=step * 0.5,
        context_s=0.0,
        attention_s=0.0,
        prefill_tokens_per_s=rate,
        chunk_tokens=32,
        max_running=2,
        kv_tokens=4_096,
        overhead_s=0.005,
    )


def mean(one: Profile, other: Profile) -> Profile:
    """Return a profile between two: the machine may have been busy with other things at one of them."""
    rate = (one.prefill_tokens_per_s * other.prefill_tokens_per_s) ** 0.5
    step = (one.step_s * other.step_s) ** 0.5
    return replace(one, prefill_tokens_per_s=rate, step_s=step, sequence_s=step * 0.5)


@pytest.mark.real_engine
async def test_the_lab_agrees_with_the_gateway_over_real_engines(
    servers: tuple[LlamaServer, LlamaServer], tmp_path: Path
) -> None:
    """Calibrated with a few requests, the lab is right about a real fleet within a factor of three."""
    backends = [Backend(name, server.url, "llamacpp", "tiny-qwen3") for name, server in zip("ab", servers, strict=True)]
    bodies = [chat("qwen/qwen3-32b", 10 + 15 * (number % 3), 40, number) for number in range(14)]
    for left in (2, 1, 0):
        before = await measured(servers)
        async with staged(tmp_path / str(left), configuration(backends)) as stage:
            seen = await in_turn(stage.url, stage.headers, bodies, 2)
        profile = mean(before, await measured(servers))
        result = in_the_lab(seen, profile)
        ttft, lasted = medians(result)
        found = median(one.lasted for one in seen)
        agree = lasted / 3 < found < lasted * 3 and median(one.ttft for one in seen) < ttft * 3 + 0.25
        # What else the machine does while one of the two is measured, and not the other, is no disagreement.
        assert agree or left, (profile, found, lasted)
        if agree:
            break
    shares = {job.candidate.replica.name for job in result.jobs if job.candidate is not None}
    assert shares == {"gpu-0", "gpu-1"}
