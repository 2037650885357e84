"""Answering one request as the stream of events that Anthropic's messages are, with the faults that strike it."""

from __future__ import annotations

import msgspec

from gateway.sim.answers import Choice
from gateway.sim.exchange import Call
from gateway.sim.faces.anthropic import AnthropicFace, signature
from gateway.sim.faces.face import Document
from gateway.sim.named_events import NamedStream


class MessagesStream(NamedStream):
    """See the module."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        assert isinstance(call.face, AnthropicFace)
        self._told: AnthropicFace = call.face
        self._index = -1

    def _begin_stream(self) -> None:
        usage = self.usage(self.answer.prompt_tokens, 1, 0)
        self._tell({"type": "message_start", "message": {**self._told.opening(self.answer), "usage": usage}})
        self._tell({"type": "ping"})

    def on_end(self) -> None:
        """Say why it ended and what it took."""
        self._close()
        run, answer = self.run, self.answer
        steps = run.steps if run is not None else 0
        usage = self.usage(answer.prompt_tokens, answer.produced(steps), answer.reasoned(steps))
        ending: Document = {"type": "message_delta", "delta": self._told.ending(answer.choices[0])}
        if usage is not None:
            ending["usage"] = usage
        self._tell(ending)
        self._end_stream(lambda: self._tell({"type": "message_stop"}))

    def _piece(self, choice: Choice, step: int) -> None:
        piece = choice.pieces[step]
        self._tokens += 1
        padding = self._insert() if self._inserts else ""
        if step < choice.reasoning:
            self._open_block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            self._delta({"type": "thinking_delta", "thinking": piece + padding})
            if step == choice.reasoning - 1:
                self._delta({"type": "signature_delta", "signature": signature(choice.thoughts)})
        elif choice.tool is None:
            self._open_block("text", {"type": "text", "text": ""})
            self._delta({"type": "text_delta", "text": piece + padding})
        elif step == choice.reasoning:
            block: Document = {"type": "tool_use", "id": choice.tool.id, "name": choice.tool.name, "input": {}}
            self._open_block("tool_use", block)
            self._delta({"type": "input_json_delta", "partial_json": ""})
        else:
            self._delta({"type": "input_json_delta", "partial_json": piece})

    def _open_block(self, kind: str, block: Document) -> None:
        if self._kind != kind:
            self._close()
            self._kind = kind
            self._index += 1
            self._tell({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: Document) -> None:
        self._tell({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> None:
        if self._kind:
            self._kind = ""
            self._tell({"type": "content_block_stop", "index": self._index})

    def _tell(self, event: Document) -> None:
        self._send(msgspec.json.encode(event))
