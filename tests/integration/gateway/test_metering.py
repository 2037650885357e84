"""Who pays for what, seen in the ledger: each way in which an answer can end, against the books of the engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.sim import KINDS, Fault, Kind, SimConfig, Timing
from tests.harness import chat_body
from tests.integration.gateway.ledger import COST_PROMPT, PROMPT, Scene, cost, price, scene_of

PACED = Timing(itl=0.01)
"""A hundred tokens a second: slow enough to leave in the middle."""


async def left(scene: Scene, tokens: int, **more: Any) -> tuple[str, int]:
    """Start a stream, leave after ``tokens`` tokens of text, and return the answer's id and the tokens that came."""
    stream = await scene.stage.openai().chat.completions.create(stream=True, **(chat_body() | more))
    seen, identity = 0, ""
    async for chunk in stream:
        identity = chunk.id
        seen += sum(bool(choice.delta.content) for choice in chunk.choices)
        if seen >= tokens:
            break
    await stream.close()
    return identity, seen


@pytest.mark.parametrize("kind", KINDS)
async def test_a_completed_answer_is_paid_as_the_engine_counts_it(tmp_path: Path, kind: Kind) -> None:
    """JSON and stream, chat and text: the team pays the engine's tokens, the owner's cost stands beside it."""
    async with scene_of(tmp_path, SimConfig(kind, name="a", prompt_cache=False)) as scene:
        client = scene.stage.openai()
        await scene.stage.chat()
        await scene.stage.chat(stream=True)
        await client.completions.create(model="qwen/qwen3-32b", prompt=["one", "two"], max_tokens=9)
        found = await scene.stage.settled(3)
        entries = scene.entries()
        assert len(found) == len(entries) == 3
        for record, entry in zip(reversed(found), entries, strict=True):
            (row,) = record.attempts
            assert (row.status, row.source, row.http_status) == ("ok", "upstream", 200)
            assert (row.usage.prompt, row.usage.completion) == (entry.prompt_tokens, entry.completion_tokens)
            assert (row.charge_nano, row.cost_nano) == (price(row), cost(row))
            assert row.streamed == entry.stream
        await scene.audited()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_who_leaves_pays_what_was_produced(tmp_path: Path, kind: Kind) -> None:
    """In the middle of a stream the engine is stopped, and its tokens up to there are charged: counted, not guessed."""
    config = SimConfig(kind, name="a", timing=PACED, answer_tokens=2000)
    async with scene_of(tmp_path, config) as scene:
        identity, seen = await left(scene, 20)
        (row,) = await scene.attempts(identity)
        (entry,) = scene.entries()
        assert entry.outcome == "cancelled"
        assert entry.completion_tokens < 2000
        assert row.status == "client_cancel"
        if kind == "openai":
            # Its usage comes at the end only and its deltas may hold several tokens: an estimate, and called one.
            assert row.source == "estimated"
            assert row.usage.completion > 0
        else:
            assert row.source == ("counted" if kind == "tgi" else "upstream")
            assert seen <= row.usage.completion <= entry.completion_tokens
            assert entry.completion_tokens - row.usage.completion <= 100
        assert row.charge_nano == price(row) > 0
        assert row.cost_nano == cost(row) > 0
        found = await scene.stage.generation(identity)
        assert (found["cancelled"], found["status"]) == (True, "client_cancel")
        await scene.audited()
        assert (await scene.metric("weir_requests_total"))['status="client_cancel"'] == 1


@pytest.mark.parametrize("kind", ["vllm", "sglang", "tgi"])
async def test_a_caller_who_leaves_pays_for_every_choice(tmp_path: Path, kind: Kind) -> None:
    """Engines that report usage with every chunk report that of its choice alone; all of them are produced."""
    config = SimConfig(kind, name="a", timing=PACED, answer_tokens=2000)
    async with scene_of(tmp_path, config) as scene:
        stream = await scene.stage.openai().completions.create(
            model="qwen/qwen3-32b", prompt=["one", "two", "three more than one"], stream=True
        )
        seen = 0
        async for chunk in stream:
            seen += len(chunk.choices)
            if seen >= 60:
                break
        await stream.close()
        (row,) = await scene.attempts()
        (entry,) = scene.entries()
        assert row.status == "client_cancel"
        assert seen <= row.usage.completion <= entry.completion_tokens
        assert entry.completion_tokens - row.usage.completion <= 300
        if kind != "tgi":
            assert row.usage.prompt == entry.prompt_tokens == 6
        assert row.charge_nano == price(row)
        await scene.audited()


