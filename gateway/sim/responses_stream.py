"""Answering one request as the stream of events that OpenAI's Responses are, with the faults that strike it."""

from __future__ import annotations

import msgspec

from gateway.sim import responses
from gateway.sim.answers import Choice
from gateway.sim.exchange import Call
from gateway.sim.faces.face import Document
from gateway.sim.named_events import NamedStream
from gateway.sim.responses import ResponsesRequest


class ResponsesStream(NamedStream):
    """See the module; ``asked`` is the request."""

    def __init__(self, call: Call, asked: ResponsesRequest) -> None:
        super().__init__(call)
        self._asked = asked
        self._number = 0
        self._items: list[Document] = []

    def _begin_stream(self) -> None:
        for kind in ("created", "in_progress"):
            self._tell(f"response.{kind}", response=responses.response(self.answer, self._asked, []))
        if not self.answer.choices[0].reasoning:
            self._search()

    def on_end(self) -> None:
        """Close what is open, and say why it ended and what it took."""
        self._close()
        run, answer = self.run, self.answer
        steps = run.steps if run is not None else 0
        usage = self.usage(answer.prompt_tokens, answer.produced(steps), answer.reasoned(steps))
        final = responses.response(answer, self._asked, self._items, usage, done=True)
        self._end_stream(lambda: self._tell(f"response.{final['status']}", response=final))

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
