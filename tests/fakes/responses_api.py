"""An API that speaks OpenAI's Responses itself, written by hand from OpenAI's own types, with answers as told.

It refuses what the real one refuses of a request that is not to be stored: ids of items that it would have to look up,
and reasoning that does not come back sealed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.fakes.backend import SSE_HEAD, HandBackend, Visit, hand_backend

USAGE: Any = {
    "input_tokens": 40,
    "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
    "output_tokens": 25,
    "output_tokens_details": {"reasoning_tokens": 9},
    "total_tokens": 65,
}
REASONING: Any = {
    "type": "reasoning",
    "id": "rs_abc",
    "summary": [{"type": "summary_text", "text": "Thinking of water."}],
    "encrypted_content": "c2VhbGVk",
}
SEARCH: Any = {
    "type": "web_search_call",
    "id": "ws_abc",
    "status": "completed",
    "action": {"type": "search", "query": "weirs", "sources": None},
}
CITATION: Any = {"type": "url_citation", "start_index": 0, "end_index": 4, "url": "https://a.example", "title": "Weirs"}
CALL: Any = {
    "type": "function_call",
    "id": "fc_abc",
    "call_id": "call_abc",
    "name": "get_weather",
    "arguments": '{"city": "Basel"}',
    "status": "completed",
}


def message(text: str, *annotations: Any) -> dict[str, Any]:
    """Return the item of a message."""
    part = {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}
    return {"type": "message", "id": "msg_abc", "status": "completed", "role": "assistant", "content": [part]}


def response(output: Sequence[Any], *, status: str = "completed", **more: Any) -> dict[str, Any]:
    """Return a response object with ``output``."""
    return {
        "id": "resp_upstream",
        "object": "response",
        "created_at": 1,
        "status": status,
        "background": False,
        "billing": {"payer": "openai"},
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-upstream-2026",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 0.98,
        "truncation": "disabled",
        "usage": USAGE,
        **more,
    }


def events_of(output: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the events of a stream that says ``output``; every text in pieces of three characters."""
    found: list[dict[str, Any]] = []

    def add(kind: str, **members: Any) -> None:
        found.append({"type": kind, "sequence_number": len(found), **members})

    for kind in ("response.created", "response.in_progress"):
        add(kind, response=response((), status="in_progress", usage=None))
    for index, item in enumerate(output):
        place = {"item_id": item["id"], "output_index": index}
        kind = item["type"]
        if kind == "function_call":
            add("response.output_item.added", output_index=index, item={**item, "arguments": ""})
            for piece in _pieces(item["arguments"]):
                add("response.function_call_arguments.delta", **place, delta=piece)
            add("response.function_call_arguments.done", **place, arguments=item["arguments"])
        elif kind == "message":
            part = item["content"][0]
            add("response.output_item.added", output_index=index, item={**item, "content": []})
            add("response.content_part.added", **place, content_index=0, part={**part, "text": ""})
            for piece in _pieces(part["text"]):
                add("response.output_text.delta", **place, content_index=0, delta=piece, logprobs=[])
            for number, annotation in enumerate(part["annotations"]):
                more = {"annotation_index": number, "annotation": annotation}
                add("response.output_text.annotation.added", **place, content_index=0, **more)
            add("response.output_text.done", **place, content_index=0, text=part["text"], logprobs=[])
            add("response.content_part.done", **place, content_index=0, part=part)
        elif kind == "reasoning":
            add("response.output_item.added", output_index=index, item={**item, "summary": []})
            text = item["summary"][0]["text"]
            add(
                "response.reasoning_summary_part.added",
                **place,
                summary_index=0,
                part={**item["summary"][0], "text": ""},
            )
            for piece in _pieces(text):
                add("response.reasoning_summary_text.delta", **place, summary_index=0, delta=piece)
            add("response.reasoning_summary_text.done", **place, summary_index=0, text=text)
            add("response.reasoning_summary_part.done", **place, summary_index=0, part=item["summary"][0])
        else:
            add("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
            for step in ("in_progress", "searching", "completed"):
                add(f"response.web_search_call.{step}", **place)
        add("response.output_item.done", output_index=index, item=item)
    add("response.completed", response=response(output))
    return found


def _pieces(text: str) -> list[str]:
    return [text[start : start + 3] for start in range(0, len(text), 3)]


def encoded(document: dict[str, Any]) -> bytes:
    """Return an event as the API writes it."""
    return b"event: %s\ndata: %s\n\n" % (document["type"].encode(), json.dumps(document).encode())


class Script:
    """What the API answers.

    Attributes:
        output: the items of the answer.
        stop: how many events of a stream leave before the connection ends, None for all.
        last: an event in place of those that are left.
        status: another status than 200, with ``error`` as the body.
        gate: when there is one, every event waits for it to be released once.
    """

    output: Sequence[Any]
    stop: int | None
    last: dict[str, Any] | None
    status: str
    error: Any
    gate: asyncio.Semaphore | None

    def __init__(self, *output: Any) -> None:
        self.reset(*output)

    def reset(self, *output: Any) -> None:
        """Answer ``output`` from now on, and well."""
        self.output = output
        self.stop = self.last = self.error = self.gate = None
        self.status = ""

    async def __call__(self, visit: Visit) -> None:
        """Answer one request."""
        problem = complaint(visit.document)
        if problem is not None or self.status:
            error = self.error or {"message": problem, "type": "invalid_request_error", "param": "input", "code": None}
            await visit.answer({"error": error}, self.status or "400 Bad Request")
        elif not visit.document.get("stream"):
            await visit.answer(response(self.output))
        else:
            await visit.send(SSE_HEAD)
            for document in events_of(self.output)[: self.stop]:
                if self.gate is not None:
                    await self.gate.acquire()
                await visit.events(encoded(document))
            if self.last is not None:
                await asyncio.sleep(0.1)  # what came before it has been read
                await visit.events(encoded(self.last))
            if self.stop is None or self.last is not None:
                await visit.events(last=True)
            else:
                visit.writer.close()


def complaint(body: dict[str, Any]) -> str | None:
    """Return what the real API would say against ``body``, or None."""
    if body.get("store") is not False:
        return "this test stores nothing"
    if "previous_response_id" in body or "provider" in body or "models" in body:
        return "Unknown parameter or response"
    for item in body["input"] if isinstance(body["input"], list) else ():
        if item.get("type") == "item_reference":
            return "Item not found"
        if item.get("type") == "reasoning" and not item.get("encrypted_content"):
            return f"Item with id {item.get('id')!r} not found. Items are not persisted when `store` is set to false."
        identity = item.get("id")
        if identity is not None and (len(identity) > 64 or not identity.startswith(("rs_", "msg_", "fc_", "ws_"))):
            return f"Invalid id {identity!r}"
    return None


@asynccontextmanager
async def responses_api(script: Script) -> AsyncIterator[HandBackend]:
    """Run the API inside the block."""
    async with hand_backend(script) as backend:
        yield backend