async def test_a_caller_who_leaves_before_the_first_token_pays_nothing(tmp_path: Path) -> None:
    """Nothing was produced that anybody counted; the try is in the ledger all the same."""
    config = SimConfig(name="a", timing=Timing(base_ttft=30.0))
    async with scene_of(tmp_path, config) as scene:
        for number, stream in enumerate((True, False), start=1):
            asking = asyncio.create_task(scene.stage.chat(stream=stream))
            async with asyncio.timeout(10):
                while len(scene.entries()) < number:
                    await asyncio.sleep(0.01)
            asking.cancel()
        found = await scene.stage.settled(2)
        for record in found:
            (row,) = record.attempts
            assert (row.status, row.charge_nano, row.usage.total) == ("client_cancel", 0, 0)
        async with asyncio.timeout(20):
            while any(entry.outcome == "running" for entry in scene.entries()):
                await asyncio.sleep(0.02)
        assert [(entry.outcome, entry.phase) for entry in scene.entries()] == [("cancelled", "prefill")] * 2
        await scene.audited()


async def test_an_answer_that_the_shutdown_cuts_off_costs_the_team_nothing(tmp_path: Path) -> None:
    """The caller waited and is told so: the owner pays what is known to be produced, before the first token nothing."""
    config = SimConfig(name="a", timing=PACED, answer_tokens=2000)
    slow = SimConfig(name="a", timing=Timing(base_ttft=30.0))
    for name, engine, stream in (("stream", config, True), ("json", config, False), ("prefill", slow, True)):
        async with scene_of(tmp_path / name, engine) as scene:
            asking = asyncio.create_task(scene.stage.chat(stream=stream))
            async with asyncio.timeout(10):
                while not scene.entries():
                    await asyncio.sleep(0.01)
            await scene.stage.gateway.drain(1.0)
            assert "shutting down" in (await asking).text
            (row,) = await scene.attempts()
            assert (row.status, row.error, row.charge_nano) == ("upstream_error", "shutdown", 0)
            if name == "stream":
                assert row.usage.completion > 0
                assert row.cost_nano == cost(row) > 0
            else:
                assert (row.usage.total, row.source, row.cost_nano) == (0, "none", 0)
            assert not any("client_cancel" in label for label in await scene.metric("weir_requests_total"))
            await scene.audited()


@pytest.mark.parametrize(
    ("kind", "fault"),
    [*((kind, "cut_mid_stream") for kind in KINDS), ("vllm", "reset_mid_stream"), ("tgi", "error_in_200")],
)
async def test_a_stream_the_engine_breaks_costs_the_team_nothing(tmp_path: Path, kind: Kind, fault: Any) -> None:
    """The tokens are known and the owner's cost with them; the team pays none of it, and the caller is told."""
    config = SimConfig(kind, name="a", timing=PACED, faults=(Fault(kind=fault, after_chunks=12),))
    async with scene_of(tmp_path, config) as scene:
        response = await scene.stage.chat(stream=True)
        assert response.status_code == 200
        assert "[DONE]" not in response.text
        last = msgspec.json.decode(response.text.rstrip().rpartition("data: ")[2])
        assert last["error"]["code"] == 502
        (row,) = await scene.attempts()
        assert (row.status, row.charge_nano) == ("upstream_error", 0)
        if kind == "openai":
            assert row.source == "estimated"  # its usage would have come at the end
        else:
            assert row.usage.completion == scene.entries()[0].completion_tokens == 12
        assert row.cost_nano == cost(row) > 0
        assert row.error in {"cut", "error"}
        found = await scene.stage.generation(response.headers["x-generation-id"])
        assert (found["total_cost"], found["cancelled"]) == (0, False)
        await scene.audited()


