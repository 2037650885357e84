"""The turns of a Messages request, said as messages of the chat form.

Blocks that both can say keep their meaning, their order and their cache marks; tool results become messages of their
own, and images in them go into the user message behind. What only messages can say is noted with its place in
``beyond``. Raises ``BadRequest`` naming the member that is wrong, as ``messages.0.content.1.text``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.types.errors import BadRequest
from gateway.types.messages import REASONING_FORMAT

_encode: Final = msgspec.json.Encoder().encode
FAILED: Final = "Error: "
"""How the text of a tool result begins when the tool failed: the chat form has no member that says so."""

Part = dict[str, Any]


class Conversation:
    """Collects the messages of a chat request.

    Attributes:
        messages: in the chat form.
        beyond: the first thing that the chat form cannot say: where and what; ``""`` when there is none.
        unsaid: bytes that engines may read besides the texts of messages: thoughts, and what chat cannot say.
        documents: files in the prompt, whose text is not counted.
    """

    __slots__ = ("beyond", "documents", "messages", "unsaid")

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.beyond = ""
        self.unsaid = 0
        self.documents = 0

    @property
    def begun(self) -> bool:
        """Whether the last turn is the beginning of the answer."""
        last = self.messages[-1] if self.messages else {}
        return last.get("role") == "assistant" and "tool_calls" not in last and isinstance(last.get("content"), str)

    def only(self, path: str, what: str, thing: object = None) -> None:
        """Note that ``what`` stands at ``path``, and only messages can say it."""
        self.beyond = self.beyond or f"{path}: {what}"
        if thing is not None:
            self.unsaid += len(_encode(thing))

    def system(self, content: str | list[dict[str, Any]], path: str = "system") -> None:
        """Take the system prompt, or what the system says between turns; it stands at ``path``."""
        if isinstance(content, list):
            parts = []
            for place, block in enumerate(content):
                where = f"{path}.{place}"
                if block.get("type") != "text":
                    raise _wrong(f"{where}.type", "must be 'text'")
                parts.append(_marked({"type": "text", "text": _text(block, "text", where)}, block, where))
            content = _plain(parts, "\n\n")
        if content:
            self.messages.append({"role": "system", "content": content})

    def turn(self, role: str, content: str | list[dict[str, Any]], path: str) -> None:
        """Take a turn whose content stands at ``path``."""
        if not content:
            raise _wrong(path, "must not be empty")
        if isinstance(content, str):
            self.messages.append({"role": role, "content": content})
        elif role == "user":
            self._user(content, path)
        else:
            self._assistant(content, path)

    def _user(self, blocks: list[dict[str, Any]], path: str) -> None:
        parts: list[Part] = []
        shown: list[Part] = []
        for place, block in enumerate(blocks):
            here = f"{path}.{place}"
            if block.get("type") == "tool_result":
                shown += self._result(block, here)
                continue
            part = self._part(block, here)
            if part is not None:
                parts.append(part)
        parts = shown + parts
        if parts:
            one = len(parts) == 1 and parts[0].keys() == {"type", "text"}
            self.messages.append({"role": "user", "content": parts[0]["text"] if one else parts})

    def _result(self, block: Mapping[str, Any], path: str) -> list[Part]:
        """Take a tool's result; return what it shows besides text."""
        message: dict[str, Any] = {"role": "tool", "tool_call_id": _text(block, "tool_use_id", path)}
        content = block.get("content")
        parts: list[Part] = []
        if isinstance(content, str):
            parts = [{"type": "text", "text": content}]
        elif isinstance(content, list):
            for place, inner in enumerate(content):
                here = f"{path}.content.{place}"
                if not isinstance(inner, dict):
                    raise _wrong(here, "expected an object")
                part = self._part(inner, here)
                if part is not None:
                    parts.append(part)
        elif content is not None:
            raise _wrong(f"{path}.content", "expected a string or an array")
        texts = [part for part in parts if part["type"] == "text"]
        failed = block.get("is_error")
        if failed is not None and not isinstance(failed, bool):
            raise _wrong(f"{path}.is_error", "expected a boolean")
        if failed:
            texts[:1] = [
                {**(texts[0] if texts else {"type": "text"}), "text": FAILED + (texts[0]["text"] if texts else "")}
            ]
        message["content"] = _plain(texts, "\n")
        self.messages.append(_marked(message, block, path))
        return [part for part in parts if part["type"] != "text"]

    def _assistant(self, blocks: list[dict[str, Any]], path: str) -> None:
        texts: list[Part] = []
        thoughts: list[str] = []
        details: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        for place, block in enumerate(blocks):
            here, kind = f"{path}.{place}", block.get("type")
            if kind == "text":
                texts.append(_marked({"type": "text", "text": _text(block, "text", here)}, block, here))
            elif kind == "thinking":
                text, signature = _text(block, "thinking", here), block.get("signature")
                if signature is not None and not isinstance(signature, str):
                    raise _wrong(f"{here}.signature", "expected a string")
                thoughts.append(text)
                self.unsaid += len(text.encode(errors="replace"))
                if signature:
                    detail = {"type": "reasoning.text", "text": text, "signature": signature}
                    details.append({**detail, "format": REASONING_FORMAT, "index": len(details)})
            elif kind == "redacted_thinking":
                detail = {"type": "reasoning.encrypted", "data": _text(block, "data", here)}
                self.unsaid += len(detail["data"])
                details.append({**detail, "format": REASONING_FORMAT, "index": len(details)})
            elif kind == "tool_use":
                calls.append(_call(block, here))
            else:
                self._other(block, here)
        message: dict[str, Any] = {"role": "assistant", "content": _plain(texts, "") if texts else None}
        if any(thoughts):
            message["reasoning"] = "".join(thoughts)
        if details:
            message["reasoning_details"] = details
        if calls:
            message["tool_calls"] = calls
        if texts or calls or details or "reasoning" in message:
            self.messages.append(message)

    def _part(self, block: Mapping[str, Any], path: str) -> Part | None:
        """Return the part that says a block of a user's, or None when no part can."""
        kind = block.get("type")
        part: Part | None
        if kind == "text":
            part = {"type": "text", "text": _text(block, "text", path)}
        elif kind == "image":
            url = self._url(block, path)
            part = None if url is None else {"type": "image_url", "image_url": {"url": url}}
        elif kind == "document":
            part = self._document(block, path)
        elif kind == "search_result":
            part = _search_result(block, path)
        else:
            self._other(block, path)
            return None
        return None if part is None else _marked(part, block, path)

    def _other(self, block: Mapping[str, Any], path: str) -> None:
        kind = block.get("type")
        if not isinstance(kind, str):
            raise _wrong(f"{path}.type", "field required" if kind is None else "expected a string")
        self.only(path, f"a block of type {kind[:64]!r}", block)

    def _url(self, block: Mapping[str, Any], path: str) -> str | None:
        """Return the URL of an image or a document, or None when it has none that others can read."""
        source, path = block.get("source"), f"{path}.source"
        if not isinstance(source, dict):
            raise _wrong(path, "expected an object" if "source" in block else "field required")
        kind = source.get("type")
        if kind == "base64":
            return f"data:{_text(source, 'media_type', path)};base64,{_text(source, 'data', path)}"
        if kind == "url":
            url = _text(source, "url", path)
            if not url.startswith(("https://", "http://")):
                raise _wrong(f"{path}.url", "must be an http or https URL")
            return url
        if not isinstance(kind, str):
            raise _wrong(f"{path}.type", "field required")
        self.only(path, f"a source of type {kind[:64]!r}")
        return None

    def _document(self, block: Mapping[str, Any], path: str) -> Part | None:
        source, title = block.get("source"), block.get("title")
        if title is not None and not isinstance(title, str):
            raise _wrong(f"{path}.title", "expected a string")
        if isinstance(block.get("context"), str):
            self.unsaid += len(block["context"].encode(errors="replace"))
        kind = source.get("type") if isinstance(source, dict) else None
        if isinstance(source, dict) and kind == "text":
            return {"type": "text", "text": _titled(title, _text(source, "data", f"{path}.source"))}
        if isinstance(source, dict) and kind == "content":
            content = source.get("content")
            inner = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if not isinstance(inner, list) or any(not isinstance(each, dict) for each in inner):
                raise _wrong(f"{path}.source.content", "expected a string or an array of objects")
            texts = [each["text"] for each in inner if isinstance(each.get("text"), str)]
            if len(texts) < len(inner):
                self.only(f"{path}.source.content", "a document with more than text", inner)
            return {"type": "text", "text": _titled(title, "\n".join(texts))}
        url = self._url(block, path)
        if url is None:
            return None
        self.documents += 1
        return {"type": "file", "file": {"filename": title or "document.pdf", "file_data": url}}


