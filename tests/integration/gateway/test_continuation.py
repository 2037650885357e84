"""A replica breaks a stream that its caller has begun to read: another one goes on, and every token is paid once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sim import Fault, SimConfig, SimFleet, SimServer, Timing
from gateway.types.generation import AttemptRecord
from tests.fakes.backend import (
    DONE,
    SSE_HEAD,
    HandBackend,
    Visit,
    chunk,
    event,
    hand_backend,
    usage_chunk,
    whole,
)
from tests.fakes.backend import (
    Script as Answers,
)
from tests.fakes.pair import CHEAP, DEAR, LIMITS, said
from tests.fakes.raw_client import events, post, raw_client, text_of
from tests.harness import Backend, Stage, chat_body, configuration, staged

TOKENS = 12
KINDS = ["vllm", "sglang"]


def backends(sims: Sequence[SimServer], *, kind: str = "vllm") -> list[Backend]:
    """Return backends of which the first is always tried first, the second next, and so on; each its own provider."""
    prices = [
        'price: {prompt: "0.01", completion: "0.01"}, cost: {prompt: "0.001", completion: "0.004"}',
        'price: {prompt: "0.05", completion: "0.10"}, cost: {prompt: "0.01", completion: "0.04"}',
        'cost: {prompt: "0.05", completion: "0.20"}',
    ]
    return [
        Backend(sim.config.name, sim.url, kind, sim.config.models[0], sim.config.name, LIMITS, price)
        for sim, price in zip(sims, prices[-len(sims) :], strict=True)
    ]


@asynccontextmanager
async def fleet_of(
    home: Path, *faults: Fault | None, kind: Any = "vllm", more: str = "", **config: Any
) -> AsyncIterator[tuple[Stage, list[SimServer]]]:
    """Run a gateway over one simulator per fault, equal but for it."""
    names = ["first", "second", "third"][: len(faults)]
    settings: dict[str, Any] = {"timing": Timing(itl=0.01), "answer_tokens": TOKENS} | config
    async with SimFleet([SimConfig(kind=kind, name=name, **settings) for name in names]) as fleet:
        sims = list(fleet)
        text = configuration(backends(sims, kind=kind), more="routing: {default: cheapest}" + more)
        async with staged(home, text) as stage:
            for sim, fault in zip(sims, faults, strict=True):
                if fault is not None:
                    sim.faults.arm(fault)
            yield stage, sims


async def healthy(sim: SimServer, **more: Any) -> tuple[str, dict[str, Any]]:
    """Return what a simulator without a fault says itself, and its usage."""
    async with httpx.AsyncClient(verify=False) as http:
        body = chat_body(sim.config.models[0]) | more
        answer = (await http.post(f"{sim.url}/v1/chat/completions", json=body)).json()
    return answer["choices"][0]["message"]["content"], answer["usage"]


async def rows_of(stage: Stage) -> tuple[AttemptRecord, ...]:
    """Return the attempts of the newest request."""
    (record,) = await stage.settled()
    return record.attempts


async def audited(stage: Stage) -> None:
    """Check that journal, ledger and rollups agree, and that the metrics of the tokens say the same."""
    report = await stage.keeper.audit()
    assert report.ok, report.mismatches
    rows = [row for record in await stage.keeper.recent(100) for row in record.attempts]
    page = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
    for name in ("prompt", "completion"):
        counted = [float(line.rpartition(" ")[2]) for line in page.splitlines() if f'class="{name}"' in line]
        assert sum(counted) == sum(getattr(row.usage, name) for row in rows) == report.ledger[f"tokens_{name}"]


async def metric(stage: Stage, line: str) -> float:
    """Return one value of the metrics page, 0 when it is not there."""
    page = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
    return next((float(each.rpartition(" ")[2]) for each in page.splitlines() if each.startswith(line)), 0.0)


DEAD = '{"error": {"message": "EngineCore encountered an issue.", "type": "BadRequestError", "code": 400}}'
"""What an older vLLM says in each of its streams when its engine dies."""
BREAKS = {
    "reset": (Fault(kind="reset_mid_stream", after_chunks=4), "cut"),
    "cut": (Fault(kind="cut_mid_stream", after_chunks=4), "cut"),
    "cut cleanly": (Fault(kind="cut_mid_stream", after_chunks=4, mode="end"), "cut"),
    "stall": (Fault(kind="stall", after_chunks=4), "idle"),
    "error event": (Fault(kind="error_in_200", after_chunks=4), "error"),
    "refused late": (Fault(kind="error_in_200", after_chunks=4, body=DEAD), "error"),
    "rubbish": (Fault(kind="bad_json_event", after_chunks=4), "malformed"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BREAKS)
async def test_the_caller_sees_one_unbroken_stream(name: str, kind: str, tmp_path: Path) -> None:
    """Whatever breaks the first: the second goes on; text, usage and money are those of an undisturbed answer."""
    fault, cause = BREAKS[name]
    async with fleet_of(tmp_path, fault, None, kind=kind) as (stage, sims):
        expected, usage = await healthy(sims[1])
        for path in ("/v1", "/api/v1"):
            body = chat_body() | {"stream": True, "stream_options": {"include_usage": True}}
            answer = await stage.http.post(f"{stage.url}{path}/chat/completions", json=body, headers=stage.headers)
            found = events(answer.content)
            assert (text_of(found), found[-1], found.count("[DONE]")) == (expected, "[DONE]", 1)
            chunks = found[:-1]
            finishes = [each["choices"][0]["finish_reason"] for each in chunks if "usage" not in each]
            assert finishes == [None] * (len(finishes) - 1) + ["stop"]
            assert len({(each["id"], each["model"], each.get("provider")) for each in chunks}) == 1
            roles = [each for each in chunks if "usage" not in each and "role" in each["choices"][0]["delta"]]
            assert len(roles) == 1
            (told,) = [each["usage"] for each in chunks if each.get("usage")]
            assert (told["prompt_tokens"], told["completion_tokens"]) == (usage["prompt_tokens"], TOKENS)

            first, second = await rows_of(stage)
            assert [(row.backend, row.status, row.error) for row in (first, second)] == [
                ("first", "continued", cause),
                ("second", "ok", ""),
            ]
            assert (first.usage.prompt, second.usage.prompt) == (usage["prompt_tokens"], 0)
            assert first.usage.completion + second.usage.completion == TOKENS
            assert first.charge_nano == first.usage.prompt * 50 + first.usage.completion * 100
            assert second.charge_nano == second.usage.completion * 300
            assert told["cost"] * 1e9 == pytest.approx(first.charge_nano + second.charge_nano)
            assert second.replayed >= usage["prompt_tokens"] + first.usage.completion
            assert second.cost_nano == second.replayed * 50 + second.usage.completion * 200
            assert told["continuation"] == {"count": 1, "replayed_tokens": second.replayed}

            shown = await stage.generation(answer.headers["x-generation-id"])
            assert (shown["tokens_prompt"], shown["tokens_completion"]) == (usage["prompt_tokens"], TOKENS)
            assert (shown["num_continuations"], shown["tokens_replayed"]) == (1, second.replayed)
            assert [each["outcome"] for each in shown["provider_responses"]] == ["continued", "ok"]
            assert shown["total_cost"] * 1e9 == pytest.approx(first.charge_nano + second.charge_nano)
        await audited(stage)
        assert await metric(stage, 'weir_continuations_total{outcome="continued"}') == 2
        assert await metric(stage, 'weir_replayed_tokens_total{model="qwen/qwen3-32b"}') == 2 * second.replayed


async def test_twice_it_goes_on_and_then_no_more(tmp_path: Path) -> None:
    """Two breaks are carried over; when all replicas break, the stream ends in an error and nobody pays."""
    cut = Fault(kind="cut_mid_stream", after_chunks=3)
    async with fleet_of(tmp_path, cut, cut, None) as (stage, sims):
        expected, _ = await healthy(sims[2])
        assert said(await stage.chat(stream=True), stream=True) == expected
        rows = await rows_of(stage)
        assert [row.status for row in rows] == ["continued", "continued", "ok"]
        assert sum(row.usage.completion for row in rows) == TOKENS
        assert [row.usage.prompt > 0 for row in rows] == [True, False, False]
        sims[2].faults.arm(cut)
        answer = await stage.chat(stream=True)
        found = events(answer.content)
        assert "[DONE]" not in found
        assert found[-1]["error"]["metadata"]["error_type"] == "provider_unavailable"
        assert expected.startswith(text_of(found))
        async with AsyncExitStack():
            generation = await stage.generation(answer.headers["x-generation-id"])
        assert (generation["total_cost"], generation["status"]) == (0, "upstream_error")
        rows = await rows_of(stage)
        assert [row.status for row in rows] == ["failed", "failed", "upstream_error"]
        assert all(row.charge_nano == 0 for row in rows)
        await audited(stage)


async def test_when_no_replica_takes_over_the_first_failure_is_told(tmp_path: Path) -> None:
    """The other one is down: the caller learns of the break, not of the vain attempts after it."""
    async with fleet_of(tmp_path, Fault(kind="stall", after_chunks=4), Fault(kind="error_status", status=500)) as (
        stage,
        _,
    ):
        answer = await stage.chat(stream=True)
        found = events(answer.content)
        assert (found[-1]["error"]["code"], found[-1]["error"]["metadata"]["error_type"]) == (504, "timeout")
        generation = await stage.generation(answer.headers["x-generation-id"])
        assert [each["outcome"] for each in generation["provider_responses"]] == ["upstream_error", "failed"]
        assert generation["total_cost"] == 0
        assert await metric(stage, 'weir_continuations_total{outcome="exhausted"}') == 1
        await audited(stage)


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
NEVER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a JSON schema": ({"response_format": SCHEMA}, {}),
    "JSON": ({"response_format": {"type": "json_object"}}, {}),
    "a guided choice": ({"guided_choice": ["a", "b"]}, {}),
    "two choices": ({"n": 2}, {}),
    "log probabilities": ({"logprobs": True}, {}),
    "a tool that must be called": ({"tools": [TOOL], "tool_choice": "required"}, {}),
    "a tool call that has begun": (
        {"tools": [TOOL], "messages": [{"role": "user", "content": "use the tool " * 9}]},
        {},
    ),
    "open reasoning": ({}, {"reasoning_tokens": 40}),
}


@pytest.mark.parametrize("name", NEVER)
async def test_what_cannot_be_continued_ends_in_an_honest_error(name: str, tmp_path: Path) -> None:
    """A stream that no other replica could go on with exactly ends in a typed error, never in a silent [DONE]."""
    body, config = NEVER[name]
    fault = Fault(kind="cut_mid_stream", after_chunks=2)
    async with fleet_of(tmp_path, fault, None, **config) as (stage, sims):
        answer = await stage.chat(body, stream=True)
        found = events(answer.content)
        assert "[DONE]" not in found
        assert found[-1]["error"]["metadata"]["error_type"] == "provider_unavailable"
        generation = await stage.generation(answer.headers["x-generation-id"])
        assert [each["outcome"] for each in generation["provider_responses"]] == ["upstream_error"]
        assert generation["total_cost"] == 0
        assert sims[1].books.totals.requests == 0
        assert await metric(stage, 'weir_continuations_total{outcome="unsupported"}') == 1


async def test_tools_that_were_not_called_are_no_hindrance(tmp_path: Path) -> None:
    """Offered tools and plain words so far: the words go on."""
    async with fleet_of(tmp_path, Fault(kind="cut_mid_stream", after_chunks=4), None) as (stage, sims):
        expected, _ = await healthy(sims[1], tools=[TOOL])
        assert said(await stage.chat(stream=True, tools=[TOOL]), stream=True) == expected


async def test_an_answer_behind_closed_reasoning_goes_on(tmp_path: Path) -> None:
    """Once the text has begun, the reasoning is done and goes along with the message to go on with."""
    async with fleet_of(tmp_path, Fault(kind="cut_mid_stream", after_chunks=9), None, reasoning_tokens=5) as (
        stage,
        sims,
    ):
        expected, _ = await healthy(sims[1])
        assert said(await stage.chat(stream=True), stream=True) == expected
        rows = await rows_of(stage)
        assert [row.status for row in rows] == ["continued", "ok"]
        assert sum(row.usage.completion for row in rows) == TOKENS + 5


async def test_before_any_output_the_answer_is_begun_anew(tmp_path: Path) -> None:
    """The caller has seen the role and no more: a whole answer of another replica, and one role."""

    async def script(visit: Visit) -> None:
        first = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        await visit.send(SSE_HEAD)
        await visit.events(event(first))
        await visit.events(last=True)

    async with hand_backend(script) as broken, SimFleet([SimConfig(answer_tokens=TOKENS)]) as fleet:
        sim = fleet["sim"]
        text = configuration(
            [
                Backend("first", broken.url, "openai", provider="first", endpoint=CHEAP),
                Backend("second", sim.url, provider="second", endpoint=DEAR),
            ],
            more="routing: {default: cheapest}",
        )
        async with staged(tmp_path, text) as stage:
            expected, usage = await healthy(sim)
            answer = await stage.chat(stream=True)
            assert said(answer, stream=True) == expected
            chunks = events(answer.content)[:-1]
            assert sum("role" in each["choices"][0]["delta"] for each in chunks) == 1
            first, second = await rows_of(stage)
            assert (first.status, first.charge_nano, second.status, second.replayed) == ("failed", 0, "ok", 0)
            assert (second.usage.prompt, second.usage.completion) == (usage["prompt_tokens"], TOKENS)
            assert await metric(stage, 'weir_continuations_total{outcome="restarted"}') == 1
            await audited(stage)


class Script:
    """A hand-written backend that says ``pieces`` and breaks, unless it is to ``end``."""

    def __init__(self, *pieces: str, chat: bool = True, end: str | None = None, tokens: int = 0) -> None:
        self.pieces = pieces
        self.chat = chat
        self.end = end
        self.tokens = tokens

    async def __call__(self, visit: Visit) -> None:
        """Answer one request."""
        await visit.send(SSE_HEAD)
        for piece in self.pieces:
            await visit.events(event(chunk(piece, chat=self.chat)))
        if self.end is None:
            visit.writer.transport.abort()
            return
        await visit.events(
            event(chunk(finish=self.end, chat=self.chat)), event(usage_chunk(self.tokens)), DONE, last=True
        )


@asynccontextmanager
async def scripted(home: Path, *scripts: Answers, kind: str = "vllm") -> AsyncIterator[tuple[Stage, list[HandBackend]]]:
    """Run a gateway over hand-written backends, the first tried first."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(hand_backend(script)) for script in scripts]
        prices = [CHEAP, DEAR]
        listed = [
            Backend(f"b{place}", backend.url, kind, "m", f"p{place}", LIMITS, prices[place])
            for place, backend in enumerate(made)
        ]
        text = configuration(listed, more="routing: {default: cheapest}")
        yield await stack.enter_async_context(staged(home, text)), made


