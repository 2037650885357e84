"""Prompts and answers that a team wants stored: in every dialect, sealed, for its team alone, deleted on request."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openrouter.components import GenerationContentResponse

from gateway.sim import SimConfig, SimFleet
from gateway.types.content import CHOOSE, STORE, ContentChoice
from gateway.types.errors import Unavailable
from tests.fakes.backend import SSE_HEAD, Visit, chunk, event, hand_backend
from tests.fakes.paths import ASKED, MODELS
from tests.harness import Backend, Stage, chat_body, configuration, over, staged

WORDS = "the words of a prompt that nobody else may read"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A gateway over one simulated engine that thinks before it answers."""
    home = tmp_path_factory.mktemp("content")
    async with (
        SimFleet([SimConfig("vllm", name="only", reasoning_tokens=3)]) as fleet,
        staged(home, configuration(over(*fleet), models=MODELS)) as running,
    ):
        yield running


class Team:
    """A team with a key, of a gateway that all tests share."""

    def __init__(self, stage: Stage, slug: str, key: str, key_id: str) -> None:
        self.stage = stage
        self.slug = slug
        self.key_id = key_id
        self.headers = {"authorization": f"Bearer {key}"}

    @classmethod
    async def made(cls, stage: Stage, slug: str, *, store: bool | None = True) -> Team:
        """Return a new team of which ``store`` was said."""
        await stage.keeper.create_team(slug, slug)
        issued = await stage.new_key(slug)
        team = cls(stage, slug, issued.key, issued.record.key_id)
        if store is not None:
            await team.choose(store=store)
        return team

    async def choose(self, **said: Any) -> httpx.Response:
        """Choose through the management API; this process goes by it from now on."""
        where, body = f"{self.stage.url}/api/v1/content/choices", {"team": self.slug} | said
        response = await self.stage.http.put(where, json=body, headers=self.stage.admin)
        await self.stage.gateway.inference.repetitions.contents.learn()
        return response

    async def ask(self, path: str = "/v1/chat/completions", **more: Any) -> str:
        """Ask a question and return the id of the answer, once what is to be stored is with the keeper."""
        body = chat_body() | {"messages": [{"role": "user", "content": WORDS}]} | more
        body = {name: value for name, value in body.items() if value is not None}
        response = await self.stage.http.post(self.stage.url + path, json=body, headers=self.headers)
        assert response.status_code == 200, response.text
        await self.stage.gateway.inference.repetitions.clerk.flush()
        return response.headers["x-generation-id"]

    async def content(self, identity: str, *, delete: bool = False, admin: bool = False) -> httpx.Response:
        """Ask for the content of a generation, or delete it."""
        where, headers = f"{self.stage.url}/api/v1/generation/content", self.headers
        method = "DELETE" if delete else "GET"
        headers = self.stage.admin if admin else headers
        return await self.stage.http.request(method, where, params={"id": identity}, headers=headers)


async def test_every_dialect_is_stored_in_openrouters_form(stage: Stage) -> None:
    """Input as messages or a prompt, output as text and reasoning, as the official client reads them."""
    team = await Team.made(stage, "every")
    for path, more in ASKED:
        words = {name: WORDS for name in ("prompt", "input") if name in more}
        found = await team.content(await team.ask(path, **more | words))
        assert found.status_code == 200, (path, found.text)
        data = GenerationContentResponse.model_validate(found.json()).data
        said = found.json()["data"]
        assert WORDS in str(said["input"]), path
        assert ("prompt" in said["input"]) == (more.get("messages", "") is None and "responses" not in path), path
        assert data.error is None
        if not path.endswith("embeddings"):
            assert len(data.output.completion or "") > 20, path
        if "chat" in path or "messages" in path:
            assert data.output.reasoning, path


async def test_what_is_stored_is_sealed(stage: Stage) -> None:
    """No word of prompt or answer is in the database's files."""
    team = await Team.made(stage, "sealed")
    found = (await team.content(await team.ask())).json()["data"]
    words = [WORDS.encode(), found["output"]["completion"][:20].encode()]
    with closing(sqlite3.connect(stage.home / "weir.db")) as database:
        assert database.execute("SELECT count(*) FROM generation_content WHERE team = 'sealed'").fetchone() == (1,)
    for path in stage.home.glob("weir.db*"):
        assert not any(word in path.read_bytes() for word in words)


async def test_nothing_is_stored_unless_it_was_chosen(stage: Stage) -> None:
    """Not by default, not after it was taken back, not with zero data retention; a key's choice counts more."""
    quiet, team = await Team.made(stage, "quiet", store=None), await Team.made(stage, "taken")
    unknown = await quiet.content("gen-" + "0" * 12 + "7" + "0" * 19)
    not_stored = await quiet.content(await quiet.ask())
    assert (unknown.status_code, unknown.json()["error"]) == (404, not_stored.json()["error"])
    kept = await team.ask()
    assert (await team.content(await team.ask(provider={"zdr": True}))).status_code == 404
    await team.choose(store=False)
    assert (await team.content(await team.ask())).status_code == 404
    assert (await team.content(kept)).status_code == 200
    shown = await team.choose(store=True, key=team.key_id, lifetime_days=3)
    assert {"team": "taken", "key": team.key_id, "store": True, "lifetime_days": 3} in shown.json()["data"]
    assert (await team.content(await team.ask())).status_code == 200
    where, params = f"{stage.url}/api/v1/content/choices", {"team": "taken", "key": team.key_id}
    left = await stage.http.delete(where, params=params, headers=stage.admin)
    assert [each for each in left.json()["data"] if each["team"] == "taken"] == [
        {"team": "taken", "key": None, "store": False, "lifetime_days": None}
    ]


