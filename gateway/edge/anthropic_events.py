"""An answer in canonical chunks, told as the events of Anthropic's messages.

Blocks stand one behind another: text and thoughts are opened by their first piece and closed by the next block, calls
of tools begin once their name is known. Where a chunk brings the original events along (``NATIVE``) these are passed
on, with the gateway's id, model, usage and cost in them. Nothing here raises and nothing is held back but the end,
which waits for the bill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.edge.anthropic_form import stop_of, usage_form
from gateway.edge.tool_calls import ToolCalls
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.dialect import NATIVE
from gateway.types.messages import REASONING_FORMAT
from gateway.types.reply import Bill

_TEXT: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"text_delta","text":%s}}\n\n'
)
_THINKING: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"thinking_delta","thinking":%s}}\n\n'
)
_ARGUMENTS: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"input_json_delta","partial_json":%s}}\n\n'
)
_SIGNATURE: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"signature_delta","signature":%s}}\n\n'
)
_START: Final = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%s}\n\n'
_STOP: Final = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_END: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_EMPTY_TEXT: Final = b'{"type":"text","text":""}'
_EMPTY_THOUGHT: Final = b'{"type":"thinking","thinking":"","signature":""}'
_encode: Final = msgspec.json.Encoder().encode


class _Tool:
    """A call that is being told: ``block`` is the index of its block, -1 until its name is known."""

    __slots__ = ("arguments", "block", "identity", "name")

    def __init__(self) -> None:
        self.block = -1
        self.identity = ""
        self.name = ""
        self.arguments = ""


class MessageEvents:
    """Tells one answer.

    Args:
        identity: id of the message.
        model: its name here.
        stops: the stop sequences that were asked for.
        calls: takes each choice to see whether its calls can be run, or None.
    """

    __slots__ = (
        "_calls",
        "_ending",
        "_identity",
        "_index",
        "_kind",
        "_model",
        "_native",
        "_next",
        "_started",
        "_stops",
        "_tools",
    )

    def __init__(self, identity: str, model: str, stops: Sequence[str], calls: ToolCalls | None) -> None:
        self._identity = identity
        self._model = model
        self._stops = stops
        self._calls = calls
        self._started = False
        self._kind = ""
        self._index = -1
        self._next = 0
        self._tools: dict[int, _Tool] = {}
        self._ending: Mapping[str, Any] = {}
        self._native: dict[str, Any] | None = None

    def tell(self, chunks: Sequence[Chunk]) -> bytes:
        """Return the events of ``chunks``; the end of the message is told by ``end``."""
        parts: list[bytes] = []
        say = parts.append
        for chunk in chunks:
            if type(chunk) is TextChunk:
                if not self._started:
                    say(self._start(chunk.usage.document() if chunk.usage is not None else None))
                delta = chunk.choices[0].delta
                thought = delta.reasoning or delta.reasoning_content
                if thought:
                    self._think(thought, say)
                if delta.content:
                    if self._kind != "text":
                        self._open("text", _EMPTY_TEXT, say)
                    say(_TEXT % (self._index, _encode(delta.content)))
            else:
                self._chunk(chunk, say)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self, bill: Bill, explained: dict[str, Any] | None) -> bytes:
        """Return the events that end the message."""
        parts: list[bytes] = []
        if not self._started:
            parts.append(self._start(None))
        self._close(parts.append)
        native = self._native
        if native is None:
            reason, sequence = stop_of(self._ending, self._stops, called=bool(self._tools))
            delta = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None, "container": None}
            native = {"type": "message_delta", "delta": delta}
        said = {"type": "message_delta", **native, "usage": usage_form(bill, native.get("usage"))}
        if explained is not None:
            said["openrouter_metadata"] = explained
        parts.append(event(said))
        parts.append(_END)
        return b"".join(parts)

    def _chunk(self, chunk: dict[str, Any], say: Callable[[bytes], None]) -> None:
        originals = chunk.get(NATIVE)
        if originals is not None:
            for original in originals:
                self._pass(original, say)
        elif not self._started:
            say(self._start(chunk.get("usage")))
        for choice in chunk["choices"]:
            if self._calls is not None:
                self._calls.take(choice)
            if choice["finish_reason"] is not None:
                self._ending = choice
            if originals is None:
                self._delta(choice["delta"], say)

    def _pass(self, original: dict[str, Any], say: Callable[[bytes], None]) -> None:
        """Pass on an event as the API said it, with what is ours in it."""
        kind = original["type"]
        if kind == "message_delta":
            before = self._native or {}
            counts = original.get("usage")
            usage = {**before.get("usage", {}), **(counts if isinstance(counts, dict) else {})}
            self._native = {**before, **original, "usage": usage}
        elif kind == "message_start":
            if not self._started:
                self._started = True
                message = original["message"]
                if isinstance(message.get("usage"), dict):
                    self._native = {"usage": {**message["usage"]}}
                say(event({**original, "message": {**message, "id": self._identity, "model": self._model}}))
        elif kind != "message_stop":
            if kind == "content_block_start" and isinstance(original.get("index"), int):
                self._next = original["index"] + 1
            say(event(original))

    def _delta(self, delta: Mapping[str, Any], say: Callable[[bytes], None]) -> None:
        details = delta.get("reasoning_details")
        if not (isinstance(details, list) and details and self._details(details, say)):
            thought = delta.get("reasoning") or delta.get("reasoning_content")
            if isinstance(thought, str) and thought:
                self._think(thought, say)
        for name in ("content", "refusal"):
            text = delta.get(name)
            if isinstance(text, str) and text:
                if self._kind != "text":
                    self._open("text", _EMPTY_TEXT, say)
                say(_TEXT % (self._index, _encode(text)))
        for place, call in enumerate(delta.get("tool_calls") or ()):
            self._call(call.get("index", place), call, say)

    def _details(self, details: list[Any], say: Callable[[bytes], None]) -> bool:
        """Tell thoughts with their signatures; return whether there was any text or secret among them."""
        told = False
        for detail in details:
            if not isinstance(detail, dict):
                continue
            kind, ours = detail.get("type"), detail.get("format") in (REASONING_FORMAT, None)
            text = detail.get("text") if kind == "reasoning.text" else detail.get("summary")
            if isinstance(text, str) and text:
                self._think(text, say)
                told = True
            if kind == "reasoning.text" and ours and isinstance(detail.get("signature"), str) and detail["signature"]:
                if self._kind != "thinking":
                    self._open("thinking", _EMPTY_THOUGHT, say)
                say(_SIGNATURE % (self._index, _encode(detail["signature"])))
                self._close(say)  # a signature is the last of its thought
            elif kind == "reasoning.encrypted" and detail.get("format") == REASONING_FORMAT:
                block = {"type": "redacted_thinking", "data": detail.get("data") or ""}
                self._open("redacted_thinking", _encode(block), say)
                self._close(say)
                told = True
        return told

    def _think(self, text: str, say: Callable[[bytes], None]) -> None:
        if self._kind != "thinking":
            self._open("thinking", _EMPTY_THOUGHT, say)
        say(_THINKING % (self._index, _encode(text)))

    def _call(self, number: int, call: Mapping[str, Any], say: Callable[[bytes], None]) -> None:
        tool = self._tools.get(number)
        if tool is None:
            tool = self._tools[number] = _Tool()
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        if tool.block < 0:
            tool.identity = tool.identity or call.get("id") or ""
            tool.name = tool.name or function.get("name") or ""
            arguments = tool.arguments + arguments
            if not tool.name:
                tool.arguments = arguments
                return
            identity = tool.identity or f"toolu_{self._identity.rpartition('-')[2]}{number}"
            block: dict[str, Any] = {"type": "tool_use", "id": identity, "name": tool.name, "input": {}}
            self._open("tool_use", _encode(block), say)
            tool.block = self._index
        if arguments:
            # An engine that goes back to an earlier call is told as it is: clients put pieces together by index.
            say(_ARGUMENTS % (tool.block, _encode(arguments)))

    def _open(self, kind: str, block: bytes, say: Callable[[bytes], None]) -> None:
        self._close(say)
        self._kind, self._index = kind, self._next
        self._next += 1
        say(_START % (self._index, block))

    def _close(self, say: Callable[[bytes], None]) -> None:
        if self._kind:
            say(_STOP % self._index)
            self._kind = ""

    def _start(self, usage: object) -> bytes:
        self._started = True
        prompt = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        message: dict[str, Any] = {
            "id": self._identity,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": prompt if type(prompt) is int and prompt > 0 else 0,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 0,
            },
        }
        return event({"type": "message_start", "message": message}) + _PING


def event(document: Mapping[str, Any]) -> bytes:
    """Return an event as it goes to the caller; its name is the document's type."""
    kind = document["type"]
    return b"event: %s\ndata: %s\n\n" % (kind.encode("ascii", "replace").replace(b"\n", b""), _encode(document))
