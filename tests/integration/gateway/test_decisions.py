"""Kept decisions: what was decided is stored with all it was decided from, and can be decided again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.app import load_policies
from gateway.routing.decisions.record import FIND, RECENT, Decision, unpacked
from gateway.routing.decisions.replay import Replayed, replay
from gateway.sim import Fault, SimConfig, SimFleet
from gateway.types import ids
from tests.fakes.pair import DEAR, pair
from tests.harness import ADMIN_KEY, SECRET, Backend, Stage, chat_body, configuration, staged

POLICIES = load_policies()
SECRET_WORDS = "the prompt that nobody else may read"
EVERY = "routing: {default: cheapest, decisions: {share: 1, per_second: 1000}}"


async def kept(stage: Stage, identity: str) -> Decision | None:
    """Return the decision about a request, handed over to the keeper now."""
    await stage.gateway.desk.recorder.flush()
    found = await stage.keeper.ask(FIND, (ids.parse(identity),))
    assert found is None or isinstance(found, Decision)
    return found


async def replayed(stage: Stage, identity: str) -> Replayed:
    """Return what deciding again brings."""
    decision = await kept(stage, identity)
    assert decision is not None
    return replay(unpacked(decision.content), POLICIES)


async def weir(home: Path, *arguments: str) -> tuple[int, str]:
    """Run a command beside the gateway of ``home``; return its exit status and what it said."""
    environment = os.environ | {"WEIR_HOME": str(home), "WEIR_SECRET": SECRET, "WEIR_ADMIN_KEY": ADMIN_KEY}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@asynccontextmanager
async def four(home: Path, routing: str) -> AsyncIterator[Stage]:
    """Run a gateway over three own replicas and an external API."""
    names = ("a", "b", "c", "api")
    async with SimFleet([SimConfig(name=name, answer_tokens=6) for name in names]) as fleet:
        backends = [Backend(name, fleet.urls[name]) for name in names[:3]]
        backends.append(Backend("api", fleet.urls["api"], "openai", provider="out", endpoint=DEAR))
        aliases = "aliases: {house: {qwen/qwen3-32b: 1}}\n"
        async with staged(home, configuration(backends, more=aliases + routing)) as stage:
            yield stage


async def test_every_preset_decides_again_as_it_did(tmp_path: Path) -> None:
    """From the record alone the same candidate is picked, with the same scores, whatever the preset looks at."""
    bodies: list[dict[str, Any]] = [
        {},
        {"model": "house", "session_id": "one"},
        {"session_id": "one", "max_tokens": 3, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"provider": {"sort": "latency", "ignore": ["a"]}},
        {"messages": [{"role": "user", "content": SECRET_WORDS * 60}]},
        {"messages": [{"role": "user", "content": SECRET_WORDS * 60 + "?"}]},
    ]
    async with four(tmp_path, EVERY) as stage:
        for preset in sorted(POLICIES):
            headers = stage.headers | {"x-weir-policy": preset}
            for body in bodies:
                request = chat_body() | body
                answer = await stage.http.post(f"{stage.url}/v1/chat/completions", json=request, headers=headers)
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-weir-route"].startswith(f"{preset}; ")
                again = await replayed(stage, answer.headers["x-generation-id"])
                assert (again.whole, again.same, again.differences) == (True, True, []), (preset, body)


async def test_the_command_replays_and_lists(tmp_path: Path) -> None:
    """``weir route replay`` ends with 0 for the same pick and 1 for what was not kept; ``decisions`` lists all."""
    async with four(tmp_path, EVERY) as stage:
        answer = await stage.chat()
        identity = answer.headers["x-generation-id"]
        await kept(stage, identity)
        status, out = await weir(tmp_path, "route", "replay", identity, "--json")
        assert status == 0, out
        document = json.loads(out)
        assert document["replay"]["same"] is True
        assert document["replay"]["pick"] == document["pick"] == document["served"]
        assert document["real"]["tokens_completion"] == 6
        status, out = await weir(tmp_path, "route", "decisions", "--json")
        assert [each["id"] for each in json.loads(out)] == [identity]
        status, out = await weir(tmp_path, "route", "replay", identity[:-1] + ("0" if identity[-1] != "0" else "1"))
        assert status == 1
        assert "was kept" in out


async def test_a_record_keeps_no_words_and_no_secrets(tmp_path: Path) -> None:
    """Prompts, names of conversations, addresses of backends and their keys are in no record."""
    async with four(tmp_path, EVERY) as stage:
        answer = await stage.chat(messages=[{"role": "user", "content": SECRET_WORDS * 20}], session_id="my-session")
        decision = await kept(stage, answer.headers["x-generation-id"])
        assert decision is not None
        text = msgspec.json.encode(unpacked(decision.content)).decode()
        assert "qwen/qwen3-32b" in text
        for hidden in (SECRET_WORDS[:20], "my-session", "127.0.0.1"):
            assert hidden not in text


async def test_what_failed_over_is_kept_though_nothing_is_drawn(tmp_path: Path) -> None:
    """A request that failed over is on record with its tries; others are not; the header names who answered."""
    text = {}
    async with SimFleet([SimConfig(name=name, answer_tokens=5) for name in ("first", "second")]) as fleet:
        sampled = "routing: {default: cheapest, decisions: {share: 0.000000001}}"
        config = pair(*fleet.urls.values()).replace("routing: {default: cheapest}", sampled)
        async with staged(tmp_path, config) as stage:
            calm = await stage.chat()
            fleet["first"].faults.arm(Fault(kind="reset"))
            for stream in (True, False):
                answer = await stage.chat(stream=stream)
                assert answer.status_code == 200
                assert "pick=second/second; " in answer.headers["x-weir-route"]
                again = await replayed(stage, answer.headers["x-generation-id"])
                assert (again.pick, again.same, again.whole) == ("first/first", True, False)
                text[stream] = again
            assert await kept(stage, calm.headers["x-generation-id"]) is None
            newest = await stage.keeper.ask(RECENT, (10, True))
            assert [(each.pick, each.served, each.tries) for each in newest] == [
                ("first/first", "second/second", 1)
            ] * 2


async def test_predicted_stands_beside_real(tmp_path: Path) -> None:
    """A generation shows what was expected and what came; what it cost the owner is for the owner's eyes."""
    async with SimFleet([SimConfig(name="api", answer_tokens=7)]) as fleet:
        backend = Backend("api", fleet.urls["api"], "openai", provider="out", endpoint=DEAR)
        async with staged(tmp_path, configuration([backend], more=EVERY)) as stage:
            answer = await stage.chat(max_tokens=9)
            identity = answer.headers["x-generation-id"]
            await kept(stage, identity)
            seen = (await stage.generation(identity))["decision"]
            assert (seen["policy"], seen["pick"], seen["served"]) == ("cheapest", "out/api", "out/api")
            assert seen["predicted"]["tokens_completion"] == 9
            assert seen["real"]["tokens_completion"] == 7
            assert seen["real"]["charge_usd"] == f"{answer.json()['usage']['cost']:.9f}".rstrip("0") or "0"
            assert "cost_usd" not in seen["real"]
            whole = await stage.http.get(f"{stage.url}/api/v1/generation", params={"id": identity}, headers=stage.admin)
            owner = whole.json()["data"]["decision"]
            assert float(owner["predicted"]["cost_usd"]) > 0
            assert float(owner["real"]["cost_usd"]) > 0


async def test_another_rule_shows_as_a_difference(tmp_path: Path) -> None:
    """A record that now comes out otherwise says what differs; the command ends with 1, and with 0 when all is same."""
    async with four(tmp_path, EVERY) as stage:
        answer = await stage.chat()
        decision = await kept(stage, answer.headers["x-generation-id"])
        assert decision is not None
        details = unpacked(decision.content)
        other = replay(details, {**POLICIES, "cheapest": POLICIES["openrouter"]})
        assert other.differences
        with pytest.raises(ValueError, match="does not exist any more"):
            replay(details, {})
        missing = msgspec.structs.replace(details.image, nodes=[])
        with pytest.raises(ValueError, match="kept other books"):
            replay(msgspec.structs.replace(details, image=missing), POLICIES)