FLAGS: dict[str, dict[str, Any]] = {
    "vllm": {"continue_final_message": True, "add_generation_prompt": False},
    "sglang": {"continue_final_message": True},
    "llamacpp": {"chat_template_kwargs": {"enable_thinking": False}},
}


@pytest.mark.parametrize("kind", FLAGS)
async def test_what_the_engine_is_asked(kind: str, tmp_path: Path) -> None:
    """The text so far as an assistant message to go on with, and no more tokens than are left."""
    async with scripted(
        tmp_path, Script("Over", " the", " weir"), Script(" falls", end="stop", tokens=1), kind=kind
    ) as (stage, (first, second)):
        answer = await stage.chat(stream=True, max_tokens=10, temperature=0.5, seed=7)
        assert text_of(events(answer.content)) == "Over the weir falls"
        before, after = first.visits[0].document, second.visits[0].document
        assert after["messages"] == [*before["messages"], {"role": "assistant", "content": "Over the weir"}]
        assert {name: after[name] for name in FLAGS[kind]} == FLAGS[kind]
        spent = 3 if kind == "llamacpp" else 4  # tokens where each piece is one, else estimated by their bytes
        assert (before["max_tokens"], after["max_tokens"]) == (10, 10 - spent)
        assert {name: after[name] for name in ("model", "stream", "temperature", "seed")} == {
            name: before[name] for name in ("model", "stream", "temperature", "seed")
        }


