"""An engine that does as each request says and keeps a book of its own of what it made.

The last user message of a request is its script (``Script``), so the seed of a run decides what happens here. A request
that comes back after a break is recognised by its id and answered without another fault.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fakes.backend import DONE, SSE_HEAD, Visit, chunk, event, hand_backend, usage_chunk

MODEL: Final = "house/kill"
BURST: Final = 8
"""Most tokens written at once."""


@dataclass(frozen=True, slots=True)
class Script:
    """What an engine is to do with a request.

    Attributes:
        prompt: tokens of the prompt, by the engine's count.
        cached: how many of them were cached.
        completion: tokens to make; the caller's ``max_tokens``.
        burst: tokens written at once.
        pause: seconds between bursts.
        fault: ``refuse`` answers 503, ``cut`` breaks off in the middle; both the first time only.
    """

    prompt: int
    cached: int
    completion: int
    burst: int
    pause: float
    fault: str = ""

    def text(self) -> str:
        """Return it as a message."""
        return json.dumps([self.prompt, self.cached, self.completion, self.burst, self.pause, self.fault])


@dataclass(slots=True)
class Work:
    """One visit of a request, in the engine's book.

    Attributes:
        prompt, cached: tokens it read.
        completion: tokens it handed to its socket.
        outcome: ``running``, ``completed``, ``cancelled`` (the gateway went away), ``cut`` or ``refused``.
    """

    prompt: int
    cached: int
    completion: int = 0
    outcome: str = "running"


@dataclass(slots=True)
class Book:
    """What all engines together made, by the id of the request."""

    works: dict[str, list[Work]] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)

    async def serve(self, visit: Visit) -> None:
        """Answer one visit and write it down."""
        head = visit.head.lower()
        identity = head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()
        body = visit.document
        script = self.scripts.get(identity) or Script(*json.loads(body["messages"][-1]["content"]))
        again = identity in self.scripts
        self.scripts[identity] = script
        made = sum(work.completion for work in self.works.get(identity, ())) if again else 0
        left = int(body.get("max_tokens") or script.completion)
        work = Work(script.prompt + made * (left < script.completion), script.cached)
        self.works.setdefault(identity, []).append(work)
        try:
            await _perform(visit, script, work, left, "" if again else script.fault)
        except OSError:
            work.outcome = "cancelled"
            raise
        except asyncio.CancelledError:
            visit.gone.set()  # the engine is being stopped: its connection ends in order
        if work.outcome == "running":
            work.outcome = "cancelled"


async def _perform(visit: Visit, script: Script, work: Work, left: int, fault: str) -> None:
    if fault == "refuse":
        work.outcome = "refused"
        await visit.answer({"error": {"message": "full", "type": "overloaded"}}, "503 Service Unavailable")
        return
    if not visit.document.get("stream"):
        await asyncio.sleep(script.pause * left / script.burst)
        if not visit.gone.is_set():
            work.completion = left
            await visit.answer(_whole(work))
            work.outcome = "completed"
        return
    await visit.send(SSE_HEAD)
    stop = left // 2 if fault == "cut" else left
    while work.completion < stop and not visit.gone.is_set():
        count = min(script.burst, stop - work.completion)
        work.completion += count
        last = fault != "cut" and work.completion == left
        parts = [event(chunk("tok ")) for _ in range(count - last)]
        if last:
            parts.append(event(chunk("tok ", finish="length")))
        await visit.events(*parts)
        await asyncio.sleep(script.pause)
    if visit.gone.is_set():
        return
    if fault == "cut":
        work.outcome = "cut"
        visit.writer.transport.abort()
        visit.gone.set()
        return
    work.outcome = "completed"
    with suppress(OSError):
        await visit.events(event(_usage(work)), DONE, last=True)


def _usage(work: Work) -> dict[str, Any]:
    document = usage_chunk(work.completion, work.prompt)
    document["usage"]["prompt_tokens_details"] = {"cached_tokens": work.cached}
    return document


def _whole(work: Work) -> dict[str, Any]:
    message = {"role": "assistant", "content": "tok " * work.completion}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    return {**_usage(work), "object": "chat.completion", "choices": [choice]}


@asynccontextmanager
async def engines(count: int) -> AsyncIterator[tuple[Book, list[str]]]:
    """Run ``count`` engines with one book inside the block; the second value is their URLs."""
    book = Book()
    async with AsyncExitStack() as stack:
        yield book, [(await stack.enter_async_context(hand_backend(book.serve))).url for _ in range(count)]
