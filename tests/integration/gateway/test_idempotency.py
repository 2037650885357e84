"""``Idempotency-Key``: whoever asks again gets the same answer, once paid; both server roads, JSON and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.api import build_api
from gateway.edge.inference import Inference
from gateway.edge.native import Road
from gateway.sim import Timing
from gateway.types.errors import Unavailable
from gateway.types.repetition import RELEASE
from tests.fakes.backend import DONE, SSE_HEAD, Visit, chunk, event, hand_backend
from tests.fakes.paths import ASKED, CHAT, Scene, ask, scene
from tests.harness import NO_TLS, Backend, chat_body, configuration, staged

ONE = {"idempotency-key": "order-7313"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway for all tests that need nothing special; each uses idempotency keys of its own."""
    async with scene(tmp_path_factory.mktemp("idempotency")) as found:
        yield found


def lasting(response: httpx.Response) -> dict[str, str]:
    """Return the headers that an answer given again must have as they were."""
    return {name: value for name, value in response.headers.items() if name not in {"date", "idempotent-replayed"}}


@pytest.mark.parametrize("road", ["native", "asgi"])
async def test_every_path_gives_the_same_answer_again(shared: Scene, road: str) -> None:
    """Status, headers and bytes are those of the first time; the engine is asked once and the team pays once."""
    stage, http = shared.stage, shared.stage.http
    if road == "asgi":
        own = Road()
        own.inference = stage.gateway.inference
        http = httpx.AsyncClient(transport=httpx.ASGITransport(build_api(stage.gateway, own)), verify=NO_TLS)
    before, rows = shared.asked, len(await stage.keeper.recent(99))
    for number, (path, more) in enumerate(ASKED):
        headers = {"idempotency-key": f"{road}-{number}"}
        first, second = [await shared.ask(headers, path, http=http, **more) for _ in range(2)]
        assert first.status_code == 200, (path, first.text)
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true", path
        assert (second.status_code, second.content) == (200, first.content), path
        assert lasting(second) == lasting(first), path
        assert shared.asked == before + number + 1
    assert len(await stage.settled(rows + len(ASKED))) == len(await stage.keeper.recent(99)) == rows + len(ASKED)


async def test_another_request_under_the_same_key_is_refused(shared: Scene) -> None:
    """The same path and bytes or nothing: 422, and what was kept stays."""
    one, before = {"idempotency-key": "one"}, shared.asked
    first = await shared.ask(one)
    for path, more in ((CHAT, {"seed": 1}), ("/api/v1/chat/completions", {})):
        refused = await shared.ask(one, path, **more)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert (await shared.ask(one)).content == first.content
    assert shared.asked == before + 1


async def test_keys_and_teams_share_nothing(shared: Scene) -> None:
    """An idempotency key belongs to the inference key that sent it."""
    keys, before = await shared.keys("other"), shared.asked
    answers = [await shared.ask({"idempotency-key": "shared"}, key=key) for key in keys]
    assert len({answer.json()["id"] for answer in answers}) == len(keys) == shared.asked - before
    assert not any("idempotent-replayed" in answer.headers for answer in answers)


async def test_a_repetition_counts_against_no_limit(shared: Scene) -> None:
    """A key that may make one request a minute gets its answer as often as it asks."""
    key, one = (await shared.stage.new_key(rpm=1)).key, {"idempotency-key": "limited"}
    first, again, other = [await shared.ask(one if name else {}, key=key) for name in (1, 1, 0)]
    assert again.content == first.content
    assert other.status_code == 429
    refused = await shared.ask({"idempotency-key": "later"}, key=key)
    assert refused.status_code == 429
    assert (await shared.ask({"idempotency-key": "later"})).status_code == 200, "of another inference key"


