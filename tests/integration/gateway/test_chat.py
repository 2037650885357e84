"""The main path: a real client is routed, answered by a simulated engine, and metered, for every kind of engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.sim import KINDS, BookEntry, Kind, SimConfig, SimFleet
from tests.harness import Stage, chat_body, configuration, over, staged

PROMPT_NANO, COMPLETION_NANO = 100, 300
"""What the harness charges a token of the model ``qwen/qwen3-32b``: 0.10 and 0.30 USD per million."""


def the_entry(fleet: SimFleet) -> BookEntry:
    """Return the one request that any engine of the fleet saw."""
    (entry,) = [entry for sim in fleet for entry in sim.books]
    return entry


def events(text: str) -> list[dict[str, Any]]:
    """Return the documents of a stream that ended as it should."""
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [msgspec.json.decode(line.removeprefix("data: ")) for line in lines[:-1]]


async def assert_metered(stage: Stage, entry: BookEntry, answer: dict[str, Any]) -> None:
    """Check an answer's usage and its ledger row against the books of the engine."""
    usage, found = answer["usage"], await stage.generation(answer["id"])
    assert usage["prompt_tokens"] == found["tokens_prompt"] == entry.prompt_tokens > 0
    assert usage["completion_tokens"] == found["tokens_completion"] == entry.completion_tokens > 0
    assert usage["total_tokens"] == entry.prompt_tokens + entry.completion_tokens
    nano = entry.prompt_tokens * PROMPT_NANO + entry.completion_tokens * COMPLETION_NANO
    assert usage["cost"] == found["total_cost"] == nano / 1e9
    assert (found["status"], found["usage_source"], found["finish_reason"]) == ("ok", "upstream", "stop")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_json_answer_is_metered_as_the_engine_counts_it(tmp_path: Path, kind: Kind) -> None:
    """One engine of two answers; usage, cost, ledger and the engine's own books agree."""
    async with (
        SimFleet([SimConfig(kind, name="gpu-a"), SimConfig(kind, name="gpu-b")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        response = await stage.chat()
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        answer = response.json()
        assert answer["object"] == "chat.completion"
        assert answer["model"] == "qwen/qwen3-32b"
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert len(answer["choices"][0]["message"]["content"]) > 24
        entry = the_entry(fleet)
        assert not entry.stream
        assert entry.outcome == "completed"
        await assert_metered(stage, entry, answer)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_says_what_the_json_answer_says(tmp_path: Path, kind: Kind) -> None:
    """A stream carries the same text in order, one id and model, the finish last, and then the usage asked for."""
    async with (
        SimFleet([SimConfig(kind, name="gpu-a", prompt_cache=False)]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        whole = (await stage.chat()).json()
        fleet["gpu-a"].books.clear()
        response = await stage.chat(stream=True, stream_options={"include_usage": True})
        assert response.headers["content-type"].startswith("text/event-stream")
        *chunks, last = events(response.text)
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert text == whole["choices"][0]["message"]["content"]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]
        assert {chunk["id"] for chunk in [*chunks, last]} == {response.headers["x-generation-id"]}
        assert {chunk["model"] for chunk in [*chunks, last]} == {"qwen/qwen3-32b"}
        assert {chunk["object"] for chunk in [*chunks, last]} == {"chat.completion.chunk"}
        assert all("usage" not in chunk for chunk in chunks)
        assert last["choices"] == []
        assert last["usage"] == whole["usage"]
        entry = the_entry(fleet)
        assert entry.stream
        await assert_metered(stage, entry, last)


async def test_usage_in_a_stream_is_given_only_when_asked_for(tmp_path: Path) -> None:
    """Without ``include_usage`` no chunk of ``/v1`` has usage, though the engine was asked and the ledger knows."""
    async with SimFleet([SimConfig(name="gpu-a")]) as fleet, staged(tmp_path, configuration(over(*fleet))) as stage:
        response = await stage.chat(stream=True)
        chunks = events(response.text)
        assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)
        entry = the_entry(fleet)
        assert isinstance(entry.body, dict)
        assert entry.body["stream_options"]["include_usage"] is True
        found = await stage.generation(response.headers["x-generation-id"])
        assert found["tokens_completion"] == entry.completion_tokens == 24


async def test_cached_and_reasoning_tokens_have_their_own_price(tmp_path: Path) -> None:
    """Parts of the prompt read from a cache cost the cache rate; reasoning is passed on and counted as a part."""
    config = SimConfig(name="gpu-a", reasoning_tokens=7)
    async with SimFleet([config]) as fleet, staged(tmp_path, configuration(over(*fleet))) as stage:
        body = chat_body() | {"messages": [{"role": "user", "content": "water " * 200}]}
        await stage.chat(body)
        answer = (await stage.chat(body)).json()
        entry = fleet["gpu-a"].books[1]
        usage = answer["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == entry.cached_tokens > 100
        assert usage["completion_tokens_details"]["reasoning_tokens"] == entry.reasoning_tokens == 7
        assert answer["choices"][0]["message"]["reasoning_content"]
        prompt = (entry.prompt_tokens - entry.cached_tokens) * PROMPT_NANO + entry.cached_tokens * 20
        completion = entry.completion_tokens * COMPLETION_NANO
        assert usage["cost"] == (prompt + completion) / 1e9
        assert usage["cost_details"] == {
            "upstream_inference_prompt_cost": prompt / 1e9,
            "upstream_inference_completions_cost": completion / 1e9,
        }
        found = await stage.generation(answer["id"])
        assert (found["native_tokens_cached"], found["native_tokens_reasoning"]) == (entry.cached_tokens, 7)
        assert found["total_cost"] == usage["cost"]


async def test_who_asked_is_in_the_ledger_and_never_in_the_way(tmp_path: Path) -> None:
    """App, end user, provider, times and upstream id of an answer can be looked up; hostile attribution is dropped."""
    async with SimFleet([SimConfig(name="gpu-a")]) as fleet, staged(tmp_path, configuration(over(*fleet))) as stage:
        stage.http.headers["http-referer"] = "https://Notes.Example.org/page?user=17"
        answer = (await stage.chat(user="alice")).json()
        found = await stage.generation(answer["id"])
        assert (found["origin"], found["external_user"]) == ("https://notes.example.org", "alice")
        assert found["workspace_id"] == "default"
        assert found["provider_name"] == "own"
        assert found["upstream_id"] == "chatcmpl-" + the_entry(fleet).id
        assert found["streamed"] is False
        assert found["cancelled"] is False
        assert found["latency"] > 0
        stage.http.headers["http-referer"] = "javascript:alert(1)"
        other = (await stage.chat()).json()
        assert (await stage.generation(other["id"]))["origin"] == ""


async def test_an_alias_answers_under_the_model_it_stands_for(tmp_path: Path) -> None:
    """The caller names an alias; answer and ledger name the model, the engine gets its own name for it."""
    alias = "aliases: {house-default: {qwen/qwen3-32b: 1}}"
    async with (
        SimFleet([SimConfig(name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet), more=alias)) as stage,
    ):
        listed = (await stage.http.get(f"{stage.url}/v1/models", headers=stage.headers)).json()["data"]
        assert [each["id"] for each in listed] == ["qwen/qwen3-32b", "house-default"]
        narrow = await stage.new_key(models=["house-default"])
        bearer = {"authorization": f"Bearer {narrow.key}"}
        listed = (await stage.http.get(f"{stage.url}/v1/models", headers=bearer)).json()["data"]
        assert [each["id"] for each in listed] == ["house-default"]
        answer = (await stage.chat(model="house-default")).json()
        assert answer["model"] == "qwen/qwen3-32b"
        assert the_entry(fleet).model == "Qwen/Qwen3-32B"
        (record,) = await stage.settled()
        assert (record.attempts[0].model, record.attempts[0].requested_model) == ("qwen/qwen3-32b", "house-default")


async def test_a_team_added_to_the_file_is_made(tmp_path: Path) -> None:
    """The file is read again when it changes, teams included."""
    async with SimFleet([SimConfig(name="gpu-a")]) as fleet:
        config = configuration(over(*fleet))
        async with staged(tmp_path, config) as stage:
            (tmp_path / "weir.yaml").write_text(config + "teams: [{slug: science, name: Science}]\n")
            stage.gateway.reload()
            async with asyncio.timeout(10):
                while "science" not in [team.slug for team in await stage.keeper.teams()]:
                    await asyncio.sleep(0.02)
