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
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gateway.config.snapshot import BackendSpec
from gateway.telemetry import logs
from gateway.types.failure import Cause, Failure
from gateway.upstream.lane import JUDGE, lane
from gateway.upstream.wire import Receiver, Resolve

_ENVIRONMENT: Final = {
    # Or it asks the network for prices and headers while it is imported, and reads a file .env.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "CRITICAL",
}
_CHAT: Final = frozenset(
    {
        *("messages", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "modalities", "n", "seed", "stop"),
        *("parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort", "response_format", "stream"),
        *(
            "stream_options",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_logprobs",
            "top_p",
            "user",
        ),
        *("functions", "function_call", "verbosity", "service_tier"),
    }
)
_EMBEDDINGS: Final = frozenset({"input", "dimensions", "encoding_format", "user"})
_RERANK: Final = frozenset({"query", "documents", "top_n", "return_documents"})
_MEMBERS: Final = ("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "data", "results")
_SAID: Final = ("role", "content", "tool_calls", "function_call", "refusal", "reasoning_content", "audio", "images")
_PATIENCE_S: Final = 3_600.0
"""Seconds that the library may take; the gateway's own limits strike long before."""
_DEPTH: Final = 7
"""Steps from the library's stream to its response."""
_MISSING: Final = re.compile(r"\ANo module named '(\w+)")
_LINKS: Final = ("http:", "https:", "gs:", "s3:", "file:")
_encode: Final = msgspec.json.Encoder().encode
_log: Final = logs.logger(__name__)
_library: list[ModuleType] = []


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
    return litellm


class LitellmPool:
    """Stands where a ``gateway.upstream.wire.Pool`` stands for other backends.

    Args:
        backend: of kind litellm.
        loop: the event loop.
        resolve: the egress guard. The host of the backend's URL must pass it before every request, and every address
            that the library connects to for one when it does.
    """

    __slots__ = ("_arguments", "_backend", "_resolve", "_secrets", "_url", "host", "loop", "path")

    def __init__(self, backend: BackendSpec, *, loop: asyncio.AbstractEventLoop, resolve: Resolve) -> None:
        spec = backend.litellm
        assert spec is not None
        self.loop = loop
        self.host = b"litellm"
        self.path = ""
        self._backend = backend
        self._resolve = resolve
        self._url = urlsplit(backend.url)
        held = [*spec.credentials.values(), *([backend.api_key] if backend.api_key is not None else [])]
        self._secrets = [secret.reveal() for secret in held]
        self._arguments: dict[str, Any] = {
            "custom_llm_provider": spec.provider,
            "num_retries": 0,
            "max_retries": 0,
            "timeout": _PATIENCE_S,
            "caching": False,
            "drop_params": True,
            **spec.settings,
            **{name: secret.reveal() for name, secret in spec.credentials.items()},
        }
        if spec.own_url:
            self._arguments["api_base"] = backend.url

    def take(self) -> None:
        """Return no idle connection: the library keeps its own."""

    def put(self, connection: LitellmConnection) -> None:
        """Nothing is kept."""

    async def connect(self, limit: float) -> LitellmConnection:
        """Return something to send a request with. Raises ``AttemptFailed`` where the guard forbids the host."""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        async with asyncio.timeout(limit):
            await self._resolve(self._url.hostname or "", port)
        return LitellmConnection(self)

    async def judge(self, host: str, port: int) -> tuple[tuple[str, int], ...]:
        """Ask the guard, which lives on the worker's loop; awaited on the lane."""

        async def asked() -> tuple[tuple[str, int], ...]:
            return await self._resolve(host, port)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked(), self.loop))

    def arguments(self, key: str | None) -> dict[str, Any]:
        """Return the arguments of every call; ``key`` is what the request is made with."""
        return self._arguments if key is None else self._arguments | {"api_key": key}

    def discreet(self, words: str, key: str | None) -> str:
        """Return ``words`` of an error without secrets."""
        for secret in (*self._secrets, key or ""):
            if secret:
                words = words.replace(secret, "…")
        return words

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
        except ImportError:
            self._answer(501, {"error": {"message": "the library litellm is not installed", "type": "server_error"}})
        except _Refused as error:
            self._answer(400, {"error": {"message": str(error), "type": "invalid_request_error"}})
        except Exception as error:  # noqa: BLE001 - whatever the library raises is how it says that a call failed
            self._fail(error, key)

    async def _call(self, litellm: ModuleType, path: str, key: str | None, body: dict[str, Any]) -> None:
        arguments = self._pool.arguments(key)
        model = body["model"]
        if path.endswith("/embeddings"):
            found = await litellm.aembedding(model=model, **arguments, **_only(body, _EMBEDDINGS))
            self._answer(200, _plain(found))
        elif path.endswith("/rerank"):
            found = await litellm.arerank(model=model, **arguments, **_only(body, _RERANK))
            self._answer(200, _ranking(found))
        else:
            _refuse_links(body.get("messages"))
            found = await litellm.acompletion(model=model, **arguments, **_only(body, _CHAT))
            if body.get("stream"):
                await self._stream(found)
            else:
                self._answer(200, _plain(found))

    async def _stream(self, chunks: Any) -> None:
        """Pass chunks on as they come, and close the connection that they come from whatever happens."""
        fetch = getattr(chunks, "fetch_stream", None)
        if fetch is not None and getattr(chunks, "completion_stream", chunks) is None:
            await fetch()  # some providers are asked only with the first step otherwise
        response = _response_of(chunks)
        try:
            self._tell_head(200, [(b"content-type", b"text/event-stream")])
            async for chunk in chunks:
                self._tell(b"data: %b\n\n" % _encode(_plain(chunk)))
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

    def _fail(self, error: Exception, key: str | None) -> None:
        """Say an error of the library as an API would, or as the break of a connection."""
        status = getattr(error, "status_code", None)
        response = getattr(error, "response", None)
        name = type(error).__name__
        words = self._pool.discreet(_words(error), key)[:2_000]
        if self._begun:
            self._tell(b"data: %b\n\n" % _encode({"error": {"message": words, "type": name, "code": status or 500}}))
            return
        missing = _MISSING.search(words)
        if missing is not None:
            _log.warning("a provider of litellm needs a package that is not installed", package=missing[1])
            message = f"the library litellm needs the package {missing[1]}, which is not installed"
            self._answer(501, {"error": {"message": message, "type": "server_error"}})
            return
        if name in {"APIConnectionError", "Timeout"} or not isinstance(status, int):
            known = isinstance(status, int)
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


