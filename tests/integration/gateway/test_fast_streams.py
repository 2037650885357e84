"""Streams whose pieces take the fast path (decision 43), over real sockets: what else may happen to an answer."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.upstream.attempt import Attempt
from gateway.upstream.fast_path import FastPath
from gateway.upstream.wire import Connection
from tests.fakes.backend import (
    DONE,
    LAST,
    SSE_HEAD,
    HandBackend,
    Script,
    Visit,
    chunk,
    hand_backend,
    usage_chunk,
)
from tests.fakes.pair import attempts, pair, said
from tests.fakes.raw_client import events, post, raw_client, text_of
from tests.harness import Backend, chat_body, configuration, staged

ROUNDS = 40
WORDS = [f" w{number}é" for number in range(ROUNDS)]
ESTIMATED = -(-len("".join(WORDS).encode()) // 4)
"""Their tokens where nobody has counted them."""
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the reads that come by the fast path from now on."""
    reads: list[bytes] = []
    really: Callable[[FastPath, bytes], None] = FastPath.data_received

    def data_received(path: FastPath, data: bytes) -> None:
        reads.append(data)
        really(path, data)

    monkeypatch.setattr(FastPath, "data_received", data_received)
    return reads


def event(document: object) -> bytes:
    """Return an event, its letters as they are."""
    return b"data: %b\n\n" % json.dumps(document, ensure_ascii=False).encode()


def counted(words: str, tokens: int) -> dict[str, Any]:
    """Return a piece of text with the usage so far."""
    usage = {"prompt_tokens": 9, "total_tokens": 9 + tokens, "completion_tokens": tokens}
    return chunk(words) | {"usage": usage}


async def drip(visit: Visit, words: list[str] = WORDS, *, usage: bool = False, pause: float = 0.002) -> None:
    """Send ``words`` in one read each."""
    for number, each in enumerate(words, start=1):
        await visit.events(event(counted(each, number) if usage else chunk(each)))
        await asyncio.sleep(pause)


async def answer(visit: Visit) -> None:
    """Give a whole answer, a piece to a read."""
    await visit.send(SSE_HEAD)
    await drip(visit)
    await visit.events(event(chunk(finish="stop")), event(usage_chunk(ROUNDS)), DONE, last=True)


def one(backend: HandBackend, kind: str = "vllm", more: str = "") -> str:
    """Return a configuration with one backend."""
    return configuration([Backend("only", backend.url, kind, more=more)])


