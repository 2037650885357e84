"""Answers in the form of Anthropic's messages, as JSON and as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.edge.anthropic_events import MessageEvents, event
from gateway.edge.anthropic_form import JSON, content_of, error_form, head_lines, respond_error, stop_of, usage_form
from gateway.edge.exchange import Exchange
from gateway.edge.reply import DialectReply
from gateway.types import ids
from gateway.types.call import Call
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.dialect import NATIVE
from gateway.types.errors import WeirError
from gateway.types.reply import Bill
from gateway.upstream.anthropic import BETAS, VERSIONS

_STREAM: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
_encode: Final = msgspec.json.Encoder().encode


class MessagesReply(DialectReply[Call]):
    """See ``gateway.types.reply.Reply``.

    Attributes:
        call: what is answered.
    """

    __slots__ = ("_events", "_generation", "_stops")
    comfort = b'event: ping\ndata: {"type": "ping"}\n\n'

    def __init__(self, exchange: Exchange, call: Call) -> None:
        super().__init__(exchange, call)
        self._generation = ids.text(exchange.request_id)
        self._stops: Sequence[str] = call.body.get("stop") or ()
        self._events: MessageEvents | None = None
        call.betas = betas(exchange)
        version = exchange.headers.get(b"anthropic-version", b"").decode("latin-1")
        call.api_version = version if VERSIONS.fullmatch(version) else ""

    def begin(self, model: str, provider: str) -> None:  # noqa: ARG002 - messages do not name a provider
        """See ``Reply``."""
        self._events = MessageEvents(self._generation, model, self._stops, self._tool_calls)
        self.open()

    def open(self) -> None:
        """Start the stream, if it has not been started yet to tell the caller to wait."""
        if not self._exchange.begun:
            self._exchange.open(_STREAM + self._route + head_lines(self._generation))

    def send(self, chunks: list[Chunk]) -> None:
        """See ``Reply``."""
        assert self._events is not None
        data = self._events.tell(chunks)
        if data:
            self._exchange.write(data)

    def say(self, chunk: TextChunk) -> None:
        """See ``Reply``."""
        self.send([chunk])

    def finish(self, chunks: Sequence[Chunk], bill: Bill) -> None:
        """See ``Reply``."""
        assert self._events is not None
        self._exchange.close(self._events.tell(chunks) + self._events.end(bill, self._explained))

    def answer(self, answer: dict[str, Any], model: str, provider: str, bill: Bill) -> None:  # noqa: ARG002 - see begin
        """See ``Reply``."""
        choice = answer["choices"][0]
        if self._tool_calls is not None:
            self._tool_calls.take(choice)
        native = answer.get(NATIVE)
        if isinstance(native, dict):
            body = {**native, "id": self._generation, "model": model, "usage": usage_form(bill, native.get("usage"))}
        else:
            content = content_of(choice["message"])
            called = bool(choice["message"].get("tool_calls"))
            reason, sequence = stop_of(choice, self._stops, called=called)
            body = {
                "id": self._generation,
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": content,
                "stop_reason": reason,
                "stop_sequence": sequence,
                "stop_details": None,
                "container": None,
                "usage": usage_form(bill),
            }
        if self._explained is not None:
            body["openrouter_metadata"] = self._explained
        self._exchange.respond(200, JSON + self._route + head_lines(self._generation), _encode(body))

    def fail(self, error: WeirError) -> None:
        """See ``Reply``."""
        if not self._exchange.begun:
            respond_error(self._exchange, error, self._route, self._explained, self.call)
            return
        _, body = error_form(error, self._generation, self.call)
        if self._explained is not None:
            body["openrouter_metadata"] = self._explained
        self._exchange.close(event(body))


def betas(exchange: Exchange) -> str:
    """Return the features of Anthropic's API that the caller wants, as far as they are names."""
    header = exchange.headers.get(b"anthropic-beta") or exchange.headers.get(b"x-anthropic-beta")
    text = header.decode("latin-1").replace(" ", "") if header else ""
    return text if BETAS.fullmatch(text) else ""
