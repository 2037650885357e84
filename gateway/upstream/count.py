"""Counting the tokens of a prompt where its answer would be made, without making one.

Where an engine counts texts but renders no chat, the texts are counted and the template is estimated. Nothing here
raises but the cancellation of who waits: a backend that cannot count, or not now, gives None, and the caller of this
falls back to an estimate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from gateway.engines.thinking import ask_to_think
from gateway.fleet.snapshot import Candidate
from gateway.types.call import Call
from gateway.types.dialect import Dialect
from gateway.types.errors import BadRequest
from gateway.types.failure import Failure
from gateway.upstream.anthropic_request import messages_body
from gateway.upstream.backends import Upstream
from gateway.upstream.openai import decode
from gateway.upstream.wire import AttemptFailed

_encode: Final = msgspec.json.Encoder().encode
LIMIT_S: Final = 5.0
"""Seconds until an estimate has to do."""
MAX_PAGE: Final = 64 * 1024 * 1024
_COUNTED: Final = frozenset(
    {
        "cache_control",
        "context_management",
        "mcp_servers",
        "messages",
        "output_config",
        "output_format",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
"""Members of a Messages request that say what is read."""
_TEMPLATE: Final = (
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "reasoning",
    "reasoning_effort",
)
"""Members of a chat that say what is read."""
TOKENS_PER_MESSAGE: Final = 4
"""What a chat template adds around each message, roughly."""
TOKENS_PER_IMAGE: Final = 1024


class Count(NamedTuple):
    """How many tokens a prompt has.

    Attributes:
        tokens: how many.
        exact: whether its reader said so of the very prompt; if not, part of it is estimated.
    """

    tokens: int
    exact: bool


async def count(upstream: Upstream, candidate: Candidate, call: Call) -> Count | None:
    """Return the tokens of the prompt of ``call`` as ``candidate`` counts them, or None when it does not say."""
    try:
        async with asyncio.timeout(LIMIT_S):
            if candidate.replica.engine.counter == "texts":
                return await _estimated(upstream, candidate, call.body)
            tokens = await _counted(upstream, candidate, call)
            return None if tokens is None else Count(tokens, exact=True)
    except (TimeoutError, AttemptFailed, BadRequest):
        return None


async def most(upstream: Upstream, steps: Sequence[Candidate], call: Call) -> int | None:
    """Return the most tokens that an endpoint of ``steps`` counts, or None when one of them does not count exactly.

    Of replicas of one endpoint that run the same engine, one speaks for all.
    """
    asked = {(step.endpoint.model_id, step.endpoint.slug, step.replica.backend.kind): step for step in reversed(steps)}
    found = await asyncio.gather(*(count(upstream, step, call) for step in asked.values()))
    exact = [each.tokens for each in found if each is not None and each.exact]
    return max(exact) if exact and len(exact) == len(asked) else None


async def _estimated(upstream: Upstream, candidate: Candidate, body: Mapping[str, Any]) -> Count | None:
    """Return the tokens of all texts of a chat, with what its template and images add, about."""
    texts, images = texts_of(body)
    asked = {"model": candidate.upstream_model, "prompt": texts, "add_special_tokens": False}
    page = await ask(upstream, candidate, "/tokenize", asked)
    counts = page.get("count") if page is not None else None
    if not isinstance(counts, list) or not all(type(each) is int and each >= 0 for each in counts):
        return None
    around = TOKENS_PER_MESSAGE * len(body["messages"]) + TOKENS_PER_IMAGE * images
    return Count(sum(counts) + around, exact=False)


def texts_of(body: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return all texts that a chat has its model read, and the number of its images."""
    texts: list[str] = []
    images = 0
    for message in body["messages"]:
        for name in ("content", "name", "tool_calls"):
            value = message.get(name)
            if isinstance(value, str):
                texts.append(value)
            elif name == "tool_calls" and value:
                texts.append(_encode(value).decode())
            elif isinstance(value, list):
                said = [part.get("text") for part in value if isinstance(part, dict)]
                texts += [text for text in said if isinstance(text, str)]
                images += sum(isinstance(part, dict) and part.get("type") == "image_url" for part in value)
    if body.get("tools"):
        texts.append(_encode(body["tools"]).decode())
    return texts, images


async def _counted(upstream: Upstream, candidate: Candidate, call: Call) -> int | None:
    replica = candidate.replica
    if replica.engine.counter == "messages":
        if call.dialect is Dialect.MESSAGES and call.native is not None:
            body = {name: value for name, value in call.native.items() if name in _COUNTED}
        else:
            said = messages_body(call.body, model="", max_tokens=2**20, stream=False)
            body = {name: value for name, value in said.items() if name in _COUNTED}
        body["model"] = candidate.upstream_model
        page = await ask(upstream, candidate, "/v1/messages/count_tokens", body)
        return _number(page, "input_tokens")
    chat: dict[str, Any] = {name: call.body[name] for name in _TEMPLATE if name in call.body}
    if replica.engine.thinking is not None:
        ask_to_think(chat, "", "")  # a template that is to think, or not to, says so in tokens
    for name in ("reasoning", "reasoning_effort"):
        chat.pop(name, None)
    if replica.engine.counter == "tokenize":
        chat["model"] = candidate.upstream_model
        page = await ask(upstream, candidate, "/tokenize", chat)
        return _number(page, "count")
    if replica.engine.counter == "chat_tokenize":
        page = await ask(upstream, candidate, "/chat_tokenize", {**chat, "model": candidate.upstream_model})
        tokens = page.get("tokenize_response") if page is not None else None
        return len(tokens) if isinstance(tokens, list) else None
    if replica.engine.counter == "template":
        page = await ask(upstream, candidate, "/apply-template", chat)
        prompt = page.get("prompt") if page is not None else None
        if not isinstance(prompt, str):
            return None
        page = await ask(upstream, candidate, "/tokenize", {"content": prompt, "add_special": True})
        tokens = page.get("tokens") if page is not None else None
        return len(tokens) if isinstance(tokens, list) else None
    return None


async def ask(upstream: Upstream, candidate: Candidate, path: str, document: object) -> dict[str, Any] | None:
    """Post ``document`` to a backend's ``path``; return the JSON object it answers with 200, else None.

    Raises:
        AttemptFailed: there is no connection.
    """
    pool = upstream.pool(candidate)
    connection = pool.take() or await pool.connect(candidate.replica.backend.timeouts.connect)
    page = _Page(asyncio.get_running_loop())
    try:
        connection.send(upstream.question(candidate, path, document), page)
        body = await page.whole
    except BaseException:
        connection.abort()
        raise
    connection.detach()
    return None if body is None else decode(body)


def _number(page: dict[str, Any] | None, name: str) -> int | None:
    value = page.get(name) if page is not None else None
    return value if type(value) is int and value >= 0 else None


class _Page:
    """Collects one answer (see ``gateway.upstream.wire.Receiver``)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.whole: asyncio.Future[bytes | None] = loop.create_future()
        self._status = 0
        self._parts: list[bytes] = []
        self._size = 0

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:  # noqa: ARG002 - as of Receiver
        self._status = status

    def data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_PAGE:
            self._parts.append(data)

    def end(self) -> None:
        good = self._status == 200 and self._size <= MAX_PAGE
        self._done(b"".join(self._parts) if good else None)

    def lost(self, failure: Failure) -> None:  # noqa: ARG002 - as of Receiver
        self._done(None)

    def _done(self, body: bytes | None) -> None:
        if not self.whole.done():
            self.whole.set_result(body)