@pytest.mark.parametrize("kind", ["vllm", "tgi", "llamacpp"])
async def test_a_text_completion_goes_on_in_the_prompt(kind: str, tmp_path: Path) -> None:
    """The prompt and the text so far are the prompt of the replica that goes on, blanks and all."""
    scripts = Script("Once ", "\n", chat=False), Script("\n upon", chat=False, end="stop", tokens=2)
    async with scripted(tmp_path, *scripts, kind=kind) as (stage, (first, second)):
        body = {"model": "qwen/qwen3-32b", "prompt": "Tell: ", "stream": True, "max_tokens": 20}
        answer = await stage.http.post(f"{stage.url}/v1/completions", json=body, headers=stage.headers)
        found = events(answer.content)
        assert found[-1] == "[DONE]"
        assert "".join(each["choices"][0]["text"] for each in found[:-1] if each["choices"]) == "Once \n\n upon"
        assert first.visits[0].document["prompt"] == "Tell: "
        assert second.visits[0].document["prompt"] == "Tell: Once \n"
        assert second.visits[0].document["max_tokens"] < 20


async def test_blanks_cut_off_by_a_chat_template_are_not_doubled(tmp_path: Path) -> None:
    """Where a chat template cuts the last blanks of the message off, the model makes them again; they count once."""
    scripts = Script("First.", "\n\n"), Script("\n", "\nSecond.", end="stop", tokens=4)
    async with scripted(tmp_path, *scripts) as (stage, _):
        answer = await stage.chat(stream=True)
        assert text_of(events(answer.content)) == "First.\n\nSecond."