@asynccontextmanager
async def secure_backend(folder: Path, script: Script) -> AsyncIterator[HandBackend]:
    """Run a backend behind TLS, whose certificate is in ``folder``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "all.pem").write_bytes(private + pem)
    (folder / "certificate.pem").write_bytes(pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "all.pem")
    backend = HandBackend(script)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0, limit=1 << 20, ssl=context)
    backend.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield backend
    finally:
        server.close()
        await backend.stop()


async def test_one_connection_carries_one_fast_stream_after_another(tmp_path: Path, taken: list[bytes]) -> None:
    """The connection is pooled as it was, and read by itself again."""
    async with hand_backend(answer) as backend, staged(tmp_path, one(backend)) as stage:
        for number in range(1, 6):
            assert said(await stage.chat(STREAM), stream=True) == "".join(WORDS)
            assert len(taken) > number * (ROUNDS // 2)
        whole = await stage.chat()
        assert said(whole, stream=False) == "".join(WORDS)
        assert backend.connections == 2  # a probe has its own


@pytest.mark.parametrize("how", ["ends", "resets", "ends behind a piece", "leaves"])
async def test_tls_takes_it_too(how: str, tmp_path: Path, taken: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport of TLS is another one: its end, its break and the caller's leaving are told as on TCP."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await drip(visit)
        if how == "ends":
            await visit.events(event(chunk(finish="stop")), event(usage_chunk(ROUNDS)), DONE, last=True)
        elif how == "resets":
            visit.writer.transport.abort()
        elif how == "ends behind a piece":
            visit.writer.close()
        else:
            await visit.gone.wait()

    async with secure_backend(tmp_path, script) as backend, staged(tmp_path / "home", one(backend)) as stage:
        if how == "leaves":
            async with raw_client(stage.port) as client:
                await client.send(post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key))
                await client.until(WORDS[-1].encode())
            await asyncio.wait_for(backend.visits[0].gone.wait(), 1)
        else:
            for _ in range(2):
                found = events((await stage.chat(STREAM)).content)
                assert text_of([each for each in found if each == "[DONE]" or "error" not in each]) == "".join(WORDS)
                assert (found[-1] == "[DONE]") is (how == "ends")
        assert len(taken) > ROUNDS // 2
        (record,) = await stage.settled()
        assert record.attempts[0].usage.completion == (ROUNDS if how == "ends" else ESTIMATED)


@pytest.mark.parametrize("how", ["resets", "ends", "stalls", "is malformed", "cuts a piece", "reports an error"])
@pytest.mark.parametrize("usage", [False, True])
async def test_another_replica_goes_on_behind_the_last_piece(
    how: str, usage: bool, tmp_path: Path, taken: list[bytes]
) -> None:
    """What passed is known to the character when the break comes."""

    async def breaking(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await drip(visit, usage=usage)
        if how == "resets":
            visit.writer.transport.abort()
        elif how == "ends":
            await visit.send(LAST)
        elif how == "stalls":
            await visit.gone.wait()
        elif how == "is malformed":
            await visit.events(b"data: {]}\n\n")
        elif how == "reports an error":
            await visit.events(event({"error": {"message": "died", "code": 500}}))
        else:
            await visit.send(b"fff\r\n" + event(chunk("never"))[:20])
            visit.writer.close()

    async def following(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await drip(visit, [" and", *[" so"] * 20], pause=0.001)
        await visit.events(event(chunk(finish="stop")), event(usage_chunk(21)), DONE, last=True)

    limits = "timeouts: {connect: 5, first_byte: 5, idle: 0.5}"
    async with (
        hand_backend(breaking) as first,
        hand_backend(following) as second,
        staged(tmp_path, pair(first.url, second.url, more=limits)) as stage,
    ):
        reply = await stage.chat(STREAM)
        assert said(reply, stream=True) == "".join(WORDS) + " and" + " so" * 20
        assert second.visits[0].document["messages"][-1]["content"] == "".join(WORDS)
        assert [each[0] for each in await attempts(stage, reply)] == ["first", "second"]
        (record,) = await stage.settled()
        assert [row.usage.completion for row in record.attempts] == [ROUNDS if usage else ESTIMATED, 21]
        report = await stage.keeper.audit()
        assert report.ok, report.mismatches
    assert len(taken) > ROUNDS // 2


async def test_what_was_thought_is_known_too(tmp_path: Path, taken: list[bytes]) -> None:
    """A continuation is given the reasoning, of which all but the beginning passed."""

    async def breaking(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for each in WORDS:
            piece = chunk("x")
            piece["choices"][0]["delta"] = {"reasoning_content": each}
            await visit.events(event(piece))
            await asyncio.sleep(0.002)
        await drip(visit)
        visit.writer.transport.abort()

    async def following(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await drip(visit, [" so"])
        await visit.events(event(chunk(finish="stop")), event(usage_chunk(1)), DONE, last=True)

    async with (
        hand_backend(breaking) as first,
        hand_backend(following) as second,
        staged(tmp_path, pair(first.url, second.url)) as stage,
    ):
        assert said(await stage.chat(STREAM), stream=True) == "".join(WORDS) + " so"
        last = second.visits[0].document["messages"][-1]
        assert json.dumps(last, ensure_ascii=False).count("".join(WORDS)) == 2
    assert len(taken) > ROUNDS


async def test_a_caller_that_leaves_ends_it_at_once_and_pays_for_what_came(tmp_path: Path, taken: list[bytes]) -> None:
    """The backend sees it within 100 ms; the ledger has each piece."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await drip(visit, usage=True)
        await visit.gone.wait()

    async with hand_backend(script) as backend, staged(tmp_path, one(backend)) as stage:
        async with raw_client(stage.port) as client:
            await client.send(post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key))
            await client.until(WORDS[-1].encode())
            before = asyncio.get_running_loop().time()
        await asyncio.wait_for(backend.visits[0].gone.wait(), 5)
        assert backend.visits[0].gone_at - before < 0.1
        (record,) = await stage.settled()
        assert (record.attempts[0].usage.completion, record.attempts[0].usage.prompt) == (ROUNDS, 9)
    assert len(taken) > ROUNDS // 2


async def test_a_backend_that_bills_on_is_read_to_its_end(tmp_path: Path, taken: list[bytes]) -> None:
    """Behind a caller that left: every piece is counted, and the connection is kept."""
    more = "on_disconnect: drain"
    async with hand_backend(answer) as backend, staged(tmp_path, one(backend, more=more)) as stage:
        async with raw_client(stage.port) as client:
            await client.send(post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key))
            await client.until(WORDS[10].encode())
        (record,) = await stage.settled()
        assert record.attempts[0].usage.completion == ROUNDS
        assert said(await stage.chat(STREAM), stream=True) == "".join(WORDS)
        assert backend.connections == 2
    assert taken