def _call(block: Mapping[str, Any], path: str) -> dict[str, Any]:
    given = block.get("input")
    if not isinstance(given, dict):
        raise _wrong(f"{path}.input", "expected an object" if "input" in block else "field required")
    function = {"name": _text(block, "name", path), "arguments": _encode(given).decode()}
    return _marked({"id": _text(block, "id", path), "type": "function", "function": function}, block, path)


def _search_result(block: Mapping[str, Any], path: str) -> Part:
    content = block.get("content")
    if not isinstance(content, list):
        raise _wrong(f"{path}.content", "expected an array")
    texts = [each["text"] for each in content if isinstance(each, dict) and isinstance(each.get("text"), str)]
    head = f"{_text(block, 'title', path)} ({_text(block, 'source', path)})"
    return {"type": "text", "text": "\n".join([head, *texts])}


def _titled(title: str | None, text: str) -> str:
    return f"{title}\n\n{text}" if title else text


def _plain(parts: list[Part], between: str) -> str | list[Part]:
    """Return parts that are all text as one text, unless a cache mark stands on one."""
    if any("cache_control" in part for part in parts):
        return parts
    return between.join(part["text"] for part in parts)


def _marked(said: dict[str, Any], block: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return ``said`` with the cache mark of ``block``, if it has one."""
    mark = block.get("cache_control")
    if mark is not None:
        if not isinstance(mark, dict) or not isinstance(mark.get("type"), str):
            raise _wrong(f"{path}.cache_control", "expected an object with a type")
        said["cache_control"] = mark
    return said


def _text(block: Mapping[str, Any], name: str, path: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{path}.{name}", "expected a string" if name in block else "field required")
    return value


def _wrong(path: str, message: str) -> BadRequest:
    return BadRequest(f"{path}: {message}", param=path)
