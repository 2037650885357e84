"""Answers in OpenAI's shape, for chat, completions and embeddings, in JSON and as server-sent events.

``/v1`` follows OpenAI's rule for the usage chunk (only when asked for, with empty ``choices``), ``/api/v1``
OpenRouter's (always, once, with one choice that repeats the finish reason: clients crash on empty ``choices``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from gateway.edge.errors import error_body, error_lines, error_object
from gateway.edge.exchange import Exchange
from gateway.edge.reply import DialectReply
from gateway.types import ids
from gateway.types.call import WHOLE, Call, Operation
from gateway.types.chunk import PROBE, Chunk, Direct, TextChunk
from gateway.types.errors import WeirError
from gateway.types.money import usd_json
from gateway.types.reply import Bill
from gateway.types.tokens import NO_USAGE, Usage

_encode: Final = msgspec.json.Encoder().encode
_JSON: Final = b"content-type: application/json\r\n"
_STREAM: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
_DONE: Final = b"data: [DONE]\n\n"
_TEXT: Final = b'%s%d,"delta":%s,"logprobs":null,"finish_reason":null}]}\n\n'
_WORDS: Final = _encode(PROBE)
_REASONING: Final = ("reasoning", "reasoning_content", "reasoning_details")
_OBJECTS: Final = {Operation.CHAT: "chat.completion.chunk", Operation.COMPLETIONS: "text_completion"}


class OpenAIReply(DialectReply[Call]):
    """See ``gateway.types.reply.Reply``.

    Attributes:
        call: what is answered.
    """

    __slots__ = ("_created", "_fingerprint", "_generation", "_hides", "_model", "_provider", "_text_head")

    def __init__(self, exchange: Exchange, call: Call) -> None:
        super().__init__(exchange, call)
        self._generation = ids.text(exchange.request_id)
        self._created = 0
        self._model = call.model
        self._provider = ""
        self._fingerprint: str | None = None
        self._text_head = b""
        self._hides = _hides_reasoning(call.body)

    def begin(self, model: str, provider: str) -> None:
        """See ``Reply``."""
        self._model, self._provider = model, provider
        self.open()

    def open(self) -> None:
        """Start the stream, if it has not been started yet to tell the caller to wait."""
        if not self._exchange.begun:
            self._created = int(time.time())
            self._exchange.open(_STREAM + self._headers())

    def send(self, chunks: list[Chunk]) -> None:
        """See ``Reply``."""
        if data := self._events(chunks):
            self._exchange.write(data)

    def say(self, chunk: TextChunk) -> None:
        """See ``Reply``."""
        self._exchange.write(self._text(chunk))

    def direct(self, probe: TextChunk) -> Direct | None:
        """See ``Reply``."""
        write = self._exchange.framed()
        if write is None or self._hides:
            return None
        event = self._text(probe)
        if event.count(_WORDS) != 1:
            return None
        before, _, after = event.partition(_WORDS)
        return Direct(before + b'"', b'"' + after, write)

    def finish(self, chunks: Sequence[Chunk], bill: Bill) -> None:
        """See ``Reply``."""
        data = self._events(chunks)
        if self.call.wants_usage:
            data += b"data: %s\n\n" % _encode(self._usage_chunk(chunks, bill))
        elif self._explained is not None:
            data += b"data: %s\n\n" % _encode(self._last_chunk())
        self._exchange.close(data + _DONE)

    def answer(self, answer: dict[str, Any], model: str, provider: str, bill: Bill) -> None:
        """See ``Reply``."""
        call = self.call
        head: dict[str, Any] = {"id": self._generation, **answer}
        head["id"] = self._generation
        head["model"] = model
        if call.operation not in WHOLE:
            head.setdefault("created", int(time.time()))
            head["object"] = "chat.completion" if call.operation is Operation.CHAT else "text_completion"
        if call.openrouter:
            head["provider"] = provider
            for choice in head.get("choices", ()):
                _rename_reasoning(choice.get("message"))
        else:
            for choice in head.get("choices", ()):
                choice.pop("native_finish_reason", None)
        if self._hides:
            for choice in head.get("choices", ()):
                _hide_reasoning(choice.get("message"))
        if self._tool_calls is not None:
            for choice in head.get("choices", ()):
                self._tool_calls.take(choice)
        head["usage"] = usage_json(bill, call.operation)
        if self._explained is not None:
            head["openrouter_metadata"] = self._explained
        self._exchange.respond(200, _JSON + self._headers(), _encode(head))

    def fail(self, error: WeirError) -> None:
        """See ``Reply``."""
        if self._exchange.begun:
            body: dict[str, Any] = {"error": error_object(error)}
            if self.call.openrouter:
                body |= {
                    "id": self._generation,
                    "object": _OBJECTS[self.call.operation],
                    "created": self._created,
                    "model": self._model,
                    "provider": self._provider,
                    "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                }
            if self._explained is not None:
                body["openrouter_metadata"] = self._explained
            self._exchange.close(b"data: %s\n\n" % _encode(body))
            return
        respond_error(self._exchange, error, self._route, self._explained)

    def _headers(self) -> bytes:
        generation = self._generation.encode("ascii")
        return b"%sx-generation-id: %s\r\nx-request-id: %s\r\n" % (self._route, generation, generation)

    def _events(self, chunks: Sequence[Chunk]) -> bytes:
        """Render chunks as events; usage-only chunks say nothing here, the bill does."""
        generation, model, call = self._generation, self._model, self.call
        parts = []
        for chunk in chunks:
            if type(chunk) is TextChunk:
                parts.append(self._text(chunk))
                continue
            choices = chunk["choices"]
            if not choices:
                continue
            if self._tool_calls is not None:
                for choice in choices:
                    self._tool_calls.take(choice)
            if "usage" in chunk:
                del chunk["usage"]
            chunk["id"] = generation
            chunk["model"] = model
            chunk["created"] = self._created
            chunk["object"] = _OBJECTS[call.operation]
            if call.openrouter:
                chunk["provider"] = self._provider
                for choice in choices:
                    _rename_reasoning(choice.get("delta"))
            else:
                for choice in choices:
                    if choice["finish_reason"] is not None:
                        choice.pop("native_finish_reason", None)
            if self._hides:
                for choice in choices:
                    _hide_reasoning(choice.get("delta"))
            parts.append(b"data: %s\n\n" % _encode(chunk))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _text(self, chunk: TextChunk) -> bytes:
        """Render a piece of text as an event."""
        choice = chunk.choices[0]
        delta = choice.delta
        if self._hides:
            delta.reasoning = delta.reasoning_content = None
        elif delta.reasoning_content is not None and self.call.openrouter:
            delta.reasoning, delta.reasoning_content = delta.reasoning or delta.reasoning_content, None
        head = self._text_head
        if not head or self._fingerprint != chunk.system_fingerprint:
            head = self._begin_text(chunk.system_fingerprint)
        return _TEXT % (head, choice.index, _encode(delta))

    def _begin_text(self, fingerprint: str | None) -> bytes:
        """Return, and keep, what every text chunk of this answer begins with, as long as the fingerprint stays."""
        head: dict[str, Any] = {
            "id": self._generation,
            "object": _OBJECTS[self.call.operation],
            "created": self._created,
            "model": self._model,
        }
        if self.call.openrouter:
            head["provider"] = self._provider
        if fingerprint is not None:
            head["system_fingerprint"] = fingerprint
        self._fingerprint = fingerprint
        self._text_head = b'data: %s,"choices":[{"index":' % _encode(head)[:-1]
        return self._text_head

    def _last_chunk(self) -> dict[str, Any]:
        """Return a chunk without choices, with what the caller is told of routing."""
        chunk: dict[str, Any] = {
            "id": self._generation,
            "object": _OBJECTS[self.call.operation],
            "created": self._created,
            "model": self._model,
            "choices": [],
        }
        if self._explained is not None:
            chunk["openrouter_metadata"] = self._explained
        return chunk

    def _usage_chunk(self, chunks: Sequence[Chunk], bill: Bill) -> dict[str, Any]:
        call = self.call
        chunk = self._last_chunk()
        chunk["usage"] = usage_json(bill, call.operation)
        if call.openrouter:
            members = (part for part in chunks if isinstance(part, dict))  # a text chunk never finishes a choice
            last = next((choice for part in members for choice in part["choices"] if choice["finish_reason"]), None)
            choice = {"index": 0, "finish_reason": last["finish_reason"] if last else None}
            if call.operation is Operation.CHAT:
                choice["delta"] = {"role": "assistant", "content": ""}
            else:
                choice["text"] = ""
            chunk |= {"provider": self._provider, "choices": [choice]}
        return chunk


def _rename_reasoning(said: dict[str, Any] | None) -> None:
    """Call reasoning what OpenRouter calls it; engines have another name for it."""
    if said and "reasoning_content" in said:
        reasoning = said.pop("reasoning_content")
        if not said.get("reasoning"):
            said["reasoning"] = reasoning


def _hides_reasoning(body: dict[str, Any]) -> bool:
    """Return whether the caller wants no reasoning in the answer: few engines leave it out themselves."""
    wish = body.get("reasoning")
    return (type(wish) is dict and wish.get("exclude") is True) or body.get("include_reasoning") is False


def _hide_reasoning(said: dict[str, Any] | None) -> None:
    """Take out what the engine thought, by any name."""
    if said:
        for name in _REASONING:
            said.pop(name, None)


def usage_json(bill: Bill, operation: Operation) -> msgspec.Raw:
    """Return the ``usage`` object as JSON: OpenAI's members and OpenRouter's, money as exact numbers.

    Written as bytes because every member is an integer or an exact decimal, and every answer has one.
    """
    usage = bill.usage
    if operation in WHOLE:
        return msgspec.Raw(
            b'{"prompt_tokens":%d,"total_tokens":%d,"cost":%s%s}'
            % (usage.prompt, usage.total, usd_json(bill.total), b',"is_byok":true' if bill.byok else b"")
        )
    return msgspec.Raw(
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"cost":%s,"is_byok":%s,%s,'
        b'"cost_details":{%s"upstream_inference_prompt_cost":%s,"upstream_inference_completions_cost":%s}%s}'
        % (
            usage.prompt,
            usage.completion,
            usage.prompt + usage.completion,
            usd_json(bill.total),
            b"true" if bill.byok else b"false",
            _details(usage) if any(astuple(usage)[2:]) else _NO_DETAILS,
            b'"upstream_inference_cost":%s,' % usd_json(bill.upstream) if bill.byok else b"",
            usd_json(bill.prompt),
            usd_json(bill.completion),
            b',"continuation":{"count":%d,"replayed_tokens":%d}' % (bill.continuations, bill.replayed)
            if bill.continuations
            else b"",
        )
    )


def _details(usage: Usage) -> bytes:
    """Return the members of a ``usage`` object that say what is in its totals."""
    return (
        b'"prompt_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d,"audio_tokens":%d},'
        b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":%d,"image_tokens":%d}'
    ) % (
        usage.cache_read,
        usage.cache_write,
        usage.audio_prompt,
        usage.reasoning,
        usage.audio_completion,
        usage.image_completion,
    )


_NO_DETAILS: Final = _details(NO_USAGE)


def respond_error(
    exchange: Exchange, error: WeirError, headers: bytes = b"", explained: dict[str, Any] | None = None
) -> None:
    """Send an error as a whole response; before a dialect has read the request there is no reply to ask."""
    identity = ids.text(exchange.request_id)
    exchange.respond(error.code, _JSON + headers + error_lines(error, identity), error_body(error, identity, explained))