async def test_an_echo_of_the_text_is_dropped(tmp_path: Path) -> None:
    """An engine that says again what it was given to go on with, in pieces of its own, is heard once."""
    pieces = "Over the weir the water falls ", "and the gauge ", "counts."
    scripts = (
        Script(*pieces),
        Script("Over the weir", " the water falls and the gauge counts. It", " ends.", end="stop"),
    )
    async with scripted(tmp_path, *scripts) as (stage, _):
        answer = await stage.chat(stream=True)
        assert text_of(events(answer.content)) == "Over the weir the water falls and the gauge counts. It ends."


async def test_a_whole_answer_to_go_on_with_becomes_part_of_the_stream(tmp_path: Path) -> None:
    """Some engines answer a request for a stream with JSON; the caller still gets one stream."""

    async def script(visit: Visit) -> None:
        await visit.answer(whole(" falls", 2))

    async with hand_backend(Script("Over", " the weir")) as first, hand_backend(script) as second:
        listed = [
            Backend("first", first.url, "sglang", "m", "first", LIMITS, CHEAP),
            Backend("second", second.url, "sglang", "m", "second", endpoint=DEAR),
        ]
        async with staged(tmp_path, configuration(listed, more="routing: {default: cheapest}")) as stage:
            answer = await stage.chat(stream=True)
            assert said(answer, stream=True) == "Over the weir falls"
            rows = await rows_of(stage)
            assert [(row.status, row.usage.completion) for row in rows][1] == ("ok", 2)
            await audited(stage)


