r"""Halves of characters: what engines write that count in UTF-16 and cut an emoji in two (``"\ud83d"`` alone).

That is JSON, though no text, and the decoder refuses it. Only what it has refused comes here. Halves that follow one
another in the text of a choice, or in the arguments of a call, are joined, over the chunks of a stream too; one that
belongs to nothing becomes U+FFFD, the mark of an unknown character. So do bytes that are no UTF-8, which engines write
that send the bytes of a token as they are: a client that asks one of them itself reads the same. Nothing here raises.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

_TEXTS: Final = ("content", "reasoning_content", "reasoning", "text")
"""Members of a delta, or of a choice of a text completion, whose pieces belong together."""


def read(payload: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``payload`` with the halves in its texts, or None when it has none or is not one."""
    text = payload.decode(errors="replace")
    if "\\ud" not in text and "\\uD" not in text and "\ufffd" not in text:
        return None
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if type(value) is dict else None


def whole(payload: bytes) -> dict[str, Any] | None:
    """As ``read``, of a document that nothing follows: no text in it has half a character."""
    document = read(payload)
    return None if document is None else _mended(document)


class Halves:
    """Joins the texts of one stream."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], str] = {}

    def join(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Return ``chunk`` without half a character; what may go on in the next one waits. None if it cannot be."""
        choices = chunk.get("choices")
        for choice in choices if type(choices) is list else ():
            if type(choice) is dict:
                self._hold(choice)
        return _mended(chunk)

    def _hold(self, choice: dict[str, Any]) -> None:
        """Put what waits before the texts of ``choice``, and take off what is to wait; nothing waits for its end."""
        index, delta = choice.get("index"), choice.get("delta")
        place, said = index if type(index) is int else 0, delta if type(delta) is dict else choice
        over = choice.get("finish_reason") is not None
        for name in _TEXTS:
            self._join(said, name, (place, name), over=over)
        calls = said.get("tool_calls")
        for call in calls if type(calls) is list else ():
            function = call.get("function") if type(call) is dict else None
            if type(function) is dict:
                self._join(function, "arguments", (place, f"call {call.get('index')}"), over=over)

    def _join(self, said: dict[str, Any], name: str, place: tuple[int, str], *, over: bool) -> None:
        text = said.get(name)
        piece = text if type(text) is str else ""
        if not piece and not (over and place in self._waiting):
            return
        piece = self._waiting.pop(place, "") + piece
        if not over and "\ud800" <= piece[-1] <= "\udbff":
            self._waiting[place], piece = piece[-1], piece[:-1]
        said[name] = piece


def _mended(document: dict[str, Any]) -> dict[str, Any] | None:
    try:
        mended: dict[str, Any] = _mend(document)
    except RecursionError:
        return None
    return mended


def _mend(value: Any) -> Any:
    """Return ``value`` with its halves joined, and those that are alone replaced."""
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return value
    if type(value) is dict:
        return {_mend(name): _mend(member) for name, member in value.items()}
    if type(value) is list:
        return [_mend(item) for item in value]
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)