async def test_without_a_keeper_nothing_is_promised(shared: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, because nobody can tell whether it was answered; requests without the header go on."""
    keeper, before = shared.stage.keeper, shared.asked
    ask = type(keeper).ask

    async def away(self: Any, method: Any, arguments: Any = ()) -> Any:
        if method.name.startswith("repetition."):
            raise Unavailable("the database is away", retry_after=1.0)
        return await ask(self, method, arguments)

    monkeypatch.setattr(type(keeper), "ask", away)
    refused = await shared.ask({"idempotency-key": "away"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (await shared.ask({})).status_code == 200
    monkeypatch.setattr("gateway.edge.clerk.TRIES", 1)
    cached = await shared.ask({"x-openrouter-cache": "true"})
    assert cached.headers["x-openrouter-cache-status"] == "MISS"
    assert shared.asked == before + 2


async def test_while_it_runs_a_repetition_is_told_to_wait(tmp_path: Path) -> None:
    """409 with Retry-After while the first is answered, then its answer."""
    go = asyncio.Event()

    async def slowly(visit: Visit) -> None:
        await go.wait()
        await visit.answer({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})

    async with (
        hand_backend(slowly) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        first = asyncio.create_task(ask(stage, ONE))
        await backend.visit()
        early = await ask(stage, ONE)
        assert (early.status_code, early.headers["retry-after"]) == (409, "1")
        other = await ask(stage, ONE, seed=3)
        assert other.status_code == 422
        go.set()
        answered = await first
        again = await ask(stage, ONE)
        assert again.content == answered.content
        assert len(backend.visits) == 1


async def test_an_official_client_that_retries_gets_the_one_answer(tmp_path: Path) -> None:
    """The client of ``openai`` waits as it is told on 409, and has the answer of its first request."""
    go = asyncio.Event()

    async def slowly(visit: Visit) -> None:
        await go.wait()
        await visit.answer({"choices": [{"index": 0, "message": {"content": "once"}, "finish_reason": "stop"}]})

    async with (
        hand_backend(slowly) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        asked: dict[str, Any] = chat_body() | {"extra_headers": ONE}
        first = asyncio.create_task(stage.openai().chat.completions.create(**asked))
        await backend.visit()
        second = asyncio.create_task(stage.openai(retries=5).chat.completions.create(**asked))
        await asyncio.sleep(0.2)
        go.set()
        one, two = await first, await second
        assert one.id == two.id
        assert one.choices[0].message.content == two.choices[0].message.content == "once"
        assert len(backend.visits) == 1


async def test_comments_that_tell_to_wait_are_no_part_of_the_answer(tmp_path: Path) -> None:
    """The caller of a slow stream gets them; the record, and what is given again, is the answer alone."""
    running: list[Inference] = []

    async def slowly(visit: Visit) -> None:
        while not all(exchange.begun for exchange in running[0].active):
            await asyncio.sleep(0.01)
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hello", finish="stop")), DONE, last=True)

    async with (
        hand_backend(slowly) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        running.append(stage.gateway.inference)
        comforting = asyncio.create_task(running[0].comfort(0.1))
        both = ONE | {"x-openrouter-cache": "true"}
        first, again = [await ask(stage, both, "/api/v1/chat/completions", stream=True) for _ in range(2)]
        assert not comforting.done()
        comforting.cancel()
        assert first.text.startswith(": ")
        assert again.text.startswith("data: ")
        assert first.text.endswith(again.text)


async def test_an_answer_is_finished_for_a_caller_that_left(tmp_path: Path) -> None:
    """Who lost its connection in mid-stream asks again and gets the whole stream, paid once."""
    async with scene(tmp_path, timing=Timing(itl=0.01), answer_tokens=60) as found:
        stage, body = found.stage, chat_body() | {"stream": True}
        async with stage.http.stream("POST", stage.url + CHAT, json=body, headers=stage.headers | ONE) as response:
            async for _ in response.aiter_bytes():
                break
        async with asyncio.timeout(10):
            while (again := await ask(stage, ONE, stream=True)).status_code == 409:
                await asyncio.sleep(0.05)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.text.endswith("data: [DONE]\n\n")
        (record,) = await stage.settled()
        assert record.attempts[-1].status == "ok"
        assert found.asked == 1


async def test_an_error_is_not_kept(tmp_path: Path) -> None:
    """What failed cost nothing and may be tried again at once under the same key: before and in mid-answer."""
    turn = 0

    async def twice_badly(visit: Visit) -> None:
        nonlocal turn
        turn += 1
        if turn == 1:
            await visit.answer({"error": {"message": "no"}}, "400 Bad Request")
            return
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hel")))
        if turn == 2:
            visit.writer.close()
            return
        await visit.events(event(chunk("lo", finish="stop")), DONE, last=True)

    async with (
        hand_backend(twice_badly) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        assert (await ask(stage, ONE, stream=True)).status_code == 400
        cut = await ask(stage, ONE, stream=True)
        assert "error" in cut.text
        whole = await ask(stage, ONE, stream=True)
        assert whole.text.endswith("data: [DONE]\n\n")
        assert "idempotent-replayed" not in whole.headers
        assert (await ask(stage, ONE, stream=True)).text == whole.text
        assert turn == 3


@pytest.mark.parametrize("path", [CHAT, "/api/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("how", ["defect", "shutdown"])
async def test_a_begun_stream_is_told_why_it_ends(
    how: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours in mid-stream leaves at once, as without the header, and the same key may be tried again."""
    go = asyncio.Event()
    body: dict[str, Any] = {"stream": True, "max_tokens": 40}
    if "responses" in path:
        body = {"stream": True, "input": "Hi.", "messages": None}

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hel")))
        await go.wait()
        await visit.events(event(chunk("lo", finish="stop")), DONE, last=True)

    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        asking = asyncio.create_task(ask(stage, ONE, path, **body))
        await backend.visit()
        async with asyncio.timeout(20):
            while not all(exchange.begun for exchange in stage.gateway.inference.active):
                await asyncio.sleep(0.01)
            if how == "defect":
                with monkeypatch.context() as patch:
                    patch.setattr("gateway.inflight.InFlight.settle", broken)
                    go.set()
                    told = await asking
            else:
                await stage.gateway.drain(0.1)
                told = await asking
        words = "internal error" if how == "defect" else "shutting down"
        assert told.text.index("hel") < told.text.index(words)
        stage.gateway.inference.draining = False
        go.set()
        again = await ask(stage, ONE, path, **body)
        assert again.status_code == 200
        assert "idempotent-replayed" not in again.headers
        assert words not in again.text
        assert len(backend.visits) == 2


async def test_a_shutdown_does_not_swallow_an_error_whose_claim_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the keeper takes its time the error waits for it; the end of the process is not the end of the error."""
    asked = asyncio.Event()

    async def cut(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hel")))
        visit.writer.close()

    async with (
        hand_backend(cut) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        ask_keeper = type(stage.keeper).ask

        async def slowly(self: Any, method: Any, arguments: Any = ()) -> Any:
            if method is RELEASE:
                asked.set()
                await asyncio.sleep(1.0)
            return await ask_keeper(self, method, arguments)

        monkeypatch.setattr(type(stage.keeper), "ask", slowly)
        asking = asyncio.create_task(ask(stage, ONE, stream=True))
        async with asyncio.timeout(20):
            await asked.wait()
            await stage.gateway.drain(0.0)
            told = await asking
        assert "the middle of its answer" in told.text


async def test_an_answer_too_large_is_given_once(tmp_path: Path) -> None:
    """It passes unharmed; a repetition is told that it was not kept, and which answer it was."""
    async with scene(tmp_path, "repetition: {largest_mib: 0.0001}", answer_tokens=200) as found:
        first = await ask(found.stage, ONE, "/api/v1/chat/completions", stream=True)
        assert first.text.endswith("data: [DONE]\n\n")
        again = await ask(found.stage, ONE, "/api/v1/chat/completions", stream=True)
        assert again.status_code == 422
        assert again.json()["error"]["metadata"]["generation_id"] == first.headers["x-generation-id"]
        assert found.asked == 1


@pytest.mark.parametrize("value", ["", "a b", "x" * 256, "caf\xe9"])
async def test_a_key_that_cannot_be_one_is_refused(shared: Scene, value: str) -> None:
    """400 that names the header."""
    stage, before = shared.stage, shared.asked
    raw = [*stage.headers.items(), ("idempotency-key", value.encode("latin-1"))]
    refused = await stage.http.post(stage.url + CHAT, json=chat_body(), headers=raw)  # type: ignore[arg-type]
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert shared.asked == before
