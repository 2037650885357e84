"""Requests that bend or break HTTP: framing, pipelining, versions, trickles; read strictly, answered clearly."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.edge.clocks import BODY_STEP
from gateway.sim import SimConfig, SimFleet, Timing
from tests.fakes.raw_client import BODY, CHAT, RawClient, changed, check_error, events, head, post, raw_client
from tests.harness import ADMIN_KEY, Stage, configuration, over, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Run one gateway for all tests here: what one of them sends must not spoil the next."""
    home = tmp_path_factory.mktemp("bad-http")
    async with SimFleet([SimConfig(name="gpu-a")]) as fleet, staged(home, configuration(over(*fleet))) as running:
        yield running


async def still_serves(stage: Stage) -> None:
    """Check that a good request is answered."""
    assert (await stage.chat()).status_code == 200


LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
NOT_HTTP = {
    "a negative length": (["Content-Length: -5"], BODY),
    "a length in words": (["Content-Length: five"], BODY),
    "a length with a sign": ([f"Content-Length: +{len(BODY)}"], BODY),
    "a length beyond all measure": (["Content-Length: " + "9" * 30], BODY),
    "two different lengths": ([LENGTH, "Content-Length: 3"], BODY),
    "one length twice": ([LENGTH, LENGTH], BODY),
    "a list of lengths": ([f"{LENGTH}, {len(BODY)}"], BODY),
    "both length headers": ([LENGTH, CHUNKED], b"0\r\n\r\n"),
    "both length headers the other way": ([CHUNKED, LENGTH], b"0\r\n\r\n"),
    "chunked twice": ([CHUNKED, CHUNKED], b"0\r\n\r\n"),
    "an unknown encoding": (["Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
    "a chunk size in letters": ([CHUNKED], b"zz\r\n{}\r\n0\r\n\r\n"),
    "a negative chunk": ([CHUNKED], b"-1\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond all measure": ([CHUNKED], b"f" * 20 + b"\r\n"),
    "a chunk longer than it says": ([CHUNKED], b"2\r\n{}{}\r\n0\r\n\r\n"),
    "chunks ended by LF": ([CHUNKED], b"2\n{}\n0\n\n"),
    "a folded header": (["X-A: b\r\n c", LENGTH], BODY),
    "a NUL in a header": (["X-A: b\0c", LENGTH], BODY),
    "a NUL in a name": (["X\0A: b", LENGTH], BODY),
    "a CR in a header": (["X-A: b\rX-B: c", LENGTH], BODY),
    "a blank before the colon": (["X-A : b", LENGTH], BODY),
    "a header without a colon": (["nonsense", LENGTH], BODY),
}


@pytest.mark.parametrize("name", NOT_HTTP)
async def test_broken_framing_is_400_and_the_end_of_the_connection(name: str, stage: Stage) -> None:
    """Whatever could be read in two ways is not read at all; what follows on the connection is not served."""
    lines, rest = NOT_HTTP[name]
    async with raw_client(stage.port) as client:
        await client.send(head(*lines, key=stage.key) + rest + post(CHAT, BODY, stage.key))
        answer = await client.response()
        assert answer.status == 400
        check_error(answer.document, answer.headers, 400, "invalid_request")
        assert answer.headers["connection"] == "close"
        assert await client.closed()
    await still_serves(stage)


OTHER_PROTOCOLS = {
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "noise": bytes(range(256)) * 8,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an unknown method": b"BREW /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"post /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown version": b"POST /v1/chat/completions HTTP/3.7\r\nHost: x\r\n\r\n",
    "bytes that are no path": b"POST /v1/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel to a path": b"CONNECT /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel to a path beside inference": b"CONNECT /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a folded request line": b"POST /v1/chat/completions HTTP/1.1\r\n X: y\r\n\r\n",
}


@pytest.mark.parametrize("name", OTHER_PROTOCOLS)
async def test_what_is_not_http_is_400(name: str, stage: Stage) -> None:
    """Other protocols on the port get an answer that says so."""
    async with raw_client(stage.port) as client:
        await client.send(OTHER_PROTOCOLS[name])
        answer = await client.response()
        assert answer.status == 400
        check_error(answer.document, answer.headers, 400, "invalid_request")
        assert await client.closed()
    await still_serves(stage)


ODD_BUT_GOOD = {
    "split byte by byte": (post(CHAT, BODY, "KEY"), 200),
    "chunks of one byte": (
        head(CHUNKED, key="KEY") + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
        200,
    ),
    "chunk extensions and trailers": (
        head(CHUNKED, key="KEY") + b"%x;a=b\r\n%b\r\n0\r\nX-T: y\r\n\r\n" % (len(BODY), BODY),
        200,
    ),
    "empty lines before": (b"\r\n\r\n" + post(CHAT, BODY, "KEY"), 200),
    "a query": (head(LENGTH, key="KEY", path=CHAT + "?api-version=1&x=%00") + BODY, 200),
    "the absolute form": (head(LENGTH, key="KEY", path="http://weir.example" + CHAT) + BODY, 200),
    "an expectation": (head(LENGTH, "Expect: 100-continue", key="KEY") + BODY, 200),
    "an offer of HTTP/2": (head(LENGTH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", key="KEY") + BODY, 200),
    "an offer of WebSocket": (head(LENGTH, "Connection: upgrade", "Upgrade: websocket", key="KEY") + BODY, 200),
    "chunks behind an offer": (
        head(CHUNKED, "Connection: upgrade", "Upgrade: h2c", key="KEY") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
        200,
    ),
    "no host": (head(LENGTH, key="KEY", host="") + BODY, 400),
    "two hosts": (head(LENGTH, "Host: y", key="KEY") + BODY, 400),
    "two keys": (head(LENGTH, "Authorization: Bearer other", key="KEY") + BODY, 400),
    "gzip": (post(CHAT, gzip.compress(BODY), "KEY", "Content-Encoding: gzip"), 415),
    "brotli": (post(CHAT, BODY, "KEY", "Content-Encoding: br"), 415),
    "two codings": (head("Transfer-Encoding: gzip, chunked", key="KEY") + b"2\r\n{}\r\n0\r\n\r\n", 415),
    "no coding at all": (post(CHAT, BODY, "KEY", "Content-Encoding: identity"), 200),
    "GET": (head(key="KEY", method="GET"), 405),
    "OPTIONS": (head(key="KEY", method="OPTIONS"), 405),
    "DELETE": (head(key="KEY", method="DELETE"), 405),
    "PUT": (head(LENGTH, key="KEY", method="PUT") + BODY, 405),
    "TRACE": (head(key="KEY", method="TRACE"), 405),
    "a wrong path": (post("/v1/chat/completion", BODY, "KEY"), 404),
    "a path too many": (post(CHAT + "/", BODY, "KEY"), 404),
    "a slash too many": (post("/" + CHAT, BODY, "KEY"), 404),
    "an encoded slash": (post("/v1/chat%2Fcompletions", BODY, "KEY"), 404),
    "an encoded letter": (post("/v1/chat/comple%74ions", BODY, "KEY"), 404),
    "an encoded path that is not UTF-8": (post("/v1/%ff%fe", BODY, "KEY"), 404),
    "a way up": (post("/v1/../api/v1/keys", BODY, "KEY"), 404),
    "the root": (post("/", BODY, "KEY"), 405),
}
KINDS = {400: "invalid_request", 404: "not_found", 405: "invalid_request", 415: "invalid_request"}


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
async def test_odd_requests_are_read_as_http_says_and_the_connection_goes_on(name: str, stage: Stage) -> None:
    """Each gets its exact status, whole or byte by byte, and a second request on the connection is served."""
    request, status = ODD_BUT_GOOD[name]
    request = request.replace(b"KEY", stage.key.encode())
    async with raw_client(stage.port) as client:
        for number in (1, 3):
            if number == 1:
                await client.send(request)
            else:
                for byte in request:
                    await client.send(bytes([byte]))
            answer = await client.response(number)
            assert answer.status == status
            if status != 200:
                check_error(answer.document, answer.headers, status, KINDS[status])
            if status == 405:
                assert ("GET" if name == "the root" else "POST") in answer.headers["allow"].split(", ")
            await client.send(post(CHAT, BODY, stage.key))
            assert (await client.response(number + 1)).status == 200
        assert client.informational == ([100, 100] if name == "an expectation" else [])


async def test_head_gets_a_head_only(stage: Stage) -> None:
    """The answer to HEAD has the length of a body, but not the body."""
    async with raw_client(stage.port) as client:
        await client.send(head(key=stage.key, method="HEAD") + head("Connection: close", key=stage.key, method="GET"))
        data = await asyncio.wait_for(client.reader.read(-1), 10)
    heads = data.split(b"\r\n\r\n")
    assert heads[0].startswith(b"HTTP/1.1 405 ")
    assert heads[1].startswith(b"HTTP/1.1 405 ")
    assert json.loads(heads[2])["error"]["code"] == 405


async def test_a_length_that_is_too_short_ends_the_connection(stage: Stage) -> None:
    """What stands behind the announced length is the next request, and no good one."""
    async with raw_client(stage.port) as client:
        await client.send(post(CHAT, BODY, stage.key, length=len(BODY) - 9))
        answer = await client.response()
        assert answer.status == 400
        assert "not valid JSON" in check_error(answer.document, answer.headers, 400, "invalid_request")["message"]
        assert await client.closed()
    async with raw_client(stage.port) as client:
        await client.send(post(CHAT, BODY + b"\r\nrubbish", stage.key, length=len(BODY)))
        assert (await client.response()).status == 200
        assert await client.closed()
    await still_serves(stage)


@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0_gets_a_body_that_ends_with_the_connection(stream: bool, stage: Stage) -> None:
    """An old proxy does not know chunks: it gets none, keep-alive or not."""
    body = changed(stream=stream)
    for more in ([], ["Connection: keep-alive"]):
        async with raw_client(stage.port) as client:
            request = head(f"Content-Length: {len(body)}", *more, key=stage.key, version="1.0", host="") + body
            await client.send(request)
            data = await asyncio.wait_for(client.reader.read(-1), 10)
        answer_head, _, rest = data.partition(b"\r\n\r\n")
        assert answer_head.startswith(b"HTTP/1.1 200 ")
        assert b"transfer-encoding" not in answer_head.lower()
        assert b"connection: close" in answer_head.lower()
        if stream:
            assert events(rest)[-1] == "[DONE]"
        else:
            assert json.loads(rest)["choices"][0]["finish_reason"] == "stop"


async def test_pipelined_requests_are_answered_in_their_order(stage: Stage) -> None:
    """Good and bad, native and ASGI, streamed and not: answers come in the order of the requests."""
    requests = [
        post(CHAT, changed(stream=True), stage.key),
        post(CHAT, b"[]", stage.key),
        post("/v1/nothing", BODY, stage.key),
        post(CHAT, BODY, stage.key),
        post(CHAT, BODY, "wrong"),
        head(key=stage.key, method="GET", path="/v1/models"),
        post(CHAT, changed(stream=True), stage.key, "Expect: 100-continue"),
        post(CHAT, BODY, stage.key, "Connection: close"),
    ]
    async with raw_client(stage.port) as client:
        await client.send(b"".join(requests))
        answer = await client.response(len(requests))
        assert [each.status for each in client.responses] == [200, 400, 404, 200, 401, 200, 200, 200]
        assert client.responses[0].headers["content-type"].startswith("text/event-stream")
        assert events(client.responses[6].body)[-1] == "[DONE]"
        assert answer.headers["connection"] == "close"
        assert await client.closed()


async def test_rubbish_behind_a_running_stream_waits_for_its_end(tmp_path: Path) -> None:
    """An answer under way is not broken into by the refusal of what follows, nor by a clock that runs out."""
    async with (
        SimFleet([SimConfig(timing=Timing(itl=0.08), answer_tokens=15)]) as fleet,
        staged(tmp_path, configuration(over(*fleet)), WEIR_HEADER_TIMEOUT="0.5", WEIR_BODY_TIMEOUT="0.5") as stage,
    ):
        half = post(CHAT, BODY, stage.key)[:-10]
        for rest in (b"\0rubbish\r\n\r\n", b"POST /v1/chat", half):
            async with raw_client(stage.port) as client:
                await client.send(post(CHAT, changed(stream=True), stage.key))
                await client.until(b"data: ")
                await client.send(rest)
                answer = await client.response()
                assert events(answer.body)[-1] == "[DONE]"
                if rest is half:  # its clock runs once its turn has come
                    assert (await client.response(2)).status == 408
                assert await client.closed()


@asynccontextmanager
async def impatient(home: Path, limit: float = 0.5) -> AsyncIterator[Stage]:
    """Run a gateway with short time limits for callers, in seconds."""
    seconds = str(limit)
    async with (
        SimFleet([SimConfig()]) as fleet,
        staged(home, configuration(over(*fleet)), WEIR_HEADER_TIMEOUT=seconds, WEIR_BODY_TIMEOUT=seconds) as stage,
    ):
        yield stage


async def trickle(client: RawClient, data: bytes, pause: float) -> None:
    """Send byte by byte until the gateway answers or all is sent."""
    for byte in data:
        try:
            await client.send(bytes([byte]))
            await client.response(seconds=pause)
        except (TimeoutError, ConnectionError):
            continue
        return


async def test_a_request_that_trickles_is_given_up(tmp_path: Path) -> None:
    """A byte now and then does not keep a connection: the clock runs for the head and for the body as a whole."""
    async with impatient(tmp_path) as stage:
        request = post(CHAT, BODY, stage.key)
        split = request.index(b"\r\n\r\n") + 4
        for before, slow in ((b"", request), (request[:split], request[split:])):
            async with raw_client(stage.port) as client:
                await client.send(before)
                await trickle(client, slow, 0.1)
                answer = await client.response()
                assert answer.status == 408
                check_error(answer.document, answer.headers, 408, "timeout")
                assert await client.closed()
        async with raw_client(stage.port) as client:  # and on a path that is not native
            await client.send(post("/api/v1/keys", b"", ADMIN_KEY, length=50) + b"{")
            assert (await client.response()).status == 408
            assert await client.closed()
        async with raw_client(stage.port) as client:  # the same on a kept connection
            await client.send(request)
            assert (await client.response()).status == 200
            await client.send(b"POST ")
            assert (await client.response(2)).status == 408
        async with raw_client(stage.port) as client:  # a connection that says nothing is closed without a word
            assert await client.closed()
        await still_serves(stage)


async def test_a_large_body_that_comes_steadily_is_not_given_up(tmp_path: Path) -> None:
    """The clock of a body runs anew for each piece: a large body on a slow line is no attack."""
    async with impatient(tmp_path, 1.5) as stage:
        body = changed(messages=[{"role": "user", "content": "x" * (BODY_STEP * 5)}])
        async with raw_client(stage.port) as client:
            request = post(CHAT, body, stage.key)
            for start in range(0, len(request), BODY_STEP // 2):
                await client.send(request[start : start + BODY_STEP // 2])
                await asyncio.sleep(0.2)
            answer = await client.response()
            assert answer.status == 200


async def test_an_endless_head_is_431(stage: Stage) -> None:
    """Headers cannot fill the memory, many or long."""
    for line in (b"X-A: b\r\n", b"x" * 8):
        async with raw_client(stage.port) as client:
            await client.send(head(key=stage.key)[:-2] + b"X-Long: ")
            for _ in range(400):
                try:
                    await client.send(line * 512)
                    await client.response(seconds=0.001)
                except TimeoutError:
                    continue
                except ConnectionError:
                    pass
                break
            answer = await client.response()
            assert answer.status == 431
            check_error(answer.document, answer.headers, 431, "invalid_request")
            assert await client.closed()
    await still_serves(stage)
