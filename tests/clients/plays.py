"""A scripted engine: what is answered stands in the last message of the caller, so every client can ask for it.

``Play: tools`` is answered by the play of that name. The answers are written here by hand, whole and in pieces, so that
what a client shows can be compared with what an engine said and not with what the gateway made of it.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from tests.fakes.backend import DONE, SSE_HEAD, HandBackend, Visit, event, hand_backend

PROMPT, CACHED = 11, 4
"""Prompt tokens of every play, and how many of them the engine had in its cache."""
BEFORE_THE_BREAK: Final = 0.2
"""Seconds between the text and the break: what comes in one read with its error never reached the caller."""
_ASKED: Final = re.compile(r"Play: ([a-z-]+)")


@dataclass(frozen=True, slots=True)
class Tool:
    """A call of a function, its arguments as the model wrote them, in pieces."""

    id: str
    name: str
    pieces: Sequence[str]

    @property
    def arguments(self) -> str:
        """The arguments as they must arrive, byte by byte."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Play:
    """One answer.

    Attributes:
        pieces: of the text.
        thoughts: pieces of the reasoning before it.
        tools: calls that follow.
        completion: tokens of the whole answer.
        reasoning: tokens of the reasoning among them.
        finish: why it ends.
        cut: pieces of text after which the connection breaks; None does not break.
        broken: an event behind the text in place of the end, or nothing.
    """

    pieces: Sequence[str] = ()
    thoughts: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    completion: int = 3
    reasoning: int = 0
    finish: str = "stop"
    cut: bool = False
    broken: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the caller must read."""
        return "".join(self.pieces)

    @property
    def thought(self) -> str:
        """What the caller must read of the reasoning."""
        return "".join(self.thoughts)

    @property
    def usage(self) -> dict[str, Any]:
        """The engine's count."""
        return {
            "prompt_tokens": PROMPT,
            "completion_tokens": self.completion,
            "total_tokens": PROMPT + self.completion,
            "prompt_tokens_details": {"cached_tokens": CACHED},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }

    def deltas(self) -> list[dict[str, Any]]:
        """Return what a stream says, piece by piece."""
        said: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        said += [{"reasoning_content": piece} for piece in self.thoughts]
        said += [{"content": piece} for piece in self.pieces]
        for index, tool in enumerate(self.tools):
            head = {"index": index, "id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": ""}}
            said.append({"tool_calls": [head]})
            said += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in tool.pieces]
        return said

    def message(self) -> dict[str, Any]:
        """Return what a whole answer says, with the nulls that engines write."""
        calls = [
            {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": tool.arguments}}
            for tool in self.tools
        ]
        return {
            "role": "assistant",
            "content": self.text or None,
            "reasoning_content": self.thought or None,
            "refusal": None,
            "audio": None,
            "function_call": None,
            "tool_calls": calls,
        }


PLAYS: Final = {
    "text": Play(["Weirs raise", " the level", " of a river. 🌊"], completion=9),
    "tools": Play(
        tools=[
            Tool("call_basel", "get_weather", ['{"city": "Bas', 'el",  "days"', ":3}"]),
            Tool("call_zurich", "get_weather", ['{"days":1.0,"city":"Z', "\\u00fcrich 🌧", '"}']),
        ],
        completion=31,
        finish="tool_calls",
    ),
    "told": Play(["It rains", " in Basel."], completion=6),
    "reasoning": Play(["Hello", "."], thoughts=["The caller", " greets me."], completion=8, reasoning=5),
    "json": Play(['{"place":', '"Basel",', '"litres":42}'], completion=12),
    "length": Play(["Once upon"], completion=2, finish="length"),
    "cut": Play(["This will", " not end"], cut=True),
    "failing": Play(["This will", " fail"], broken={"error": {"message": "the GPU fell off", "code": 503}}),
}
"""The answers by name. ``told`` is what follows when the last message is the result of a tool."""

_REFUSALS: Final = {
    "too-long": (
        "400 Bad Request",
        {
            "error": {
                "message": "The maximum context length is 4096 tokens. However, your messages have 5000 tokens.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
        "",
    ),
    "refused": (
        "422 Unprocessable Entity",
        {"error": {"message": "temperature is too hot", "param": "temperature"}},
        "",
    ),
    "full": ("429 Too Many Requests", {"error": {"message": "slow down"}}, "retry-after: 1\r\n"),
    "broken": ("500 Internal Server Error", {"error": {"message": "out of memory at 10.0.0.7"}}, ""),
}


def asked(body: dict[str, Any]) -> str:
    """Return the name of the play that was asked for last; what follows the results of tools is told."""
    for message in reversed(body["messages"]):
        if message["role"] == "tool":
            return "told"
        found = _ASKED.findall(json.dumps(message["content"], ensure_ascii=False))
        if found:
            return str(found[-1])
    return "text"


class ScriptedEngine:
    """The engine on an event loop of its own, so that clients may block.

    Attributes:
        bodies: requests in the order they came.
        times: monotonic seconds at which they came.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._up: Future[HandBackend] = Future()
        self._again: set[str] = set()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._up.result(10).url

    @property
    def last(self) -> dict[str, Any]:
        """The last request."""
        return self.bodies[-1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        async with hand_backend(self._answer) as backend:
            self._up.set_result(backend)
            await self._stop.wait()

    async def _answer(self, visit: Visit) -> None:
        body = visit.document
        self.bodies.append(body)
        self.heads.append(visit.head.decode("latin-1"))
        if visit.path.endswith("/embeddings"):
            await visit.answer(_embeddings(body))
        elif visit.path.endswith("/rerank"):
            results = [{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.25}]
            await visit.answer({"id": "r", "model": "r", "results": results, "usage": {"total_tokens": 9}})
        elif visit.path.endswith("/chat/completions"):
            await self._chat(visit, body)
        elif visit.path.endswith("/completions"):
            await visit.answer(_completion(body))
        else:
            await visit.answer({"error": {"message": "no such path"}}, "404 Not Found")

    async def _chat(self, visit: Visit, body: dict[str, Any]) -> None:
        name = asked(body)
        if name.startswith("once-"):
            # Each caller has a name of its own behind `once-`; only its first visit is refused.
            first, name = name not in self._again, "full" if name not in self._again else "text"
            if first:
                self._again.add(asked(body))
        if name in _REFUSALS:
            status, document, more = _REFUSALS[name]
            await visit.answer(document, status, more)
            return
        play = PLAYS[name]
        if body.get("stream"):
            await _stream(visit, play)
        else:
            choice = {"index": 0, "message": play.message(), "logprobs": None, "finish_reason": play.finish}
            await visit.answer({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": play.usage})


_HEAD: Final[dict[str, Any]] = {
    "id": "engine-1",
    "created": 1_700_000_000,
    "model": "engine/model",
    "system_fingerprint": None,
    "service_tier": None,
    "prompt_logprobs": None,
}


async def _stream(visit: Visit, play: Play) -> None:
    """Send an event at a time, with the nulls and the empty lines that engines write."""
    await visit.send(SSE_HEAD)
    for delta in play.deltas():
        await visit.events(event(_chunk(delta, None)))
    if play.cut or play.broken:
        await asyncio.sleep(BEFORE_THE_BREAK)
    if play.cut:
        visit.writer.close()
        return
    if play.broken:
        await visit.events(event(play.broken), DONE, last=True)
        return
    usage = {**_HEAD, "object": "chat.completion.chunk", "choices": [], "usage": play.usage}
    await visit.events(event(_chunk({}, play.finish)), event(usage), DONE, last=True)


def _chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**_HEAD, "object": "chat.completion.chunk", "choices": [choice], "usage": None}


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": at, "embedding": [0.5, -0.25, float(at)]} for at in range(len(inputs))]
    return {"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": 5, "total_tokens": 5}}


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "text": " and so on", "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": PROMPT, "completion_tokens": 3, "total_tokens": PROMPT + 3}
    return {**_HEAD, "object": "text_completion", "choices": [choice], "usage": usage}
