"""The long tail of APIs, through the library litellm: a pool and connections that look as if they spoke HTTP.

This is the only file that imports the library, and only when the first request for such a backend comes: it takes
seconds and a hundred megabytes. What comes here are the bytes of a request in OpenAI's form; what goes on is the call
of the library with arguments that are known to be harmless. Its answers, chunks and errors leave as an API of OpenAI's
kind would send them, so everything behind sees one more of those. Retries, callbacks, caches, logs and telemetry of the
library are off, and it runs on a loop and a thread of its own (``lane``), whose connections all go through the egress
guard. A caller that does not read stops the reading here; one that leaves cancels the library's task, which closes its
connection.

Links to images are refused: the library would fetch them itself, past the egress guard. Data URLs pass.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gateway.config.snapshot import BackendSpec
from gateway.telemetry import logs
from gateway.types.failure import Cause, Failure
from gateway.upstream.errands import run_errands
from gateway.upstream.lane import JUDGE, lane
from gateway.upstream.litellm_account import PATIENCE_S, Account
from gateway.upstream.litellm_answer import (
    finishes,
    invented_end,
    mend_end,
    overhear,
    plain,
    ranking,
    reported,
    response_of,
    told_status,
    words_of,
)
from gateway.upstream.litellm_request import (
    CHAT,
    EMBEDDINGS,
    RERANK,
    Unfit,
    only,
    refuse_links,
    without_details,
)
from gateway.upstream.wire import AttemptFailed, Receiver, Resolve

_ENVIRONMENT: Final = {
    # Or it asks the network for prices and headers while it is imported, and reads a file .env.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "CRITICAL",
}
_MISSING: Final = re.compile(r"No module named '(\w+)")
_CUT: Final = Failure(Cause.CUT, "the provider ended its answer before it said that it was finished", 200)
_encode: Final = msgspec.json.Encoder().encode
_log: Final = logs.logger(__name__)
_library: list[ModuleType] = []
_clients: list[Any] = []


async def library() -> ModuleType:
    """Return the library, imported now if it was not yet; to be awaited on the lane. Raises ``ImportError``."""
    if not _library:
        _library.append(_load())
    return _library[0]


def _load() -> ModuleType:
    os.environ.update(_ENVIRONMENT)
    import litellm  # noqa: PLC0415 - seconds and a hundred megabytes, which only its own backends pay for

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.drop_params = True
    litellm.modify_params = False
    litellm.cache = None
    litellm.num_retries = 0
    litellm.callbacks = []
    litellm.success_callback, litellm.failure_callback, litellm.input_callback = [], [], []
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
        logger.setLevel(logging.CRITICAL)
    run_errands()
    if find_spec("vertexai") is None:
        # A hundred megabytes of which it only looks whether they are there, before it asks models of others on Vertex.
        sys.modules["vertexai"] = present = module_from_spec(ModuleSpec("vertexai", None))
        present.preview = None  # type: ignore[attr-defined]  # the member that it looks for
    return litellm


class LitellmPool:
    """Stands where a ``gateway.upstream.wire.Pool`` stands for other backends.

    Args:
        backend: of kind litellm.
        loop: the event loop.
        resolve: the egress guard. The host of the backend's URL must pass it before every request, and every address
            that the library connects to for one when it does.

    Attributes:
        account: what its calls are made with.
    """

    __slots__ = ("_resolve", "_url", "account", "host", "loop", "path")

    def __init__(self, backend: BackendSpec, *, loop: asyncio.AbstractEventLoop, resolve: Resolve) -> None:
        self.loop = loop
        self.host = b"litellm"
        self.path = ""
        self.account = Account(backend)
        self._resolve = resolve
        self._url = urlsplit(backend.url)

    def take(self) -> None:
        """Return no idle connection: the library keeps its own."""

    def put(self, connection: LitellmConnection) -> None:
        """Nothing is kept."""

    async def connect(self, limit: float) -> LitellmConnection:
        """Return something to send a request with.

        Raises ``AttemptFailed`` where the guard forbids the host, or does not know it within ``limit`` seconds.
        """
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(limit):
                await self._resolve(self._url.hostname or "", port)
        except TimeoutError:
            words = f"the name service did not answer within {limit:g} s"
            raise AttemptFailed(Failure(Cause.CONNECT, words, sent=False)) from None
        return LitellmConnection(self)

    async def judge(self, host: str, port: int) -> tuple[tuple[str, int], ...]:
        """Ask the guard, which lives on the worker's loop; awaited on the lane."""

        async def asked() -> tuple[tuple[str, int], ...]:
            return await self._resolve(host, port)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked(), self.loop))

    def close(self) -> None:
        """Nothing is open."""