class _Refused(Exception):
    """The request is not one for the library."""


def _target(head: bytes) -> tuple[str, str | None]:
    """Return the path of a request and the key it presents."""
    first, *lines = head.split(b"\r\n")
    key = None
    for line in lines:
        name, _, value = line.partition(b": ")
        if name.lower() == b"authorization":
            key = value.removeprefix(b"Bearer ").decode("ascii")
    return first.split(b" ")[1].decode("ascii"), key


def _only(body: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return the arguments in ``body`` that have a value and are known to be harmless."""
    return {name: value for name, value in body.items() if name in names and value is not None}


def _refuse_links(messages: Any) -> None:
    """Refuse parts of messages that the library would fetch from somewhere. Raises ``_Refused``."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if _links(part):
                raise _Refused("this backend takes no links in messages: send the file itself, as a data: URL")


def _links(value: Any, depth: int = 0) -> bool:
    """Whether a part holds a link; text is looked at only where it is no text of the message."""
    if isinstance(value, str):
        return value.lstrip().lower().startswith(_LINKS)
    if isinstance(value, dict) and depth < 4:
        return any(_links(each, depth + 1) for name, each in value.items() if name != "text")
    return False


def _plain(found: Any) -> dict[str, Any]:
    """Return an answer or a chunk of the library with the members that OpenAI's API has."""
    document: dict[str, Any] = found.model_dump(exclude_none=True)
    kept: dict[str, Any] = {name: document[name] for name in _MEMBERS if name in document}
    for choice in kept.get("choices", ()):
        for part in ("delta", "message"):
            if part in choice:
                choice[part] = {name: choice[part][name] for name in _SAID if choice[part].get(name) not in (None, [])}
        choice.pop("provider_specific_fields", None)
    _name_writes(kept.get("usage"))
    return kept


def _name_writes(usage: Any) -> None:
    """Say how many tokens were written to a cache, and how many of them for an hour, as APIs of OpenAI's kind do."""
    prompt = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    if not isinstance(prompt, dict):
        return
    written = prompt.get("cache_creation_tokens") or usage.get("cache_creation_input_tokens")
    if written:
        prompt["cache_write_tokens"] = written
    kept = prompt.get("cache_creation_token_details")
    if isinstance(kept, dict) and kept.get("ephemeral_1h_input_tokens"):
        prompt["cache_write_1h_tokens"] = kept["ephemeral_1h_input_tokens"]


def _ranking(found: Any) -> dict[str, Any]:
    """Return a ranking with the tokens that the provider counted, if it did."""
    document: dict[str, Any] = found.model_dump(exclude_none=True)
    meta = document.get("meta") or {}
    tokens = meta.get("tokens") or {}
    billed = meta.get("billed_units") or {}
    counted = tokens.get("input_tokens") or billed.get("total_tokens")
    kept: dict[str, Any] = {"id": document.get("id", ""), "results": document.get("results") or []}
    if counted:
        kept["usage"] = {"total_tokens": counted}
    if billed.get("search_units"):
        kept["search_units"] = billed["search_units"]
    return kept


def _words(error: Exception) -> str:
    """Return what an error says, without the library's own name in front."""
    words = str(getattr(error, "message", None) or error)
    return words.removeprefix("litellm.").removeprefix(f"{type(error).__name__}: ")


def _response_of(chunks: Any) -> Any:
    """Return the response that the library's stream reads from, or None when it cannot be found.

    The library hands no handle to it out, and differs from provider to provider in where it keeps it: somewhere among
    the members of its iterators, or in the frame of a generator of httpx that has not begun. Afterwards it is too late:
    a generator that was cancelled has no frame any more.
    """
    import httpx  # noqa: PLC0415 - the library has it; a worker without such backends does without

    seen: set[int] = set()
    level: list[Any] = [chunks]
    for _ in range(_DEPTH):
        following: list[Any] = []
        for each in level:
            if isinstance(each, httpx.Response):
                return each
            if id(each) not in seen:
                seen.add(id(each))
                frame = getattr(each, "ag_frame", None) or getattr(each, "gi_frame", None)
                following += frame.f_locals.values() if frame is not None else getattr(each, "__dict__", {}).values()
        level = following
    return None
