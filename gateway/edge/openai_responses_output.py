"""The ``output`` of a Responses answer, put together from canonical chunks and told as events while it grows.

An item of the output is reasoning, a message or a function call. Items are open one at a time, except for calls whose
pieces come mixed. Nothing here raises.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.edge.openai_responses_events import ResponseEvents
from gateway.types.chunk import TextDelta
from gateway.types.responses import mended_id

_IMAGE: Final = "data:image/"


class Output:
    """See the module.

    Args:
        mark: hexadecimal digits that make item ids unique.
        events: is told what happens to the output.
        encrypted: whether the caller wants to see encrypted reasoning.

    Attributes:
        items: all items in their order; those that are open are not complete.
    """

    __slots__ = (
        "_calls",
        "_encrypted",
        "_events",
        "_item",
        "_mark",
        "_part",
        "_pieces",
        "_place",
        "_thought",
        "items",
    )

    def __init__(self, mark: str, events: ResponseEvents, *, encrypted: bool) -> None:
        self._mark = mark
        self._events = events
        self._encrypted = encrypted
        self._item: dict[str, Any] | None = None
        self._pieces: list[str] = []
        self._calls: dict[int, tuple[dict[str, Any], list[str]]] = {}
        self._part: dict[str, Any] | None = None
        self._place: dict[str, Any] = {}
        self._thought: Any = None
        self.items: list[dict[str, Any]] = []

    def pass_on(self, event: dict[str, Any]) -> None:
        """Take an event of an API that speaks Responses itself, and tell it with ids of ours."""
        event = dict(event)  # whoever notes what passes has it as it came
        item, identity = event.get("item"), event.get("item_id")
        if type(item) is dict:
            item = self.mended(item)
            if event.get("type") == "response.output_item.done":
                self.items.append(item)
            event["item"] = self.shown(item)
        if type(identity) is str:
            event["item_id"] = mended_id(identity, self._mark)
        self._events.pass_on(event)

    def replace(self, items: list[Any]) -> None:
        """Make ``items`` of such an API the output."""
        self.items = [self.mended(item) for item in items if type(item) is dict]

    def mended(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item of such an API under the id that its caller gets."""
        identity = item.get("id")
        return {**item, "id": mended_id(identity, self._mark)} if type(identity) is str else item

    def shown(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return ``item`` as the caller wants it."""
        if self._encrypted or item.get("encrypted_content") is None:
            return item
        return {name: value for name, value in item.items() if name != "encrypted_content"}

    def broken(self) -> list[dict[str, Any]]:
        """Return what there is of an answer that broke, with what has been said of items that are not closed."""
        part = self._part
        if part is not None:
            part["refusal" if part["type"] == "refusal" else "text"] = "".join(self._pieces)
        for item, pieces in self._calls.values():
            if item["status"] == "in_progress":
                item["arguments"], item["status"] = "".join(pieces), "incomplete"
        if self._item is not None:
            self._item["status"] = "incomplete"
        return [self.shown(item) for item in self.items]

    # What chunks say

    def text(self, delta: TextDelta) -> None:
        """Add a piece of text or reasoning."""
        if thought := delta.reasoning_content or delta.reasoning:
            self._think(thought, "reasoning_text")
        if content := delta.content:
            self._say(content)

    def delta(self, delta: dict[str, Any], logprobs: Any) -> None:
        """Add what a chat delta, or a whole message, says."""
        self._reason(delta)
        content = delta.get("content")
        if content:
            self._say(content if type(content) is str else _text_of(content), _logprobs(logprobs))
        refusal = delta.get("refusal")
        if refusal and type(refusal) is str:
            self._refuse(refusal)
        for annotation in _listed(delta, "annotations"):
            self._annotate(annotation)
        for image in _listed(delta, "images"):
            self._draw(image)
        audio = delta.get("audio")
        if type(audio) is dict and type(audio.get("transcript")) is str and audio["transcript"]:
            self._say(audio["transcript"])
        for place, call in enumerate(delta.get("tool_calls") or ()):
            self._call(call.get("index", place), call)

    def finish(self, status: str) -> None:
        """Close what is open; the last item gets ``status``."""
        self._close_calls(status)
        self._close(status)

    # Reasoning

    def _reason(self, delta: dict[str, Any]) -> None:
        said = False
        for detail in _listed(delta, "reasoning_details"):
            if type(detail) is not dict:
                continue
            kind = detail.get("type")
            if kind == "reasoning.summary" and type(detail.get("summary")) is str:
                said = True
                self._think(detail["summary"], "summary_text", detail)
            elif kind == "reasoning.text" and type(detail.get("text") or "") is str:
                said = said or bool(detail.get("text"))
                self._think(detail.get("text") or "", "reasoning_text", detail)
            elif kind == "reasoning.encrypted" and type(detail.get("data")) is str:
                self._reasoning(detail)["encrypted_content"] = detail["data"]
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and not said and type(thought) is str:
            self._think(thought, "reasoning_text")

    def _reasoning(self, detail: dict[str, Any] | None) -> dict[str, Any]:
        """Return the open item of reasoning, with what ``detail`` says of it beside its text."""
        item = self._item
        index = detail.get("index") if detail is not None else None
        if item is None or item["type"] != "reasoning" or index not in (None, self._thought):
            item = self._open({"type": "reasoning", "id": self._name("rs"), "summary": [], "content": []})
            self._thought = index
        for name in ("signature", "format"):
            if detail is not None and type(detail.get(name)) is str:
                item[name] = detail[name]
        return item

    def _think(self, text: str, kind: str, detail: dict[str, Any] | None = None) -> None:
        item = self._item
        if item is None or detail is not None or item["type"] != "reasoning":
            item = self._reasoning(detail)
        if not text:
            return
        if self._part is None or self._part["type"] != kind:
            self._begin_part(item, item["summary" if kind == "summary_text" else "content"], {"type": kind, "text": ""})
        self._piece(text)

    # Messages

    def _speak(self, kind: str) -> dict[str, Any]:
        """Return the open part of the open message, which is now one of ``kind``."""
        part = self._part
        if part is not None and part["type"] == kind:
            return part
        item = self._item
        if item is None or item["type"] != "message":
            item = self._open({"type": "message", "id": self._name("msg"), "role": "assistant", "content": []})
        part = {"type": kind, "refusal": ""}
        if kind == "output_text":
            part = {"type": kind, "text": "", "annotations": [], "logprobs": []}
        self._begin_part(item, item["content"], part)
        return part

    def _say(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> None:
        part = self._part
        if part is None or part["type"] != "output_text":
            part = self._speak("output_text")
        if not logprobs:
            self._piece(text)
            return
        part["logprobs"] += logprobs
        self._pieces.append(text)
        self._events.add("response.output_text.delta", **self._place, delta=text, logprobs=logprobs)

    def _refuse(self, text: str) -> None:
        self._speak("refusal")
        self._piece(text)

    def _annotate(self, annotation: Any) -> None:
        if type(annotation) is not dict:
            return
        kind = annotation.get("type")
        inner = annotation.get(kind) if type(kind) is str else None
        said = {"type": kind, **inner} if type(inner) is dict else annotation
        known = self._speak("output_text")["annotations"]
        known.append(said)
        event = "response.output_text.annotation.added"
        self._events.add(event, **self._place, annotation_index=len(known) - 1, annotation=said)

    def _draw(self, image: Any) -> None:
        """Add an image as the item of a tool that made one, which takes it as data and nothing else."""
        link = image.get("image_url") if type(image) is dict else None
        url = link.get("url") if type(link) is dict else None
        head, _, data = url.partition(";base64,") if type(url) is str else ("", "", "")
        if not data or not head.startswith(_IMAGE):
            return
        form = head.removeprefix(_IMAGE).partition(";")[0]
        item = self._open(
            {"type": "image_generation_call", "id": self._name("ig"), "result": None, "output_format": form}
        )
        place = {"item_id": item["id"], "output_index": len(self.items) - 1}
        self._events.add("response.image_generation_call.completed", **place)
        item["result"] = data
        self._close("completed")

    # Calls

    def _call(self, index: int, piece: dict[str, Any]) -> None:
        function = piece.get("function") or {}
        known = self._calls.get(index)
        if known is None:
            self._close("completed")
            self._close_whole_calls()
            identity = piece.get("id") or f"call_{self._mark}{len(self.items):04x}"
            item = {
                "type": "function_call",
                "id": self._name("fc"),
                "call_id": identity,
                "name": function.get("name") or "",
                "arguments": "",
                "status": "in_progress",
            }
            known = self._calls[index] = item, []
            self.items.append(item)
            self._events.add("response.output_item.added", output_index=len(self.items) - 1, item=item)
        elif function.get("name") and not known[1] and not known[0]["name"].endswith(function["name"]):
            known[0]["name"] += function["name"]
        text = function.get("arguments")
        if text and known[0]["status"] == "in_progress":
            known[1].append(text)
            place = self.items.index(known[0])
            self._events.add(
                "response.function_call_arguments.delta", item_id=known[0]["id"], output_index=place, delta=text
            )

    def _close_whole_calls(self) -> None:
        """Close calls whose arguments are whole, before the next one begins."""
        for item, pieces in self._calls.values():
            if item["status"] == "in_progress" and _is_object("".join(pieces)):
                self._close_call(item, pieces, "completed")

    def _close_calls(self, status: str) -> None:
        last = self.items[-1] if self.items else None
        for item, pieces in self._calls.values():
            if item["status"] == "in_progress":
                self._close_call(item, pieces, status if item is last else "completed")

    def _close_call(self, item: dict[str, Any], pieces: list[str], status: str) -> None:
        item["arguments"] = arguments = "".join(pieces)
        item["status"] = status
        place = self.items.index(item)
        self._events.add(
            "response.function_call_arguments.done",
            item_id=item["id"],
            output_index=place,
            name=item["name"],
            arguments=arguments,
        )
        self._events.add("response.output_item.done", output_index=place, item=item)

    # Items and parts

    def _name(self, prefix: str) -> str:
        return f"{prefix}_{self._mark}{len(self.items):04x}"

    def _open(self, item: dict[str, Any]) -> dict[str, Any]:
        self._close_calls("completed")
        self._close("completed")
        item["status"] = "in_progress"
        self._item = item
        self.items.append(item)
        self._events.add("response.output_item.added", output_index=len(self.items) - 1, item=item)
        return item

    def _close(self, status: str) -> None:
        item = self._item
        if item is None:
            return
        self._close_part()
        self._item = self._thought = None
        item["status"] = status
        self._events.add("response.output_item.done", output_index=len(self.items) - 1, item=self.shown(item))

    def _begin_part(self, item: dict[str, Any], parts: list[Any], part: dict[str, Any]) -> None:
        """Open a part of the open item."""
        self._close_part()
        parts.append(part)
        self._part = part
        self._pieces = []
        if not self._events.wanted:
            return
        words, index, event = _WORDS[part["type"]]
        self._place = place = {"item_id": item["id"], "output_index": len(self.items) - 1, index: len(parts) - 1}
        self._events.add(f"response.{event}.added", **place, part=part)
        self._events.begin_deltas(words, place)

    def _piece(self, text: str) -> None:
        """Add a piece to the open part."""
        self._pieces.append(text)
        self._events.add_delta(text)

    def _close_part(self) -> None:
        part = self._part
        if part is None:
            return
        self._part = None
        kind = part["type"]
        words, _, event = _WORDS[kind]
        name = "refusal" if kind == "refusal" else "text"
        part[name] = text = "".join(self._pieces)
        if not self._events.wanted:
            return
        more = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
        self._events.add(f"response.{words}.done", **self._place, **{name: text}, **more)
        self._events.add(f"response.{event}.done", **self._place, part=part)


_WORDS: Final = {
    "output_text": ("output_text", "content_index", "content_part"),
    "refusal": ("refusal", "content_index", "content_part"),
    "reasoning_text": ("reasoning_text", "content_index", "content_part"),
    "summary_text": ("reasoning_summary_text", "summary_index", "reasoning_summary_part"),
}
"""What events call a part, how they count it, and what they call its beginning and its end."""


def _listed(members: dict[str, Any], name: str) -> list[Any]:
    """Return the list under ``name``; what an engine puts there instead is nothing."""
    value = members.get(name)
    return value if type(value) is list else []


def _text_of(content: Any) -> str:
    """Return the text of content that came in parts, as some APIs send it."""
    if type(content) is not list:
        return ""
    texts = [part.get("text") for part in content if type(part) is dict]
    return "".join(text for text in texts if type(text) is str)


def _logprobs(logprobs: Any) -> list[dict[str, Any]]:
    """Return the chat form's log probabilities of tokens with every member that the Responses form has."""
    content = _listed(logprobs, "content") if type(logprobs) is dict else []
    return [_logprob(each) for each in content if type(each) is dict]


def _logprob(each: dict[str, Any]) -> dict[str, Any]:
    found = {name: each.get(name) for name in ("token", "logprob")}
    top = [
        {"token": other.get("token"), "logprob": other.get("logprob"), "bytes": other.get("bytes") or []}
        for other in _listed(each, "top_logprobs")
        if type(other) is dict
    ]
    return {**found, "bytes": each.get("bytes") or [], "top_logprobs": top}


def _is_object(text: str) -> bool:
    try:
        return type(msgspec.json.decode(text)) is dict
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
