"""Callers of the gateway that note exactly what they saw, also of answers that broke off."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx

from tests.e2e.processes import AUTHORIZED, PATIENCE
from tests.harness import NO_TLS, chat_body


@dataclass(slots=True)
class Seen:
    """What one caller saw of one answer.

    Attributes:
        id: of the answer; empty when not even its head came.
        status: HTTP status, 0 when there was none.
        tokens: pieces of text that came; the simulated engines send one token in each.
        finished: the event with the finish reason came, or the whole body.
        done: the end came: ``[DONE]``, or the whole body.
        usage: as the answer told it.
        error: the error it ended with.
        broken: how the connection broke off.
    """

    id: str = ""
    status: int = 0
    tokens: int = 0
    finished: bool = False
    done: bool = False
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    broken: str = ""


Watch = Callable[[Seen], None]


def unwatched(_seen: Seen) -> None:
    """Do nothing."""


def caller(url: str) -> httpx.AsyncClient:
    """Return a client of the gateway at ``url`` for any number of requests at once."""
    return httpx.AsyncClient(base_url=url, verify=NO_TLS, timeout=PATIENCE, limits=httpx.Limits(max_connections=None))


async def ask(
    http: httpx.AsyncClient,
    *,
    stream: bool = True,
    max_tokens: int = 10,
    model: str = "qwen/qwen3-32b",
    headers: dict[str, str] | None = None,
    watch: Watch = unwatched,
    seen: Seen | None = None,
) -> Seen:
    """Ask for ``max_tokens`` tokens; ``watch`` is told of each step at once. A bad end is noted, not raised."""
    seen = Seen() if seen is None else seen
    body = chat_body(model) | {"max_tokens": max_tokens, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    request = http.build_request("POST", "/v1/chat/completions", json=body, headers=headers or AUTHORIZED)
    try:
        answer = await http.send(request, stream=True)
    except httpx.TransportError as error:
        seen.broken = type(error).__name__
        return seen
    try:
        seen.id, seen.status = answer.headers["x-generation-id"], answer.status_code
        watch(seen)
        if stream and answer.status_code == 200:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    _event(seen, line.removeprefix("data: "))
                    watch(seen)
        else:
            _whole(seen, json.loads(await answer.aread(), parse_float=Decimal))
            watch(seen)
    except httpx.TransportError as error:
        seen.broken = type(error).__name__
    finally:
        await answer.aclose()
    return seen


def _event(seen: Seen, data: str) -> None:
    assert not seen.done, data
    if data == "[DONE]":
        seen.done = True
        return
    chunk = json.loads(data, parse_float=Decimal)
    if "error" in chunk:
        seen.error = chunk["error"]
        return
    assert chunk["id"] == seen.id
    for choice in chunk["choices"]:
        seen.tokens += bool(choice["delta"].get("content"))
        seen.finished |= choice["finish_reason"] is not None
    seen.usage = chunk.get("usage") or seen.usage


def _whole(seen: Seen, document: dict[str, Any]) -> None:
    if "error" in document:
        seen.error = document["error"]
        return
    assert document["id"] == seen.id
    seen.usage = document["usage"]
    seen.tokens = document["usage"]["completion_tokens"]
    seen.finished = seen.done = True
