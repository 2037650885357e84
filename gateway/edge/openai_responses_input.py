"""The ``input`` of a Responses request, said in the chat form.

Messages, function calls with their outputs, and reasoning become chat messages; reasoning, text and calls that stand
side by side become one message of the assistant. What the chat form has no words for (items and tools of an API that
keeps them itself) is noted by its place: only a backend that speaks Responses can answer it. What nobody can answer is
refused by name (``BadRequest``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.edge.links import check_links
from gateway.types.errors import BadRequest

_encode: Final = msgspec.json.Encoder().encode
ROLES: Final = ("user", "assistant", "system", "developer")
_DETAILS: Final = ("auto", "low", "high", "original")
_TEXTS: Final = ("input_text", "output_text", "text")
"""Tuples, because what is looked for in them may be anything."""
_NO_FILES: Final = "files are not kept here: send the content itself"
REASONING_FORMAT: Final = "openai-responses-v1"


class Conversation:
    """Chat messages, made of items one after the other.

    Attributes:
        messages: the messages so far.
        beyond: place of the first thing that the chat form cannot say, or ``""``.
        unsaid: bytes of what it cannot say.
    """

    __slots__ = ("_calls", "_pending", "_place", "beyond", "messages", "unsaid")

    def __init__(self, instructions: str | None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.beyond = ""
        self.unsaid = 0
        self._pending: dict[str, Any] | None = None
        self._calls: set[str] = set()
        self._place = "input"
        if instructions:
            self.messages.append({"role": "system", "content": instructions})

    def take(self, items: Sequence[Any], name: str = "input") -> None:
        """Add ``items``, which the request has under ``name``."""
        for index, item in enumerate(items):
            self._place = place = f"{name}[{index}]"
            if type(item) is not dict:
                raise BadRequest(f"{place} must be an object", param=place)
            kind = item.get("type")
            if kind is None or kind == "message":
                self._message(item)
            elif kind == "function_call":
                self._call(item)
            elif kind == "function_call_output":
                self._output(item)
            elif kind == "reasoning":
                self._reasoning(item)
            elif kind == "image_generation_call" and type(item.get("result")) is str:
                self._image(item)
            elif type(kind) is not str:
                raise BadRequest(f"{place}.type must be a text", param=f"{place}.type")
            else:
                self._unsayable(f"{place}.type", item)
        self._pending = None
        if self.beyond and not self.messages:
            self.messages.append({"role": "user", "content": ""})

    def _unsayable(self, place: str, thing: Any) -> None:
        self.beyond = self.beyond or place
        self.unsaid += len(_encode(thing))

    def _text(self, item: dict[str, Any], member: str, place: str = "") -> str:
        value = item.get(member)
        if type(value) is not str:
            place = f"{place or self._place}.{member}"
            raise BadRequest(f"{place} must be a text" if member in item else f"{place} is missing", param=place)
        return value

    def _assistant(self, *empty: str) -> dict[str, Any]:
        """Return the assistant's message to add to: the one begun when it has none of the members ``empty`` yet."""
        pending = self._pending
        if pending is None or any(pending.get(name) for name in empty):
            pending = self._pending = {"role": "assistant", "content": None}
            self.messages.append(pending)
        return pending

    def _message(self, item: dict[str, Any]) -> None:
        place = self._place
        role = item.get("role")
        if role not in ROLES:
            raise BadRequest(f"{place}.role must be one of {', '.join(ROLES)}", param=f"{place}.role")
        content = item.get("content")
        if role == "assistant":
            self._said(content)
            return
        self._pending = None
        if type(content) is not str:
            content = self._parts(content, f"{place}.content")
        # Chat templates of open models know no developer; to those that do, the system says the same.
        self.messages.append({"role": "system" if role == "developer" else role, "content": content})

    def _said(self, content: Any) -> None:
        """Add what the assistant said."""
        message = self._assistant("content", "refusal", "tool_calls")
        if type(content) is str:
            message["content"] = content
            return
        place = f"{self._place}.content"
        if type(content) is not list:
            raise BadRequest(f"{place} must be a text or an array", param=place)
        texts = []
        for index, part in enumerate(content):
            where = f"{place}[{index}]"
            kind = part.get("type") if type(part) is dict else None
            if kind in _TEXTS:
                texts.append(self._text(part, "text", where))
            elif kind == "refusal":
                message["refusal"] = self._text(part, "refusal", where)
            else:
                raise BadRequest(f"{where}.type of an assistant is output_text or refusal", param=f"{where}.type")
        message["content"] = "".join(texts) if texts else None

    def _parts(self, content: Any, place: str) -> str | list[dict[str, Any]]:
        """Return content parts in the chat form; a text alone as a text."""
        if type(content) is not list:
            raise BadRequest(f"{place} must be a text or an array", param=place)
        parts = []
        for index, part in enumerate(content):
            where = f"{place}[{index}]"
            if type(part) is not dict:
                raise BadRequest(f"{where} must be an object", param=where)
            said = self._part(part, where)
            if said is not None:
                if "cache_control" in part:
                    said["cache_control"] = part["cache_control"]
                parts.append(said)
        if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
            return str(parts[0]["text"])
        return parts

    def _part(self, part: dict[str, Any], place: str) -> dict[str, Any] | None:
        kind = part.get("type")
        if kind in _TEXTS:
            return {"type": "text", "text": self._text(part, "text", place)}
        if part.get("file_id") is not None:
            raise BadRequest(f"{place}.file_id: {_NO_FILES}", param=f"{place}.file_id")
        if kind == "input_image":
            image: dict[str, Any] = {"url": self._text(part, "image_url", place)}
            detail = part.get("detail")
            if detail is not None:
                if detail not in _DETAILS:
                    raise BadRequest(f"{place}.detail is auto, low, high or original", param=f"{place}.detail")
                image["detail"] = detail
            check_links(part, place)
            return {"type": "image_url", "image_url": image}
        if kind == "input_file":
            if part.get("file_data") is None and part.get("file_url") is not None:
                self._unsayable(f"{place}.file_url", part)
                return None
            file = {"file_data": self._text(part, "file_data", place)}
            if part.get("filename") is not None:
                file["filename"] = self._text(part, "filename", place)
            return {"type": "file", "file": file}
        if kind == "input_audio":
            if type(part.get("input_audio")) is not dict:
                raise BadRequest(f"{place}.input_audio must be an object", param=f"{place}.input_audio")
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        if type(kind) is not str:
            raise BadRequest(f"{place}.type must be a text", param=f"{place}.type")
        self._unsayable(f"{place}.type", part)
        return None

    def _call(self, item: dict[str, Any]) -> None:
        identity = self._text(item, "call_id")
        function = {"name": self._text(item, "name"), "arguments": self._text(item, "arguments")}
        self._calls.add(identity)
        calls = self._assistant().setdefault("tool_calls", [])
        calls.append({"id": identity, "type": "function", "function": function})

    def _output(self, item: dict[str, Any]) -> None:
        identity = self._text(item, "call_id")
        if identity not in self._calls:
            raise BadRequest(
                f"{self._place}.call_id: there is no function_call {identity[:64]!r} before it",
                param=f"{self._place}.call_id",
            )
        output = item.get("output")
        if type(output) is not str:
            output = self._parts(output, f"{self._place}.output")
        self._pending = None
        self.messages.append({"role": "tool", "tool_call_id": identity, "content": output})

    def _image(self, item: dict[str, Any]) -> None:
        """Add an image that was made, as OpenRouter's chat form has it."""
        form = item.get("output_format")
        url = f"data:image/{form if type(form) is str else 'png'};base64,{item['result']}"
        images = self._assistant("tool_calls").setdefault("images", [])
        images.append({"type": "image_url", "image_url": {"url": url}})

    def _reasoning(self, item: dict[str, Any]) -> None:
        """Add reasoning as OpenRouter's chat form has it; what only its own API can read goes along."""
        details: list[dict[str, Any]] = []
        form = item.get("format")
        more = {"format": form} if type(form) is str else {}
        for member, kind, name in (
            ("summary", "reasoning.summary", "summary"),
            ("content", "reasoning.text", "text"),
        ):
            parts = item.get(member) or []
            if type(parts) is not list or not all(type(part) is dict for part in parts):
                place = f"{self._place}.{member}"
                raise BadRequest(f"{place} must be an array of objects", param=place)
            for index, part in enumerate(parts):
                text = self._text(part, "text", f"{self._place}.{member}[{index}]")
                details.append({"type": kind, name: text, **more})
        if type(item.get("signature")) is str and details:
            details[-1]["signature"] = item["signature"]
        sealed = item.get("encrypted_content")
        if sealed is not None:
            data = self._text(item, "encrypted_content")
            details.append({"type": "reasoning.encrypted", "data": data, "format": REASONING_FORMAT, **more})
        if not details:
            return
        message = self._assistant("content", "refusal", "tool_calls")
        kept = message.setdefault("reasoning_details", [])
        kept += [{**detail, "index": index} for index, detail in enumerate(details, len(kept))]
        text = "".join(detail.get("text") or detail.get("summary") or "" for detail in details)
        if text:
            message["reasoning"] = message.get("reasoning", "") + text
