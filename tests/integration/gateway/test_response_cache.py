"""The response cache that callers ask for: the very same request, the same answer, free and marked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.types.keys import KeyPatch
from tests.fakes.paths import ASKED, CHAT, Scene, scene
from tests.harness import chat_body

CACHE = {"x-openrouter-cache": "true"}
FREE = {"prompt_tokens": 0, "total_tokens": 0, "cost": 0}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway for all tests here; each asks something of its own."""
    async with scene(tmp_path_factory.mktemp("cache"), reasoning_tokens=3) as found:
        yield found


def status(response: httpx.Response) -> str:
    """Return what a response says of the cache."""
    return str(response.headers.get("x-openrouter-cache-status", ""))


def said(response: httpx.Response) -> str:
    """Return a response without what belongs to one generation."""
    lines = [line for line in response.text.split("\n") if '"usage":{' not in line]
    text = "\n".join(lines) if len(lines) > 1 else response.text.partition('"usage":')[0]
    text = re.sub(r'"created(_at)?":[0-9]+', "", text)
    return text.replace(response.headers["x-generation-id"], "").replace(
        response.headers["x-generation-id"].removeprefix("gen-"), ""
    )


async def test_every_path_answers_again_for_nothing(shared: Scene) -> None:
    """The same text under an id of its own, usage and cost zero, the source named; the engine is asked once."""
    before, rows = shared.asked, len(await shared.stage.keeper.recent(99))
    for number, (path, more) in enumerate(ASKED):
        first, again = [await shared.ask(CACHE, path, user="every", **more) for _ in range(2)]
        assert first.status_code == 200, (path, first.text)
        assert (status(first), status(again)) == ("MISS", "HIT"), (path, again.text)
        assert again.headers["x-openrouter-cache-source-id"] == first.headers["x-generation-id"]
        assert again.headers["x-generation-id"] != first.headers["x-generation-id"]
        assert again.headers["x-openrouter-cache-ttl"] == "300"
        assert int(again.headers["x-openrouter-cache-age"]) < 60
        assert again.headers["content-type"] == first.headers["content-type"]
        assert shared.asked == before + number + 1
        if "responses" not in path and "messages" not in path:
            assert said(again) == said(first)
        if not more.get("stream") and "chat" in path:
            assert FREE.items() <= again.json()["usage"].items()
    wanted = rows + len(ASKED)
    assert len(await shared.stage.settled(wanted)) == len(await shared.stage.keeper.recent(99)) == wanted


@pytest.mark.parametrize("tokens", [20, 256, 600])
async def test_a_stream_says_the_same_again(shared: Scene, tokens: int) -> None:
    """Every event but the usage is byte for byte what it was, apart from id and time."""
    asked: dict[str, Any] = {"stream": True, "user": "stream", "max_tokens": tokens, "ignore_eos": True}
    first, again = [await shared.ask(CACHE, "/api/v1/chat/completions", **asked) for _ in range(2)]
    texts = [each.text.replace(each.headers["x-generation-id"], "").split("\n\n") for each in (first, again)]
    lines = [[without_time(line) for line in text if '"usage"' not in line] for text in texts]
    assert len(lines[0]) > 5
    assert lines[0] == lines[1]
    assert '"cost":0,' in again.text
    assert again.text.split("\n\n")[-3].count('"finish_reason":"length"') == 1


def without_time(line: str) -> str:
    """Return an event without the second it was made in."""
    before, found, after = line.partition('"created":')
    return before + after.partition(",")[2] if found else line


async def test_only_the_very_same_request_hits(shared: Scene) -> None:
    """Another body, order of members, path, key, team or shaping header is another request."""
    asked, before = chat_body() | {"user": "only"}, shared.asked
    await shared.ask(CACHE, **asked)
    others = [
        await shared.ask(CACHE, **asked | {"seed": 1}),
        await shared.stage.http.post(
            shared.stage.url + CHAT, json=dict(reversed(asked.items())), headers=shared.stage.headers | CACHE
        ),
        await shared.ask(CACHE, "/api/v1/chat/completions", **asked),
        await shared.ask(CACHE | {"x-weir-priority": "batch"}, **asked),
        *[await shared.ask(CACHE, key=key, **asked) for key in (await shared.keys("other"))[1:]],
    ]
    assert [status(each) for each in others] == ["MISS"] * len(others)
    plain, off = await shared.ask({}, **asked), await shared.ask({"x-openrouter-cache": "false"}, **asked)
    assert status(plain) == status(off) == ""
    private = await shared.ask(CACHE, **asked, provider={"zdr": True})
    assert status(private) == ""
    assert shared.asked == before + len(others) + 4


async def test_a_key_gets_no_answer_of_a_model_that_it_may_no_longer_use(shared: Scene) -> None:
    """The cache is no way round what the key was restricted to since."""
    key = await shared.stage.new_key()
    for wanted in ("MISS", "HIT"):
        assert status(await shared.ask(CACHE, key=key.key, user="restricted")) == wanted
    await shared.stage.keeper.update_key(key.record.key_id, KeyPatch(models=("another/model",)))
    async with asyncio.timeout(5):
        while (answer := await shared.ask({}, key=key.key)).status_code != 403:
            await asyncio.sleep(0.05)
    answer = await shared.ask(CACHE, key=key.key, user="restricted")
    assert (answer.status_code, status(answer)) == (403, "")