def whole(**choice: Any) -> bytes:
    """Return a chat answer of five prompt tokens as an engine's JSON; ``usage`` may be among ``choice``."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8} | choice.pop("usage", {})
    message = {"role": "assistant", "content": choice.pop("content", "three tokens here")}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return msgspec.json.encode(answer | {"choices": [{"index": 0, "message": message, **choice}]})


async def test_an_answer_that_finishes_with_an_error_costs_the_team_nothing(tmp_path: Path) -> None:
    """``error`` and vLLM's ``abort`` as finish reason are failures, though the status was 200."""
    async with scene_of(tmp_path, SimConfig(name="a")) as scene:
        for reason in ("error", "abort"):
            body = whole(finish_reason=reason).decode()
            scene.fleet["a"].faults.arm(Fault(kind="error_status", status=200, count=1, body=body))
            response = await scene.stage.chat()
            assert response.status_code == 502
            (row,) = await scene.attempts(response.headers["x-generation-id"])
            assert (row.status, row.finish_reason, row.charge_nano) == ("failed", reason, 0)
            assert (row.usage.prompt, row.usage.completion) == (5, 3)
            assert row.cost_nano == cost(row) > 0
        await scene.audited()


async def test_a_whole_answer_that_fails_late_is_got_elsewhere(tmp_path: Path) -> None:
    """A JSON caller has seen nothing of it: another replica answers, and only that answer is paid."""
    async with scene_of(tmp_path, SimConfig(name="a"), SimConfig(name="b")) as scene:
        body = whole(finish_reason="error").decode()
        scene.fleet["a"].faults.arm(Fault(kind="error_status", status=200, count=1, body=body))
        for _ in range(20):
            response = await scene.stage.chat()
            assert response.status_code == 200
            rows = await scene.attempts(response.headers["x-generation-id"])
            if len(rows) == 2:
                break
        first, second = rows
        assert (first.backend, first.status, first.charge_nano, first.cost_nano) == ("a", "failed", 0, cost(first))
        assert (first.usage.prompt, first.usage.completion) == (5, 3)
        assert (second.backend, second.status, second.charge_nano) == ("b", "ok", price(second))
        assert response.json()["usage"]["completion_tokens"] == second.usage.completion
        await scene.audited()


async def test_an_empty_answer_without_a_reason_costs_the_team_nothing(tmp_path: Path) -> None:
    """No completion token and no finish reason: nothing was answered. With a reason the prompt is paid."""
    async with scene_of(tmp_path, SimConfig(name="a")) as scene:
        for reason, charged in ((None, 0), ("stop", 5 * PROMPT)):
            body = whole(finish_reason=reason, content="", usage={"completion_tokens": 0}).decode()
            scene.fleet["a"].faults.arm(Fault(kind="error_status", status=200, count=1, body=body))
            response = await scene.stage.chat()
            assert response.status_code == 200
            (row,) = await scene.attempts(response.headers["x-generation-id"])
            assert (row.status, row.charge_nano) == ("ok", charged)
            assert response.json()["usage"]["cost"] == charged / 1e9
            assert row.cost_nano == 5 * COST_PROMPT
        await scene.audited()


async def test_a_failed_try_is_the_owners_and_the_answer_is_paid_once(tmp_path: Path) -> None:
    """One replica fails before it answers, the other answers: two rows, one charge, one request in the rollups."""
    configs = [SimConfig(name=name, faults=(Fault(kind="error_status", count=1),)) for name in ("a", "b")]
    async with scene_of(tmp_path, *configs) as scene:
        scene.fleet["b"].faults.clear()
        for _ in range(20):
            answer = (await scene.stage.chat()).json()
            rows = await scene.attempts(answer["id"])
            if len(rows) == 2:
                break
        first, second = rows
        assert (first.backend, first.status, first.charge_nano, first.usage.total) == ("a", "failed", 0, 0)
        assert (first.http_status, first.error) == (500, "error")
        assert (second.backend, second.status, second.attempt) == ("b", "ok", 2)
        assert second.charge_nano == price(second) == round(answer["usage"]["cost"] * 1e9)
        found = await scene.stage.generation(answer["id"])
        assert [tried["outcome"] for tried in found["provider_responses"]] == ["failed", "ok"]
        assert found["tokens_completion"] == second.usage.completion
        assert ["latency" in tried for tried in found["provider_responses"]] == [
            False,
            True,
        ]  # null is an error in Node
        await scene.audited()
        attempts = await scene.metric("weir_attempts_total")
        assert attempts['outcome="failed"'] == 1
        assert (await scene.metric("weir_requests_total"))['status="ok"'] == len(scene.entries()) - 1


