"""Request bodies: bytes in, one decoded JSON object out, or a clear refusal.

A body is decoded once, and what goes upstream is encoded from the decoded object, so a duplicate key, an odd number or
a second document can never mean one thing here and another thing to the engine.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar

import msgspec

from gateway.types.errors import BadRequest
from gateway.types.nesting import MAX_DEPTH, too_deep

_decoder: Final = msgspec.json.Decoder()
_encoder: Final = msgspec.json.Encoder()
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_PLACE: Final = re.compile(r"`\$\.?([^`]*)`")

_LONGEST_EXPLAINED: Final = 1 << 20
"""Bytes of a body that is read once more to say what is wrong with it."""

Shape = TypeVar("Shape", bound=msgspec.Struct)


def decode(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in ``raw``.

    Raises:
        BadRequest: it is not UTF-8, not JSON, nested too deeply, not an object, names a key twice, or holds a number
            that is out of range.
    """
    if not raw:
        raise BadRequest("the request body is empty; send a JSON object")
    try:
        value = _decoder.decode(raw)
    except UnicodeDecodeError:
        raise BadRequest(f"the request body is not UTF-8 (byte {_first_strange(raw)})") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None
    except msgspec.ValidationError:
        raise BadRequest("the request body holds a number that is out of range") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the request body is not valid JSON: {_halved(raw) or error}") from None
    if type(value) is not dict:
        raise BadRequest("the request body must be a JSON object")
    if _opened(raw) > MAX_DEPTH and too_deep(value):
        raise BadRequest(f"the request body is nested too deeply, over {MAX_DEPTH} levels")
    _refuse_duplicates(raw, value)
    return value


def shape(body: dict[str, Any], kind: type[Shape]) -> Shape:
    """Return ``body`` read as ``kind``. Raises ``BadRequest`` naming the field with the wrong type."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        param = place.group(1) if place else None
        message = text.replace(" - at `$`", "").replace("`$.", "`")
        raise BadRequest(message[:1].lower() + message[1:], param=param or None) from None


def _first_strange(raw: bytes) -> int:
    """Return where ``raw`` ceases to be UTF-8; the parser counts from the beginning of the text that it is in."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(raw)


def _halved(raw: bytes) -> str:
    """Return the words for a body whose one fault is half of a surrogate pair, else ``""``; the parser has others."""
    if len(raw) > _LONGEST_EXPLAINED or not _SURROGATE.search(raw):
        return ""
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    return "half of a surrogate pair, as of an emoji that was cut in two"


def _opened(raw: bytes) -> int:
    """Return how many brackets ``raw`` has that may open something; any number over ``MAX_DEPTH`` for more than that.

    Taking them out tells: among much text it finds the few there are ten times as fast as ``bytes.count``.
    """
    most = MAX_DEPTH + 1
    return 2 * len(raw) - len(raw.replace(b"{", b"", most)) - len(raw.replace(b"[", b"", most))


def _refuse_duplicates(raw: bytes, value: dict[str, Any]) -> None:
    r"""Refuse a body that names a key twice in one object.

    A body that is its own re-encoding, as most clients write it, names none twice. Every key has a colon, so neither
    does one with as many colons as its re-encoding. Only when the counts differ is it read again, with a parser that
    sees every pair. A body made to fool the count (a duplicate key and a colon written ``\u003a``) is harmless: the
    engine gets the decoded object.
    """
    canonical = _encoder.encode(value)
    if raw == canonical or raw.count(b":") == canonical.count(b":"):
        return
    try:
        json.loads(raw, object_pairs_hook=_unique)
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequest(f"the request body names the key {name[:64]!r} twice", param=name[:64])
        found[name] = value
    return found