class LitellmConnection:
    """One request through the library; see ``gateway.upstream.wire.Connection`` for what each method is for."""

    __slots__ = ("_begun", "_going", "_lane", "_pool", "_receiver", "_running", "deadline", "fresh", "idle_since")

    def __init__(self, pool: LitellmPool) -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self._running: Future[None] | None = None
        self._lane = lane()
        self._going = asyncio.Event()
        self._going.set()
        self._begun = False
        self.fresh = True
        self.idle_since = 0.0
        self.deadline = 0.0

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Send a whole request; its response goes to ``receiver``."""
        self._receiver = receiver
        self._running = asyncio.run_coroutine_threadsafe(self._run(request), self._lane)

    def detach(self) -> None:
        """Forget the receiver, and end what is still going on."""
        self.abort()

    def abort(self) -> None:
        """End at once; the receiver hears nothing."""
        self._receiver = None
        if self._running is not None:
            self._running.cancel()

    def expire(self) -> None:
        """End at once."""
        self.abort()

    def pause(self) -> None:
        """Stop reading."""
        self._lane.call_soon_threadsafe(self._going.clear)

    def resume(self) -> None:
        """Read again."""
        self._lane.call_soon_threadsafe(self._going.set)

    # What follows runs on the lane, but for what it tells.

    async def _run(self, request: bytes) -> None:
        """Make the call and tell the receiver what comes of it."""
        key: str | None = None
        JUDGE.set(self._pool.judge)
        try:
            head, _, body = request.partition(b"\r\n\r\n")
            path, key = _target(head)
            await self._call(await library(), path, key, json.loads(body))
        except ImportError as error:
            self._lacks((error.name or "").partition(".")[0])
        except Unfit as error:
            self._answer(error.status, {"error": {"message": str(error), "type": "invalid_request_error"}})
        except Exception as error:  # noqa: BLE001 - whatever the library raises is how it says that a call failed
            self._fail(error, key)

    async def _call(self, litellm: ModuleType, path: str, key: str | None, body: dict[str, Any]) -> None:
        model = body["model"]
        arguments = self._pool.account.arguments(key, model)
        if path.endswith("/embeddings"):
            found = await litellm.aembedding(model=model, **arguments, **only(body, EMBEDDINGS))
            self._answer(200, plain(found))
        elif path.endswith("/rerank"):
            found = await litellm.arerank(model=model, **arguments, **only(body, RERANK))
            self._answer(200, ranking(found))
        else:
            refuse_links(body.get("messages"))
            self._pool.account.check(stream=bool(body.get("stream")))
            signed = "claude" in model
            if self._pool.account.overheard:
                arguments = arguments | {"client": _client()}
            asked = only(body, CHAT) | {"messages": [without_details(each, signed) for each in body["messages"]]}
            found = await litellm.acompletion(model=model, **arguments, **asked)
            if body.get("stream"):
                await self._stream(found, signed)
            else:
                document = plain(found, signed=signed)
                mend_end(document, called=False)
                self._answer(200, document)

    async def _stream(self, chunks: Any, signed: bool) -> None:
        """Pass chunks on as they come, and close the connection that they come from whatever happens."""
        fetch = getattr(chunks, "fetch_stream", None)
        if fetch is not None and getattr(chunks, "completion_stream", chunks) is None:
            await fetch()  # some providers are asked only with the first step otherwise
        response = response_of(chunks)
        called = False
        try:
            self._tell_head(200, [(b"content-type", b"text/event-stream")])
            async for chunk in chunks:
                document = plain(chunk, signed=signed)
                if finishes(document) and invented_end(chunks, response):
                    self._post(lambda receiver: receiver.lost(_CUT))
                    return
                called = mend_end(document, called)
                if "usage" in document and not reported(chunks):
                    del document["usage"]
                self._tell(b"data: %b\n\n" % _encode(document))
                await self._going.wait()
            self._tell(b"data: [DONE]\n\n")
            self._tell_end()
        finally:
            if response is not None:
                with suppress(Exception):
                    await response.aclose()

    def _post(self, tell: Callable[[Receiver], None]) -> None:
        """Have ``tell`` called with the receiver, on the worker's loop, unless nobody receives any more."""

        def told() -> None:
            if self._receiver is not None:
                tell(self._receiver)

        self._pool.loop.call_soon_threadsafe(told)

    def _tell_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._begun = True
        self._post(lambda receiver: receiver.head(status, headers))

    def _tell(self, data: bytes) -> None:
        self._post(lambda receiver: receiver.data(data))

    def _tell_end(self) -> None:
        self._post(lambda receiver: receiver.end())

    def _answer(self, status: int, document: dict[str, Any], headers: Mapping[bytes, bytes] | None = None) -> None:
        self._tell_head(status, [(b"content-type", b"application/json"), *(headers or {}).items()])
        self._tell(_encode(document))
        self._tell_end()

    def _lacks(self, package: str) -> None:
        """Say that ``package`` is not installed."""
        _log.warning("a backend of kind litellm needs a package that is not installed", package=package or "litellm")
        message = "the library litellm is not installed"
        if package not in {"", "litellm"}:
            message = f"the library litellm needs the package {package}, which is not installed"
        self._answer(501, {"error": {"message": message, "type": "server_error"}})

    def _fail(self, error: Exception, key: str | None) -> None:
        """Say an error of the library as an API would, or as the break of a connection."""
        name = type(error).__name__
        status = told_status(error) if name == "APIConnectionError" else getattr(error, "status_code", None)
        response = getattr(error, "response", None)
        words = self._pool.account.discreet(words_of(error), key)[:2_000]
        if name == "ContextWindowExceededError":
            words = f"context window exceeded: {words}"
        if self._begun:
            self._tell(b"data: %b\n\n" % _encode({"error": {"message": words, "type": name, "code": status or 500}}))
            return
        missing = _MISSING.search(words)
        if missing is not None:
            self._lacks(missing[1])
            return
        if name == "Timeout" or not isinstance(status, int):
            known = name in {"APIConnectionError", "Timeout"}
            if not known:
                _log.warning("a call through litellm failed", kind=name)
            failure = Failure(Cause.CONNECT if known else Cause.ERROR, f"no answer through litellm: {name}")
            self._post(lambda receiver: receiver.lost(failure))
            return
        headers: dict[bytes, bytes] = {}
        wait = getattr(response, "headers", {}).get("retry-after") if response is not None else None
        wait = wait or (getattr(error, "litellm_response_headers", None) or {}).get("retry-after")
        if isinstance(wait, str) and wait.isdigit():
            headers[b"retry-after"] = wait.encode("ascii")
        self._answer(status, {"error": {"message": words, "type": name}}, headers)


def _client() -> Any:
    """Return the library's HTTP client, with ears (``gateway.upstream.litellm_answer.overhear``); its connections stay.

    Made on the lane.
    """
    if not _clients:
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler  # noqa: PLC0415 - it is imported by now

        _clients.append(AsyncHTTPHandler(timeout=PATIENCE_S, event_hooks={"response": [overhear]}))
    return _clients[0]


def _target(head: bytes) -> tuple[str, str | None]:
    """Return the path of a request and the key it presents."""
    first, *lines = head.split(b"\r\n")
    key = None
    for line in lines:
        name, _, value = line.partition(b": ")
        if name.lower() == b"authorization":
            key = value.removeprefix(b"Bearer ").decode("ascii")
    return first.split(b" ")[1].decode("ascii"), key