class Slow:
    """Says 30 MB, all of it or only its beginning; ``sent`` counts the events that the gateway took."""

    EVENTS = 2500

    def __init__(self, *, ends: bool) -> None:
        self.ends = ends
        self.sent = 0

    async def __call__(self, visit: Visit) -> None:
        """Answer one request."""
        await visit.send(SSE_HEAD)
        for number in range(self.EVENTS):
            await visit.events(event(chunk(f"{number:06d}" * 2000)))
            self.sent += 1
            if not self.ends and number == 3:
                visit.writer.transport.abort()
                return
        await visit.events(event(chunk(finish="stop")), DONE, last=True)


async def test_a_caller_that_does_not_read_holds_the_next_replica_back_too(tmp_path: Path) -> None:
    """Back-pressure goes on with the answer: what the caller does not take stays in the second backend."""
    first, second = Slow(ends=False), Slow(ends=True)
    async with scripted(tmp_path, first, second, kind="sglang") as (stage, _), raw_client(stage.port) as client:
        await client.send(post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key))
        async with asyncio.timeout(20):
            before = -1
            while before != second.sent or not second.sent:
                before = second.sent
                await asyncio.sleep(0.5)
        assert second.sent < Slow.EVENTS
        found = events((await client.response()).body)
        assert found[-1] == "[DONE]"
        assert text_of(found) == "".join(f"{number:06d}" * 2000 for number in range(Slow.EVENTS))


async def test_when_only_the_finish_is_lost_nobody_is_asked(tmp_path: Path) -> None:
    """Every token that was asked for has come: the finish that the break swallowed is known."""
    async with scripted(tmp_path, Script("a", "b", "c"), Script("d", end="stop"), kind="llamacpp") as (
        stage,
        (_, second),
    ):
        answer = await stage.chat(stream=True, max_tokens=3)
        found = events(answer.content)
        assert text_of(found) == "abc"
        assert found[-1] == "[DONE]"
        assert found[-2]["choices"][0]["finish_reason"] == "length"
        assert not second.visits
        (row,) = await rows_of(stage)
        assert (row.status, row.usage.completion, row.charge_nano > 0) == ("ok", 3, True)


async def test_a_caller_who_leaves_meanwhile_pays_what_came(tmp_path: Path) -> None:
    """While the second is asked the caller goes: the first row is what the caller read, the second costs nothing."""
    async with fleet_of(tmp_path, Fault(kind="cut_mid_stream", after_chunks=4), Fault(kind="stall", mode="silent")) as (
        stage,
        sims,
    ):
        body = chat_body() | {"stream": True}
        async with stage.http.stream(
            "POST", f"{stage.url}/v1/chat/completions", json=body, headers=stage.headers
        ) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    async with asyncio.timeout(10):
                        while not sims[1].books.totals.requests:
                            await asyncio.sleep(0.02)
                    break
        rows = await rows_of(stage)
        assert [row.status for row in rows] == ["client_cancel", "failed"]
        assert rows[0].charge_nano == rows[0].usage.prompt * 50 + rows[0].usage.completion * 100
        assert rows[0].usage.completion > 0
        assert rows[1].charge_nano == 0
        await audited(stage)