@pytest.mark.parametrize("secure", [False, True])
async def test_a_caller_that_rests_and_comes_back_misses_nothing(
    secure: bool, tmp_path: Path, taken: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend is paused for as long, past its idle limit; then every piece is there once, in its order."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    pieces, sent = 2500, 0

    async def script(visit: Visit) -> None:
        nonlocal sent
        await visit.send(SSE_HEAD)
        for number in range(pieces):
            await visit.events(event(counted(f" {number:04d}" + "x" * 8000, number + 1)))
            sent = number + 1
            await asyncio.sleep(0.001)
        await visit.events(event(chunk(finish="stop")), event(usage_chunk(pieces)), DONE, last=True)

    limits = "timeouts: {connect: 5, first_byte: 5, idle: 0.5}"
    backends = secure_backend(tmp_path, script) if secure else hand_backend(script)
    async with backends as backend, staged(tmp_path / "home", one(backend, more=limits)) as stage:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.connect(("127.0.0.1", stage.port))
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key))
        got, before = bytearray(), -1
        try:
            while before < sent or not sent:
                before = sent
                await asyncio.sleep(0.1)
            fast = len(taken)
            assert 2 < sent < pieces
            assert fast > sent // 4
            await asyncio.sleep(0.8)
            assert len(taken) == fast
            async with asyncio.timeout(20):
                while not got.endswith(b"0\r\n\r\n"):
                    part = await reader.read(1 << 18)
                    assert part, got[-300:]
                    got += part
        finally:
            writer.transport.abort()
        assert [int(each) for each in re.findall(rb'" ([0-9]{4})x{8000}"', got)] == list(range(pieces))
        assert got.count(b"chat.completion.chunk") == pieces + 1
        (record,) = await stage.settled()
        assert record.attempts[0].usage.completion == pieces
    assert len(taken) > fast


@pytest.mark.parametrize("tail", ["rubbish", "a second answer", "a piece", "nothing"])
async def test_what_comes_behind_the_end_harms_nobody(tail: str, tmp_path: Path, taken: list[bytes]) -> None:
    """Whatever a backend says behind a whole answer, in the same read or later: the next answer is its own."""

    async def script(visit: Visit) -> None:
        more = {
            "rubbish": b"zzzz\r\n\r\n",
            "a second answer": SSE_HEAD + LAST,
            "a piece": b"5\r\nhello\r\n",
            "nothing": b"",
        }[tail]
        await visit.send(SSE_HEAD)
        await drip(visit)
        end = event(chunk(finish="stop")) + DONE
        await visit.send(b"%x\r\n%b\r\n" % (len(end), end) + LAST + more)

    async with hand_backend(script) as backend, staged(tmp_path, one(backend)) as stage:
        for _ in range(3):
            assert said(await stage.chat(STREAM), stream=True) == "".join(WORDS)
        assert (backend.connections == 2) is (tail == "nothing")
    assert taken


async def test_words_behind_the_finish_are_not_shown_before_it(tmp_path: Path, taken: list[bytes]) -> None:
    """The finish waits for the disk; what an engine says all the same behind it does not overtake it."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await drip(visit)
        await visit.events(event(chunk(finish="stop")))
        await asyncio.sleep(0.01)
        await drip(visit, [" late"] * 3)
        await visit.events(event(usage_chunk(ROUNDS + 3)), DONE, last=True)

    async with hand_backend(script) as backend, staged(tmp_path, one(backend)) as stage:
        content = (await stage.chat(STREAM)).content
        assert 0 < content.find(b'"stop"') < content.find(b" late")
    assert taken


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/chat/completions"])
async def test_every_dialect_says_all_of_it(path: str, tmp_path: Path, taken: list[bytes]) -> None:
    """Replies in another form than OpenAI's go the long way."""
    body: dict[str, Any] = chat_body() | {"stream": True, "max_tokens": 500}
    if path == "/v1/responses":
        body = {"model": body["model"], "input": "x", "stream": True}
    async with hand_backend(answer) as backend, staged(tmp_path, one(backend)) as stage:
        found = await stage.http.post(stage.url + path, json=body, headers=stage.headers)
        assert found.status_code == 200, found.text
        for word in WORDS:
            assert f'"{word}"' in found.text
        (record,) = await stage.settled()
        assert record.attempts[0].usage.completion == ROUNDS
    assert bool(taken) is (path == "/v1/chat/completions")


async def test_a_caller_that_knows_no_pieces_has_the_words_alone(tmp_path: Path, taken: list[bytes]) -> None:
    """To HTTP/1.0 the body is sent without sizes."""
    async with hand_backend(answer) as backend, staged(tmp_path, one(backend)) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        asked = post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key)
        writer.write(asked.replace(b"HTTP/1.1", b"HTTP/1.0"))
        got = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        head, _, rest = got.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert all(line.startswith(b"data: ") for line in rest.split(b"\n\n")[:-1])
        assert text_of(events(rest)) == "".join(WORDS)
    assert not taken


async def test_of_a_fast_stream_that_ended_nothing_is_left(tmp_path: Path, taken: list[bytes]) -> None:
    """It does not wait for the garbage collector: a stream that was left, and one that broke."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await drip(visit)
        if len(backend.visits) == 1:
            await visit.gone.wait()
        visit.writer.transport.abort()

    def alive() -> list[str]:
        return [type(each).__name__ for each in gc.get_objects() if isinstance(each, FastPath | Attempt | Connection)]

    async with hand_backend(script) as backend, staged(tmp_path, one(backend, "openai")) as stage:
        gc.collect()
        gc.disable()
        try:
            async with raw_client(stage.port) as client:
                await client.send(post("/v1/chat/completions", chat_body() | {"stream": True}, stage.key))
                await client.until(WORDS[-1].encode())
                assert "FastPath" in alive()
            await stage.settled()
            await stage.chat(STREAM)
            async with asyncio.timeout(10):
                while alive():
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()
    assert taken
