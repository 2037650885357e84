"""Bad input gets a clear error in the callers' shape, never a 500, and the gateway goes on serving."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.api import build_api
from gateway.edge.native import Road
from gateway.sim import SimConfig, SimFleet, Timing
from tests.fakes.raw_client import BODY, CHAT, changed, check_error, events, head, post, raw_client
from tests.harness import ADMIN_KEY, Stage, configuration, over, staged

LIMIT = 1_000_000
DEEP = 10_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Run one gateway for all tests here: what one of them sends must not spoil the next."""
    home = tmp_path_factory.mktemp("bad-input")
    async with (
        SimFleet([SimConfig(name="gpu-a")]) as fleet,
        staged(home, configuration(over(*fleet)), WEIR_MAX_BODY_BYTES=str(LIMIT)) as running,
    ):
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def still_serves(stage: Stage) -> None:
    """Check that a good request is answered."""
    assert (await stage.chat()).status_code == 200


BODIES = {
    "nothing": (b"", "empty"),
    "not JSON": (b"tell me about weirs", "not valid JSON"),
    "half": (BODY[:-5], "not valid JSON"),
    "two documents": (BODY + BODY, "not valid JSON"),
    "not UTF-8": (BODY.replace(b"weirs", b"w\xe9irs"), "not UTF-8"),
    "UTF-16": (BODY.decode().encode("utf-16"), "not"),
    "a lone surrogate": (BODY.replace(b"weirs", b"\\ud83d"), "not valid JSON"),
    "NaN": (changed(temperature=1).replace(b'"temperature": 1', b'"temperature": NaN'), "not valid JSON"),
    "infinity": (changed(temperature=1).replace(b'"temperature": 1', b'"temperature": 1e999'), "out of range"),
    "an endless integer": (changed(seed=1).replace(b'"seed": 1', b'"seed": ' + b"9" * 5000), "out of range"),
    "a huge integer": (changed(seed=10**30), "seed"),
    "a huge float": (changed(temperature=10**400), "temperature"),
    "a duplicate key": (BODY[:-1] + b', "model": "other"}', "'model' twice"),
    "a duplicate key inside": (changed(metadata={"a": 1}).replace(b'"a": 1', b'"a": 1, "a": 2'), "'a' twice"),
    "a list": (b"[" + BODY + b"]", "must be a JSON object"),
    "a string": (b'"x"', "must be a JSON object"),
    "deep lists": (changed(stop=[]).replace(b"[]", b"[" * DEEP + b"]" * DEEP), "nested too deeply"),
    "deep lists without an end": (b"[" * 10 * DEEP, "nested too deeply"),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "nested too deeply"),
    "no model": (b'{"messages": [{"role": "user", "content": "hi"}]}', "model"),
    "a model that is a number": (changed(model=3), "model"),
    "an endless model": (changed(model="m" * 5000), "model"),
    "no messages": (b'{"model": "qwen/qwen3-32b"}', "messages"),
    "messages that are text": (changed(messages="hi"), "messages"),
    "a message without a role": (changed(messages=[{"content": "hi"}]), "role"),
    "stream as text": (changed(stream="true"), "stream"),
    "a negative length": (changed(max_tokens=-1), "max_tokens"),
    "too many choices": (changed(n=10**6), "n"),
    "tools that are text": (changed(tools="calculator"), "tools"),
    "a BOM": (b"\xef\xbb\xbf" + BODY, "not valid JSON"),
    "a NUL": (b"\0" + BODY, "not valid JSON"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_refused_with_the_reason(name: str, stage: Stage) -> None:
    """Each is a 400 that says what is wrong; the connection stays usable."""
    raw, words = BODIES[name]
    async with raw_client(stage.port) as client:
        await client.send(post(CHAT, raw, stage.key))
        answer = await client.response()
        assert answer.status == 400
        error = check_error(answer.document, answer.headers, 400, "invalid_request")
        assert words in error["message"]
        assert len(error["message"]) < 300
        assert answer.headers["x-request-id"] == answer.document["request_id"]
        await client.send(post(CHAT, BODY, stage.key))
        assert (await client.response(2)).status == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/api/v1/chat/completions"])
async def test_every_path_refuses_in_the_same_shape(path: str, stage: Stage) -> None:
    """Dialects differ in what they read, not in how they refuse."""
    for raw in (
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"model": 1}',
        b'{"model": "m", "prompt": {}, "input": 1, "messages": 1}',
    ):
        answer = await stage.http.post(stage.url + path, content=raw, headers=stage.headers)
        assert answer.status_code == 400
        check_error(answer.json(), answer.headers, 400, "invalid_request")
    await still_serves(stage)


