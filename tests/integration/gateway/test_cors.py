"""Web pages: only those of the origins in the configuration may read answers, on either road, and none by default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.api import build_api
from gateway.app import presets
from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.edge.native import Road
from gateway.sim import SimConfig, SimFleet
from tests.harness import NO_TLS, Stage, chat_body, configuration, over, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE, OTHER = "https://chat.example.org", "https://evil.example.org"
CHAT, LIST = "/v1/chat/completions", "/api/v1/models"
ASKED = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type, x-stainless-lang",
}
PATHS = [CHAT, "/api/v1/chat/completions", LIST, "/api/v1/keys", "/health"]

Caller = Callable[[str], Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A gateway that one page may call."""
    more = f"cors: {{origins: ['{PAGE}', 'http://localhost:3000'], max_age: 77}}"
    async with SimFleet([SimConfig(name="gpu-a")]) as fleet:
        config = configuration(over(*fleet), more=more)
        async with staged(tmp_path_factory.mktemp("cors"), config) as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stage: Stage) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """A client of each road."""
    road = Road()
    road.inference = stage.gateway.inference
    transport = httpx.ASGITransport(build_api(stage.gateway, road, lifespan=False))
    async with (
        httpx.AsyncClient(base_url=stage.url, verify=NO_TLS) as native,
        httpx.AsyncClient(base_url="http://asgi", transport=transport) as asgi,
    ):
        yield {"native": native, "asgi": asgi}


ROADS = pytest.mark.parametrize("road", ["native", "asgi"])


@ROADS
@pytest.mark.parametrize("path", PATHS)
async def test_a_browser_is_told_that_it_may(callers: dict[str, httpx.AsyncClient], road: str, path: str) -> None:
    """No key is needed for asking; the headers that the page wants to send are allowed, cookies are not."""
    answer = await callers[road].options(path, headers={"origin": PAGE, **ASKED})
    assert (answer.status_code, answer.content) == (204, b"")
    told = answer.headers
    assert told["access-control-allow-origin"] == PAGE
    assert "POST" in told["access-control-allow-methods"]
    assert told["access-control-allow-headers"] == ASKED["access-control-request-headers"]
    assert told["access-control-max-age"] == "77"
    assert told["vary"] == "origin, access-control-request-headers"
    assert "access-control-allow-credentials" not in told


@ROADS
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [OTHER, PAGE + "/", PAGE.upper(), "null", "", "https://chat.example.org.evil.org"])
async def test_no_other_origin_may(callers: dict[str, httpx.AsyncClient], road: str, path: str, origin: str) -> None:
    """Origins are compared whole; who is not named is answered as ever, and its browser keeps that from the page."""
    answer = await callers[road].options(path, headers={"origin": origin, **ASKED})
    assert answer.status_code in {401, 405}
    assert not [name for name in answer.headers if name.startswith("access-control")]


@ROADS
async def test_headers_that_are_none_are_not_repeated(callers: dict[str, httpx.AsyncClient], road: str) -> None:
    """What a browser would never send is not sent back."""
    asked = ASKED | {"access-control-request-headers": "a: b"}
    answer = await callers[road].options(CHAT, headers={"origin": PAGE, **asked})
    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


@ROADS
@pytest.mark.parametrize(
    ("body", "status"), [({}, 200), ({"stream": True}, 200), ({"temperature": "hot"}, 400), (None, 401)]
)
async def test_a_page_reads_answers_streams_and_errors(
    stage: Stage, callers: dict[str, httpx.AsyncClient], road: str, body: dict[str, Any] | None, status: int
) -> None:
    """Each carries the origin and the names of the headers that the page may read."""
    headers = {"origin": PAGE} | (stage.headers if body is not None else {})
    answer = await callers[road].post(CHAT, json=chat_body() | (body or {}), headers=headers)
    assert answer.status_code == status
    told = answer.headers
    assert (told["access-control-allow-origin"], told["vary"]) == (PAGE, "origin")
    exposed = told["access-control-expose-headers"].split(", ")
    assert {"x-generation-id", "x-request-id", "x-weir-route", "retry-after", "x-ratelimit-reset"} <= set(exposed)
    assert len(told.get_list("access-control-allow-origin")) == 1


@ROADS
async def test_the_other_half_of_the_port(stage: Stage, callers: dict[str, httpx.AsyncClient], road: str) -> None:
    """The catalogue and its errors, too."""
    good = await callers[road].get(LIST, headers={"origin": "http://localhost:3000", **stage.headers})
    bad = await callers[road].get("/api/v1/nowhere", headers={"origin": PAGE})
    assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
    assert (bad.status_code, bad.headers["access-control-allow-origin"]) == (404, PAGE)


@ROADS
async def test_callers_that_are_no_pages(stage: Stage, callers: dict[str, httpx.AsyncClient], road: str) -> None:
    """Another origin's request is served without a word that lets a page read it; the same connection mixes both."""
    for origin, allowed in ((OTHER, None), (PAGE, PAGE), (None, None), (PAGE, PAGE), (None, None), (OTHER, None)):
        headers = stage.headers | ({"origin": origin} if origin else {})
        answer = await callers[road].post(CHAT, json=chat_body(), headers=headers)
        assert answer.status_code == 200
        assert answer.headers.get("access-control-allow-origin") == allowed


async def test_off_by_default_and_on_by_a_reload(tmp_path: Path) -> None:
    """Without the section nothing is said; with it, everything, also on connections that are open."""
    async with SimFleet([SimConfig(name="gpu-a")]) as fleet:
        config = configuration(over(*fleet))
        async with staged(tmp_path, config) as stage:
            headers = stage.headers | {"origin": PAGE}

            async def allowed() -> str | None:
                answer = await stage.http.post(stage.url + CHAT, json=chat_body(), headers=headers)
                assert answer.status_code == 200
                return answer.headers.get("access-control-allow-origin")

            for _ in range(5):
                assert await allowed() is None
            refused = await stage.http.options(stage.url + CHAT, headers={"origin": PAGE, **ASKED})
            assert refused.status_code == 405
            assert not [name for name in refused.headers if name.startswith("access-control")]
            stage.config.write_text(config + f"cors: {{origins: ['{PAGE}']}}\n")
            async with asyncio.timeout(20):
                while await allowed() != PAGE:
                    await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "origin", ["*", "https://chat.example.org/", "chat.example.org", "https://Chat.example.org", "https://a.org:443"]
)
async def test_what_is_no_origin_is_refused(tmp_path: Path, origin: str) -> None:
    """A wildcard, a path, a missing scheme, capitals and a usual port would never match, or match everything."""
    path = tmp_path / "weir.yaml"
    path.write_text(configuration(over(), models="  []") + f"cors: {{origins: ['{origin}']}}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, presets=presets())
    assert "cors.origins" in str(caught.value)
