"""The ASGI application: what it answers itself, and what is made when it is first asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from gateway import resources
from gateway.api import Api, Resources, build_api
from gateway.edge.native import Road
from gateway.types.errors import Unavailable
from tests.harness import Backend, Stage, configuration, staged

OWN = ("/health", "/ready", "/metrics")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway without backends that live."""
    async with staged(tmp_path, configuration([Backend("gpu-a", "http://127.0.0.1:1")])) as running:
        yield running


def caller(app: Any) -> httpx.AsyncClient:
    """Return a client of the application alone."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://weir.example")


def resources_of(stage: Stage, app: Any) -> Resources:
    """Return the applications beside inference, with ``app`` as each of them."""
    served = Resources(stage.gateway)

    def made(part: str) -> Any:
        return app

    served._made = made  # type: ignore[method-assign] # nothing else would stream without an end
    return served


async def test_what_alerts_watch_is_counted_from_zero_on(stage: Stage) -> None:
    """Prometheus sees no increase in a series that begins with its first event, so a first refused file woke nobody."""
    page = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
    assert 'weir_config_reloads_total{outcome="refused"} 0.0\n' in page
    for name in stage.gateway.registry.fleet.replicas:
        assert f'weir_backend_ejections_total{{backend="{name}"}} 0.0\n' in page


async def test_what_every_worker_is_asked_for_is_answered_without_the_rest(stage: Stage) -> None:
    """Health checks and scrapes never reach the application of catalogue and management; other paths do."""
    reached = []

    async def other(scope: Any, _receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        raise Unavailable("not now", retry_after=2.0)

    async with caller(Api(stage.gateway, None, other)) as http:
        answers = [await http.get(path, headers=stage.admin) for path in OWN]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert answers[1].json() == {"ready": True, "reasons": []}
        assert "weir_requests_total" in answers[2].text
        assert answers[2].headers["content-type"].startswith("text/plain")
        refused = await http.get("/metrics")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        wrong = await http.post("/health")
        assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "invalid_request_error")
        assert reached == []
        away = await http.get("/v1/models")
        assert (away.status_code, away.headers["retry-after"]) == (503, "2")
        assert reached == ["/v1/models"]


async def test_a_defect_of_a_scrape_is_an_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the request in the answer and in the log, and nothing else."""

    async def broken(_accept: str) -> tuple[bytes, str]:
        raise RuntimeError("a defect")

    monkeypatch.setattr(stage.gateway.host_metrics, "scrape", broken)
    with capture_logs() as logs:
        async with caller(build_api(stage.gateway, Road(), lifespan=False)) as http:
            answer = await http.get("/metrics", headers=stage.admin)
    assert answer.status_code == 500
    assert "a defect" not in answer.text
    assert [entry["request_id"] for entry in logs] == [answer.json()["request_id"]]


async def test_a_whole_answer_to_a_defect_leaves_the_connection(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A management path that fails is a 500 that says nothing of closing, and the connection takes the next request."""

    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    lines = "".join(f"{name}: {value}\r\n" for name, value in stage.admin.items())
    request = f"GET /api/v1/teams HTTP/1.1\r\nhost: weir.example\r\n{lines}\r\n".encode()
    host, _, port = stage.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        statuses = []
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(type(stage.gateway.books), "teams", broken)
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            statuses.append(head.split(b" ")[1])
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            assert b"connection: close" not in head
            assert b"a defect" not in await reader.readexactly(int(length[1]))
        assert [entry["event"] for entry in logs] == ["request failed"], "and it is told once"
        writer.write(request)
        statuses.append((await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).split(b" ")[1])
        assert statuses == [b"500", b"200"]
    finally:
        writer.close()


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/v1/models", "/api/v1/models", "/openapi.json", "/api/v1/key", "/console/welcome"]
)
async def test_head_is_answered_where_get_is(stage: Stage, path: str) -> None:
    """The same status and headers without a body, on a connection that goes on; where GET is refused so is HEAD."""
    for headers in (stage.headers, {}):
        answers = [await stage.http.request(way, stage.url + path, headers=headers) for way in ("GET", "HEAD", "GET")]
        assert len({answer.status_code for answer in answers}) == 1, answers
        assert len({answer.headers["content-type"] for answer in answers}) == 1
        assert answers[1].content == b""
    async with caller(build_api(stage.gateway, Road(), lifespan=False)) as http:
        assert (await http.head(path, headers=stage.headers)).content == b""


async def test_head_of_a_stream_without_an_end_ends(stage: Stage) -> None:
    """What streams for as long as somebody reads streams nothing for who wants the head alone."""
    gone = asyncio.Event()

    async def endless(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": b"more", "more_body": True})
        gone.set()

    served = resources_of(stage, endless)
    sent: list[Any] = []
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(requests)

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "HEAD", "path": "/v1/models", "headers": [], "client": None}
    await served(scope, receive, send)
    assert gone.is_set()
    assert [(each["type"], each.get("body"), each.get("more_body")) for each in sent] == [
        ("http.response.start", None, None),
        ("http.response.body", b"", None),
    ]


async def test_head_is_not_taken_where_only_post_is(stage: Stage) -> None:
    """Inference is asked for by POST alone."""
    answers = [
        await stage.http.head(stage.url + path, headers=stage.headers)
        for path in ("/v1/chat/completions", "/api/v1/route/explain")
    ]
    assert [answer.status_code for answer in answers] == [405, 405]


async def test_the_rest_is_made_once_and_when_that_fails_made_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers that come together wait for one application; one that could not be made is a 500 and no verdict."""
    made: list[object] = []
    original = resources.build_part

    def build(gateway: Any, part: str) -> Any:
        made.append(part)
        if len(made) == 1:
            raise RuntimeError("a defect")
        return original(gateway, part)

    monkeypatch.setattr(resources, "build_part", build)
    async with caller(build_api(stage.gateway, Road(), lifespan=False)) as http:
        with capture_logs():
            failed = await http.get("/v1/models", headers=stage.headers)
        assert failed.status_code == 500
        assert failed.json()["error"]["code"] == 500
        answers = await asyncio.gather(*(http.get("/v1/models", headers=stage.headers) for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert (await http.get("/api/v1/key", headers=stage.headers)).status_code == 200
    assert made == ["models", "models", "keys"]


async def test_requests_before_the_start_are_told_to_wait(stage: Stage) -> None:
    """The plain ASGI road answers inference with 503 until the gateway has started."""
    async with caller(build_api(stage.gateway, Road(), lifespan=False)) as http:
        answer = await http.post("/v1/chat/completions", headers=stage.headers, json={})
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the gateway is starting")