async def test_an_unknown_model_is_404_with_near_names(stage: Stage) -> None:
    """A typing error is answered with what was probably meant, a wild one without guessing."""
    answer = await stage.chat(model="qwen/qwen3-23b")
    assert answer.status_code == 404
    error = check_error(answer.json(), answer.headers, 404, "not_found")
    assert "did you mean qwen/qwen3-32b?" in error["message"]
    assert (error["param"], error["metadata"]["near"]) == ("model", ["qwen/qwen3-32b"])
    for name in ("", "zzz", "../../etc/passwd", "a\r\nx-evil: 1", "\u202e\0", "q" * 256):
        answer = await stage.chat(model=name)
        assert answer.status_code == (404 if name else 400)
        assert "x-evil" not in answer.headers
        check_error(answer.json(), answer.headers, answer.status_code, "not_found" if name else "invalid_request")
    await still_serves(stage)


async def test_without_a_good_key_nothing_is_served(stage: Stage) -> None:
    """No, wrong, garbled and enormous keys are all 401, told before the body is read."""
    wrong = stage.key[:-1] + ("0" if stage.key[-1] != "0" else "1")
    cases = [
        None,
        "Bearer",
        "Bearer ",
        f"Bearer {wrong}",
        f"Bearer {stage.key}0",
        f"Bearer {stage.key} {stage.key}",
        f"Basic {stage.key}",
        stage.key,
        "Bearer sk-weir-",
        "Bearer \xe9\xff\x80",
        "Bearer " + "x" * 60_000,
        ("Bearer " + stage.key) * 500,
    ]
    for authorization in cases:
        line = [] if authorization is None else [f"Authorization: {authorization}"]
        request = post(CHAT, BODY, None, *line).replace("\xe9\xff\x80".encode(), b"\xe9\xff\x80")
        async with raw_client(stage.port) as client:
            await client.send(request)
            answer = await client.response()
            assert answer.status == 401, authorization and authorization[:60]
            error = check_error(answer.document, answer.headers, 401, "authentication")
            assert error["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == "Bearer"
    async with raw_client(stage.port) as client:  # the body never comes, and need not
        await client.send(post(CHAT, BODY, None)[: -len(BODY)])
        assert (await client.response()).status == 401
        assert await client.closed()
    elsewhere = await stage.http.post(stage.url + CHAT, content=BODY, headers={"x-api-key": stage.key})
    assert elsewhere.status_code == 200


async def test_a_key_over_its_limit_is_429_and_says_when(stage: Stage) -> None:
    """Requests per minute, tokens per minute and requests at once each refuse with a whole number of seconds."""
    rpm = {"authorization": f"Bearer {(await stage.new_key(rpm=2)).key}"}
    for expected in (200, 200, 429):
        answer = await stage.http.post(stage.url + CHAT, content=BODY, headers=rpm)
        assert answer.status_code == expected
    error = check_error(answer.json(), answer.headers, 429, "rate_limit_exceeded")
    assert error["metadata"]["limit"] == "rpm"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    tpm = {"authorization": f"Bearer {(await stage.new_key(tpm=10)).key}"}
    answer = await stage.http.post(stage.url + CHAT, content=BODY, headers=tpm)
    assert answer.status_code == 429
    assert check_error(answer.json(), answer.headers, 429, "rate_limit_exceeded")["metadata"]["limit"] == "tpm"
    await still_serves(stage)


async def test_only_so_many_requests_of_a_key_run_at_once(tmp_path: Path) -> None:
    """The second of two at a time is refused while the first runs, and served once the first caller has left."""
    async with (
        SimFleet([SimConfig(timing=Timing(base_ttft=60))]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        key = (await stage.new_key(concurrent=1)).key
        for _ in range(2):
            async with raw_client(stage.port) as client:
                await client.send(post(CHAT, BODY, key))
                async with asyncio.timeout(10):
                    while not stage.gateway.registry.fleet.replicas["sim"].load.in_flight:
                        await asyncio.sleep(0.01)
                answer = await stage.http.post(stage.url + CHAT, content=BODY, headers={"x-api-key": key})
                assert answer.status_code == 429
                assert answer.headers["retry-after"] == "1"
            async with asyncio.timeout(10):
                while stage.gateway.inference.active:
                    await asyncio.sleep(0.01)


async def test_a_body_over_the_limit_is_refused_by_its_head(stage: Stage) -> None:
    """The caller is told before it has sent a byte of the body, and not invited to send it."""
    async with raw_client(stage.port) as client:
        await client.send(post(CHAT, b"", stage.key, "Expect: 100-continue", length=LIMIT + 1))
        answer = await client.response()
        assert answer.status == 413
        error = check_error(answer.document, answer.headers, 413, "payload_too_large")
        assert error["metadata"]["limit_bytes"] == LIMIT
        assert client.informational == []
        assert answer.headers["connection"] == "close"
        assert await client.closed()
    # A caller that sends on all the same, slowly or with all its might, still gets to read the refusal.
    patient = await stage.http.post(stage.url + CHAT, content=b" " * 30_000_000, headers=stage.headers)
    assert patient.status_code == 413
    await still_serves(stage)


async def test_a_body_without_a_length_is_refused_once_it_is_over_the_limit(stage: Stage) -> None:
    """An endless chunked body ends at the limit."""
    async with raw_client(stage.port) as client:
        await client.send(head("Transfer-Encoding: chunked", key=stage.key))
        sent = 0
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        while not client.responses and sent < 20 * LIMIT:
            try:
                await client.send(piece)
            except ConnectionError:
                break
            sent += 65536
            try:
                await client.response(seconds=0.001)
            except TimeoutError:
                continue
        answer = await client.response()
        assert answer.status == 413
        check_error(answer.document, answer.headers, 413, "payload_too_large")
        assert sent < 20 * LIMIT
    await still_serves(stage)


async def test_a_request_to_explain_has_the_limit_of_one_to_serve(stage: Stage) -> None:
    """Whoever may ask for a decision, as a viewer's key may, must not fill the memory by it."""
    operator = {"authorization": f"Bearer {ADMIN_KEY}"}
    answer = await stage.http.post(f"{stage.url}/api/v1/route/explain", content=b" " * (LIMIT + 1), headers=operator)
    assert answer.status_code == 413, answer.text
    check_error(answer.json(), answer.headers, 413, "payload_too_large")


async def test_the_asgi_adapter_refuses_alike(stage: Stage) -> None:
    """The plain ASGI road gives the same statuses in the same shape."""
    road = Road()
    road.inference = stage.gateway.inference
    app: Any = build_api(stage.gateway, road, lifespan=False)
    good = stage.headers
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://weir.example") as http:
        for raw, words in BODIES.values():
            answer = await http.post(CHAT, content=raw, headers=good)
            assert answer.status_code == 400
            assert words in check_error(answer.json(), answer.headers, 400, "invalid_request")["message"]
        for status, kind, headers, raw in (
            (401, "authentication", {}, BODY),
            (401, "authentication", {"authorization": "Bearer sk-weir-x"}, BODY),
            (413, "payload_too_large", good, b" " * (LIMIT + 1)),
            (415, "invalid_request", good | {"content-encoding": "gzip"}, gzip.compress(BODY)),
            (404, "not_found", good, changed(model="qwen/qwen3-23b")),
            (400, "invalid_request", [*good.items(), *good.items()], BODY),
        ):
            answer = await http.post(CHAT, content=raw, headers=headers)
            assert answer.status_code == status
            check_error(answer.json(), answer.headers, status, kind)

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b" " * 65536

        answer = await http.post(CHAT, content=endless(), headers=good)
        assert answer.status_code == 413
        answer = await http.get(CHAT, headers=good)
        assert answer.status_code == 405
        check_error(answer.json(), answer.headers, 405, "invalid_request")
        answer = await http.post(CHAT, content=BODY, headers=good)
        assert answer.status_code == 200
        answer = await http.post(CHAT, content=changed(stream=True), headers=good)
        assert events(answer.content)[-1] == "[DONE]"
