"""Counting the tokens of a prompt where its answer would be made, without making one.

Nothing here raises but the cancellation of who waits: a backend that cannot count, or not now, gives None, and the
caller of this falls back to an estimate.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gateway.fleet.snapshot import Candidate
from gateway.types.call import Call
from gateway.types.dialect import Dialect
from gateway.types.errors import BadRequest
from gateway.types.failure import Failure
from gateway.upstream.anthropic_request import messages_body
from gateway.upstream.backends import Upstream
from gateway.upstream.openai import decode
from gateway.upstream.wire import AttemptFailed

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
_TEMPLATE: Final = ("messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")


async def count(upstream: Upstream, candidate: Candidate, call: Call) -> int | None:
    """Return the tokens of the prompt of ``call`` as ``candidate`` counts them, or None when it does not say."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await _counted(upstream, candidate, call)
    except (TimeoutError, AttemptFailed, BadRequest):
        return None


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
    if replica.engine.counter == "tokenize":
        chat["model"] = candidate.upstream_model
        page = await ask(upstream, candidate, "/tokenize", chat)
        return _number(page, "count")
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