async def test_only_answers_whose_first_token_was_seen_count_towards_its_time(tmp_path: Path) -> None:
    """A whole answer's would be the time of all of it; a lookup still says how long it took."""
    async with scene_of(tmp_path, SimConfig("vllm", name="a", timing=PACED)) as scene:
        whole = (await scene.stage.chat(max_tokens=20)).json()["id"]
        (unseen,) = await scene.attempts(whole)
        stream = (await scene.stage.chat(stream=True, max_tokens=20)).headers["x-generation-id"]
        (seen,) = await scene.attempts(stream)
        assert (unseen.ttft_us, unseen.generation_us) == (0, 0)
        assert 0 < seen.ttft_us < seen.duration_us
        looked_up = await scene.stage.generation(whole)
        assert looked_up["latency"] == looked_up["provider_responses"][0]["latency"] == unseen.duration_us / 1_000
        assert (await scene.stage.generation(stream))["latency"] == seen.ttft_us / 1_000
        await scene.audited()
        counted = await scene.metric("weir_time_to_first_token_seconds_count")
        assert set(counted.values()) == {1.0}


async def test_another_teams_generation_is_as_unknown_as_one_that_never_was(tmp_path: Path) -> None:
    """Status, body and headers are the same; the team's other keys and the management key may look."""
    async with scene_of(tmp_path, SimConfig(name="a")) as scene:
        stage = scene.stage
        await stage.keeper.create_team("rivals", "Rivals")
        rival, mate = await stage.new_key("rivals"), await stage.new_key()
        identity = (await stage.chat()).json()["id"]
        unknown = identity[:-6] + "abcdef"

        async def look(name: str, key: str) -> httpx.Response:
            return await stage.http.get(
                f"{stage.url}/api/v1/generation",
                params={"id": name},
                headers={"authorization": f"Bearer {key}"},
            )

        theirs, nobodys = await look(identity, rival.key), await look(unknown, rival.key)
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.json()["error"] == nobodys.json()["error"]
        assert theirs.headers.keys() == nobodys.headers.keys()
        assert len(theirs.content) == len(nobodys.content)
        for key in (stage.key, mate.key, stage.admin["authorization"].removeprefix("Bearer ")):
            assert (await look(identity, key)).json()["data"]["id"] == identity
        assert (await look("gen-nonsense", stage.key)).status_code == 400
        assert (await look(identity, "x")).status_code == 401


async def test_many_ends_at_once_add_up(tmp_path: Path) -> None:
    """Sixty requests of two teams, some cut, some failed over, some left: the books of all agree to the token."""
    failing = Fault(kind="error_status", count=6), Fault(kind="cut_mid_stream", count=6, after_chunks=1)
    configs = [
        SimConfig(name=name, faults=(fault,), timing=Timing(itl=0.002))
        for name, fault in zip("ab", failing, strict=True)
    ]
    async with scene_of(tmp_path, *configs) as scene:
        stage = scene.stage
        await stage.keeper.create_team("rivals", "Rivals")
        keys = [stage.key, (await stage.new_key("rivals")).key]

        async def one(number: int) -> None:
            headers = {"authorization": f"Bearer {keys[number % 2]}"}
            body = chat_body() | {"stream": number % 6 > 0, "max_tokens": number + 1}
            async with stage.http.stream(
                "POST", f"{stage.url}/v1/chat/completions", json=body, headers=headers
            ) as response:
                async for _ in response.aiter_raw():
                    if number % 7 == 0:
                        return

        await asyncio.gather(*(one(number) for number in range(60)))
        found = await stage.settled(60, 15)
        rows = [row for record in found for row in record.attempts]
        assert len(found) == 60
        assert {row.team for row in rows} == {"default", "rivals"}
        assert {"ok", "continued", "failed"} <= {row.status for row in rows}
        seen = Counter(entry.headers["x-request-id"] for entry in scene.entries())
        for record in found:
            # A try that is called off on its way, because the caller left, may be one that no engine has read.
            off = [row for row in record.attempts if row.error == "aborted" and not row.usage.total]
            tries = seen.pop("gen-" + record.request_id.hex(), 0)
            assert len(record.attempts) - len(off) <= tries <= len(record.attempts)
        assert not seen
        for row in rows:
            assert row.charge_nano == (price(row) if row.status in {"ok", "continued", "client_cancel"} else 0)
        whole_answers = [row for row in rows if row.status == "ok"]
        assert sum(row.usage.completion for row in whole_answers) <= sum(e.completion_tokens for e in scene.entries())
        await scene.audited()
