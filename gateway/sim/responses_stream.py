"""Answering one request as the stream of events that OpenAI's Responses are, with the faults that strike it.

One token is one event. Faults that belong to OpenAI's chunks (``null_fields``, ``usage_twice``) change nothing here.
"""

from __future__ import annotations

import re

import msgspec

from gateway.sim import responses
from gateway.sim.answers import Choice
from gateway.sim.exchange import Call
from gateway.sim.faces.face import Document
from gateway.sim.framing import DONE
from gateway.sim.responses import ResponsesRequest
from gateway.sim.streaming import StreamExchange

_NAME = re.compile(rb'\{"type":"([a-z_.]+)"')


class ResponsesStream(StreamExchange):
    """See the module; ``asked`` is the request."""

    def __init__(self, call: Call, asked: ResponsesRequest) -> None:
        super().__init__(call, asked_usage=True, continuous=False)
        self._asked = asked
        self._plain = False
        self._kind = ""
        self._number = 0
        self._items: list[Document] = []

    def on_steps(self, first: int, last: int) -> None:
        """Turn decode steps into events."""
        choice = self.answer.choices[0]
        if first == 0:
            for kind in ("created", "in_progress"):
                self._tell(f"response.{kind}", response=responses.response(self.answer, self._asked, []))
            if not choice.reasoning:
                self._search()
        for step in range(first, min(last, len(choice.pieces))):
            self._piece(choice, step)
        self.entry.completion_tokens = self.answer.produced(last)
        self.entry.reported = self._tokens

    def on_end(self) -> None:
        """Close what is open, and say why it ended and what it took."""
        self._close()
        run, answer = self.run, self.answer
        steps = run.steps if run is not None else 0
        usage = self.usage(answer.prompt_tokens, answer.produced(steps), answer.reasoned(steps))
        final = responses.response(answer, self._asked, self._items, usage, done=True)
        cut = self.strikes.get("cut_before_done")
        self.leave("completed" if cut is None else "broken")
        if cut is None:
            self._tell(f"response.{final['status']}", response=final)
        elif cut.how == "fin":
            self.flush()
            self.connection.close()
            return
        self._finish()

    def _piece(self, choice: Choice, step: int) -> None:
        piece = choice.pieces[step]
        self._tokens += 1
        padding = self._insert() if self._inserts else ""
        if step < choice.reasoning:
            self._begin("reasoning")
            self._tell("response.reasoning_summary_text.delta", **self._place, summary_index=0, delta=piece + padding)
            if step == choice.reasoning - 1:
                self._close()
                self._search()
        elif choice.tool is None:
            self._begin("message")
            delta = {"delta": piece + padding, "logprobs": []}
            self._tell("response.output_text.delta", **self._place, content_index=0, **delta)
        elif step == choice.reasoning:
            self._begin("function_call")
        else:
            self._tell("response.function_call_arguments.delta", **self._place, delta=piece)

    @property
    def _place(self) -> Document:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _search(self) -> None:
        """Search, where that was asked for."""
        if not self._asked.searches:
            return
        self._items.append(responses.search(self.answer))
        begun = responses.search(self.answer, "in_progress")
        self._tell("response.output_item.added", output_index=len(self._items) - 1, item=begun)
        for step in ("in_progress", "searching", "completed"):
            self._tell(f"response.web_search_call.{step}", **self._place)
        self._tell("response.output_item.done", output_index=len(self._items) - 1, item=self._items[-1])

    def _begin(self, kind: str) -> None:
        """Open an item of ``kind``, unless it is open."""
        if self._kind == kind:
            return
        self._close()
        self._kind = kind
        answer, choice = self.answer, self.answer.choices[0]
        if kind == "reasoning":
            item = responses.reasoning(answer, self._asked, choice)
            empty: Document = {"type": "reasoning", "id": item["id"], "summary": []}
        elif kind == "message":
            item = responses.message(answer, self._asked, choice.content, choice.finish)
            empty = {**item, "status": "in_progress", "content": []}
        else:
            item = responses.call(answer, choice, choice.content)
            empty = {**item, "status": "in_progress", "arguments": ""}
        self._items.append(item)
        self._tell("response.output_item.added", output_index=len(self._items) - 1, item=empty)
        if kind == "reasoning":
            part = {"type": "summary_text", "text": ""}
            self._tell("response.reasoning_summary_part.added", **self._place, summary_index=0, part=part)
        elif kind == "message":
            opening: Document = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self._tell("response.content_part.added", **self._place, content_index=0, part=opening)

    def _close(self) -> None:
        """Close the open item."""
        kind, self._kind = self._kind, ""
        if not kind:
            return
        item, choice = self._items[-1], self.answer.choices[0]
        if kind == "reasoning":
            text = choice.thoughts
            part: Document = {"type": "summary_text", "text": text}
            self._tell("response.reasoning_summary_text.done", **self._place, summary_index=0, text=text)
            self._tell("response.reasoning_summary_part.done", **self._place, summary_index=0, part=part)
        elif kind == "message":
            text = choice.content
            if self._asked.searches:
                more = {"annotation_index": 0, "annotation": responses.citation(text)}
                self._tell("response.output_text.annotation.added", **self._place, content_index=0, **more)
            self._tell("response.output_text.done", **self._place, content_index=0, text=text, logprobs=[])
            part = responses.message(self.answer, self._asked, text)["content"][0]  # type: ignore[index]  # a list
            self._tell("response.content_part.done", **self._place, content_index=0, part=part)
        else:
            self._tell("response.function_call_arguments.done", **self._place, arguments=choice.content)
        self._tell("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _tell(self, kind: str, **members: object) -> None:
        self._send(msgspec.json.encode({"type": kind, "sequence_number": self._number, **members}))
        self._number += 1

    def _send(self, payload: bytes) -> None:
        """Send an event with its name before it; nothing says [DONE] here."""
        if payload == DONE:
            return
        before = len(self._out)
        super()._send(payload)
        name = _NAME.match(payload)
        if name is not None:
            self._out[before] = b"event: %b\n%b" % (name[1], self._out[before])