async def test_the_keeper_decides_what_is_stored(stage: Stage) -> None:
    """A worker that has not heard yet of a choice that was taken back stores nothing."""
    team = await Team.made(stage, "late")
    await stage.keeper.ask(CHOOSE, (ContentChoice("late", "", False),))
    assert (await team.content(await team.ask())).status_code == 404


async def test_only_the_team_and_management_read_it(stage: Stage) -> None:
    """Another team is told what it is told of an unknown id, reading and deleting."""
    team, other = await Team.made(stage, "mine"), await Team.made(stage, "theirs")
    identity = await team.ask()
    foreign = [await other.content(identity), await other.content(identity, delete=True)]
    unknown = await other.content("gen-" + "0" * 12 + "7" + "0" * 19)
    assert [each.status_code for each in foreign] == [404, 404]
    assert {each.json()["error"]["message"] for each in (*foreign, unknown)} == {unknown.json()["error"]["message"]}
    assert (await team.content(identity)).status_code == (await team.content(identity, admin=True)).status_code == 200
    refused = await stage.http.get(f"{stage.url}/api/v1/content/choices", headers=team.headers)
    assert refused.status_code == 403


async def test_it_is_deleted_on_request(stage: Stage) -> None:
    """One by the team; all of a key or a team by management, with the answers that would be given again."""
    team = await Team.made(stage, "gone")
    one, two, three = [await team.ask() for _ in range(3)]
    assert (await team.content(one, delete=True)).json() == {"data": {"deleted": 1}}
    assert [(await team.content(each)).status_code for each in (one, two)] == [404, 200]
    assert (await team.content(one, delete=True)).status_code == 404
    repeatable = team.headers | {"idempotency-key": "k", "x-openrouter-cache": "true"}
    url = f"{stage.url}/v1/chat/completions"
    first = await stage.http.post(url, json=chat_body(), headers=repeatable)
    response = await team.ask("/v1/responses", input="hello", messages=None)
    said = {"model": "qwen/qwen3-32b", "input": "and?", "previous_response_id": f"resp_{response[4:]}"}
    assert (await stage.http.post(f"{stage.url}/v1/responses", json=said, headers=team.headers)).status_code == 200
    await stage.gateway.inference.repetitions.clerk.flush()
    where, params = f"{stage.url}/api/v1/content", {"team": "gone", "key": team.key_id}
    gone = await stage.http.delete(where, params=params, headers=stage.admin)
    assert gone.json() == {"data": {"deleted": 5}}
    assert (await stage.http.post(f"{stage.url}/v1/responses", json=said, headers=team.headers)).status_code == 400
    assert (await team.content(three)).status_code == 404
    anew = await stage.http.post(url, json=chat_body(), headers=repeatable)
    assert anew.headers["x-openrouter-cache-status"] == "MISS"
    assert anew.headers["x-generation-id"] != first.headers["x-generation-id"]
    params = {"team": "nobody"}
    assert (await stage.http.delete(where, params=params, headers=stage.admin)).status_code == 404


async def test_a_hit_of_the_cache_has_the_content_of_its_source(stage: Stage) -> None:
    """What was asked and answered is the same; another team sees neither."""
    team, other = await Team.made(stage, "hits"), await Team.made(stage, "misses")
    team.headers["x-openrouter-cache"] = "true"
    first, hit = await team.ask(), await team.ask()
    assert first != hit
    assert (await team.content(hit)).json() == (await team.content(first)).json()
    assert (await other.content(hit)).status_code == 404


async def test_a_failure_to_store_fails_no_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets its answer; the metric counts what is not kept."""
    team, books = await Team.made(stage, "unlucky"), stage.keeper
    ask = type(books).ask

    async def away(self: Any, method: Any, arguments: Any = ()) -> Any:
        if method is STORE:
            raise Unavailable("the disk is away")
        return await ask(self, method, arguments)

    monkeypatch.setattr(type(books), "ask", away)
    monkeypatch.setattr("gateway.edge.clerk.PAUSE_S", 0.001)
    identity = await team.ask()
    assert (await team.content(identity)).status_code == 404
    metrics = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
    assert 'weir_contents_total{outcome="failed"} 1.0' in metrics
    assert 'weir_unkept_total{method="content.store"} 1.0' in metrics


async def test_what_a_caller_saw_of_a_failed_answer_is_stored(tmp_path: Path) -> None:
    """The text so far and the error that was told."""

    async def cut(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("half a sent")))
        visit.writer.close()

    async with (
        hand_backend(cut) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        team = await Team.made(stage, "cut")
        found = (await team.content(await team.ask(stream=True))).json()["data"]
        assert found["output"] == {"completion": "half a sent", "reasoning": None}
        assert found["error"]["status"] == 502
        assert GenerationContentResponse.model_validate({"data": found}).data.error is not None