async def test_it_can_be_cleared_and_it_ends(shared: Scene) -> None:
    """Clear makes it anew and keeps that; a lifetime of a second is over after it."""
    clear = CACHE | {"x-openrouter-cache-clear": "true"}
    first, fresh, hit = [await shared.ask(headers, user="clear") for headers in (CACHE, clear, CACHE)]
    assert [status(each) for each in (first, fresh, hit)] == ["MISS", "MISS", "HIT"]
    assert hit.headers["x-openrouter-cache-source-id"] == fresh.headers["x-generation-id"]
    brief = await shared.ask(clear | {"x-openrouter-cache-ttl": "1"}, user="clear")
    assert brief.headers["x-openrouter-cache-ttl"] == "1"
    await asyncio.sleep(1.05)
    assert status(await shared.ask(CACHE, user="clear")) == "MISS"


async def test_a_hit_can_be_looked_up(shared: Scene) -> None:
    """Its generation has no tokens and no cost and names its source; another team sees none."""
    stage = shared.stage
    first, hit = [await shared.ask(CACHE, "/api/v1/chat/completions", user="look") for _ in range(2)]
    found = await stage.generation(hit.headers["x-generation-id"])
    assert found["response_cache_source_id"] == first.headers["x-generation-id"]
    assert (found["total_cost"], found["tokens_prompt"], found["tokens_completion"]) == (0, 0, 0)
    source = await stage.generation(first.headers["x-generation-id"])
    assert found.keys() - {"response_cache_source_id"} == source.keys() - {"response_cache_source_id"}
    assert source["tokens_completion"] > 0
    foreign = {"authorization": f"Bearer {(await shared.keys('foreign'))[2]}"}
    where, params = f"{stage.url}/api/v1/generation", {"id": hit.headers["x-generation-id"]}
    assert (await stage.http.get(where, params=params, headers=foreign)).status_code == 404


async def test_hits_are_requests_without_a_price(shared: Scene) -> None:
    """Activity and analytics count them and say how many; tokens, usage and the ledger know nothing of them."""
    stage = shared.stage
    _, _, key = await shared.keys("counted")
    asked = [await shared.ask(CACHE, key=key, user="counted") for _ in range(3)]
    assert [status(each) for each in asked] == ["MISS", "HIT", "HIT"]
    spent = asked[0].json()["usage"]

    async def day() -> dict[str, Any]:
        own = {"authorization": f"Bearer {key}"}
        rows = (await stage.http.get(f"{stage.url}/api/v1/activity", headers=own)).json()["data"]
        return dict(*rows) if rows else {"requests": 0}

    for _ in range(200):  # hits are handed over twice a second, and records shipped
        found = await day()
        if found["requests"] == 3:
            break
        await asyncio.sleep(0.05)
    assert (found["requests"], found["response_cached_requests"]) == (3, 2)
    assert (found["prompt_tokens"], found["usage"]) == (spent["prompt_tokens"], spent["cost"])
    metrics = ["request_count", "response_cached_count", "response_cached_rate", "tokens_prompt"]
    filters = [{"field": "workspace", "operator": "eq", "value": "counted"}]
    wanted = {"metrics": metrics, "filters": filters, "dimensions": ["model", "provider"], "granularity": "day"}
    url = f"{stage.url}/api/v1/analytics/query"
    [row] = (await stage.http.post(url, json=wanted, headers=stage.admin)).json()["data"]["data"]
    assert [row[name] for name in metrics] == [3, 2, pytest.approx(2 / 3, abs=1e-6), spent["prompt_tokens"]]
    assert (await stage.keeper.audit()).ok


@pytest.mark.parametrize(
    "headers",
    [
        {"x-openrouter-cache": "maybe"},
        CACHE | {"x-openrouter-cache-ttl": "0"},
        CACHE | {"x-openrouter-cache-ttl": "86401"},
        CACHE | {"x-openrouter-cache-ttl": "1.5"},
        CACHE | {"x-openrouter-cache-clear": "perhaps"},
    ],
)
async def test_a_header_that_cannot_be_understood_is_refused(shared: Scene, headers: dict[str, str]) -> None:
    """400 that names the header."""
    before = shared.asked
    refused = await shared.ask(headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] in headers
    assert shared.asked == before


async def test_a_preset_may_ask_for_it(shared: Scene) -> None:
    """For every dialect, with its own lifetime; the caller's header goes first."""
    where, headers = f"{shared.stage.url}/api/v1/presets/cheap/chat/completions", shared.stage.headers
    said = chat_body() | {"cache_enabled": True, "cache_ttl_seconds": 60}
    made = await shared.stage.http.post(where, json=said, headers=headers)
    assert made.status_code == 200, made.text
    async with asyncio.timeout(10):
        while not shared.stage.gateway.defaults.active:
            await asyncio.sleep(0.02)
    for path in (CHAT, "/v1/messages", "/v1/responses"):
        more = {"input": "Hi", "messages": None} if "responses" in path else {"max_tokens": 9}
        first, again = [await shared.ask({}, path, model="@preset/cheap", **more) for _ in range(2)]
        assert (status(first), status(again)) == ("MISS", "HIT"), (path, first.text)
        assert again.headers["x-openrouter-cache-ttl"] == "60"
        plain = await shared.ask({"x-openrouter-cache": "false"}, path, model="@preset/cheap", **more)
        assert status(plain) == ""


async def test_a_cached_answer_may_be_repeated_by_its_idempotency_key(shared: Scene) -> None:
    """Both headers at once: the hit is recorded like any other answer, and given again byte for byte."""
    await shared.ask(CACHE, user="both")
    both = CACHE | {"idempotency-key": "both"}
    hit, again = [await shared.ask(both, CHAT, user="both") for _ in range(2)]
    assert status(hit) == "HIT"
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.content, status(again)) == (hit.content, "HIT")
