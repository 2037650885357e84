"""What may not be in a log, and how it is taken out.

Two promises: no key and no prompt is ever logged. Texts lose whatever looks like a credential, fields that carry
content are dropped by name, objects other than plain values are shown by type only, and tracebacks have no
locals. Messages of errors that by custom quote the value at fault are withheld too, because it may be a caller's
text. Nothing here raises, whatever it is given.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final

from gateway.types.errors import UpstreamFailed

Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None
"""A value every renderer can show."""

MASK: Final = "[redacted]"
WITHHELD: Final = "[message withheld: it may quote a caller's text]"

DROPPED: Final = frozenset(
    {
        "apikey",
        "authorization",
        "body",
        "completion",
        "content",
        "cookie",
        "input",
        "messages",
        "output",
        "password",
        "prompt",
        "prompts",
        "proxyauthorization",
        "secret",
        "setcookie",
        "xapikey",
    }
)
"""Names of fields that are never logged, in lower case without ``_`` and ``-``."""

_SHORTEST_SECRET: Final = 8
_SHORT: Final = 80
_LONGEST_TEXT: Final = 4_000
_LONGEST_INPUT: Final = 64_000
_LONGEST_TRACE: Final = 16_000
_DEPTH: Final = 4
_ITEMS: Final = 32
_FRAMES: Final = 24
_ERRORS: Final = 12

_CREDENTIAL: Final = re.compile(
    r"""
    (?:sk-weir|weir-local)-[A-Za-z0-9_\-]*
    | (?<![A-Za-z0-9])(?:sk|pk|rk)-[A-Za-z0-9_\-.]{6,}              # OpenAI, Anthropic, OpenRouter, ...
    | (?<![A-Za-z0-9])(?:gsk|hf|xai|r8|nvapi|pplx|csk|fw)[_-][A-Za-z0-9_\-]{16,}    # further providers
    | (?<![A-Za-z0-9])AIza[A-Za-z0-9_\-]{20,}
    | (?<![A-Za-z0-9])eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?  # JSON web tokens
    | (?i:\b(?:bearer|basic)(?:\s|%20)+[^\s"',;)}\]]+)
    """,
    re.VERBOSE,
)
_ASSIGNED: Final = re.compile(
    r"""(?ix)
    (\b(?:proxy-)?authorization | \b(?:x-)?api[_-]?key | \bpassword | \bcookie)
    ( ["']\s*[:=,]\s*b?["']? | \s*[:=]\s*b?["']? )
    (?!\[redacted) [^\s"',;&)}\]]+
    """
)
_USERINFO: Final = re.compile(r"://[^/\s:@]*:[^/\s]*@")
_QUOTED_VALUE: Final = re.compile(
    # pydantic, SQLAlchemy, asyncio's tasks, and the headers for a collector that OpenTelemetry cannot read
    r"(\binput_value=|\[parameters: |\bexception=\w+\(|\bHeader format invalid![^:\n]*: )[^\n]*"
)

_known: set[str] = set()
_known_pattern: re.Pattern[str] | None = None


def conceal(secrets: Iterable[str]) -> None:
    """From now on mask each of ``secrets`` wherever it occurs: keys that look like nothing, chosen by an operator.

    Secrets shorter than 8 characters are left out; masking them would garble the log.
    """
    global _known_pattern
    _known.update(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)
    longest_first = sorted(_known, key=len, reverse=True)
    _known_pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
    _redact_short.cache_clear()
    _field_name.cache_clear()


def redact(text: str) -> str:
    """Return ``text`` without credentials, cut to a length a line can hold."""
    if len(text) <= _SHORT:
        return _redact_short(text)
    text = _mask(text[:_LONGEST_INPUT])
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _mask(text: str) -> str:
    """Return ``text`` without credentials."""
    if _known_pattern is not None:
        text = _known_pattern.sub(MASK, text)
    text = _CREDENTIAL.sub(MASK, text)
    text = _ASSIGNED.sub(rf"\1\2{MASK}", text)
    text = _USERINFO.sub(f"://{MASK}@", text)
    return _QUOTED_VALUE.sub(rf"\1{MASK}", text)


@lru_cache(4_096)
def _redact_short(text: str) -> str:
    """Return ``text`` without credentials; models, backends and the like come again and again."""
    return _mask(text)


@lru_cache(1_024)
def _field_name(name: str) -> str | None:
    """Return ``name`` as it is logged, or None when the field is not."""
    return None if name.lower().replace("_", "").replace("-", "") in DROPPED else redact(name)


def plain(value: object, depth: int = 0) -> Plain:
    """Return ``value`` as something that may be logged: redacted, bounded, and of plain types all the way down."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth)
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, BaseException):
        return describe(value)
    if isinstance(value, PurePath | date | Decimal):
        return redact(str(value))
    if depth < _DEPTH:
        if isinstance(value, Mapping):
            return fields(value, depth + 1)
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(item, depth + 1) for item in list(value)[:_ITEMS]]
    return f"<{type(value).__name__}>"


def fields(values: Mapping[Any, object], depth: int = 0) -> dict[str, Plain]:
    """Return the items of ``values`` that may be logged, without those whose names are in ``DROPPED``."""
    kept: dict[str, Plain] = {}
    for name, value in list(values.items())[:_ITEMS]:
        text = _field_name(name if isinstance(name, str) else f"<{type(name).__name__}>")
        if text is not None:
            kept[text] = plain(value, depth)
    return kept


def message(error: BaseException) -> str:
    """Return the message of ``error``, or ``WITHHELD`` where it may quote a caller's text.

    That is a foreign ``ValueError`` or ``LookupError`` and an engine's own refusal, which is in the engine's words.
    """
    own = type(error).__module__.partition(".")[0] == "gateway"
    quotes = isinstance(error, ValueError | LookupError) and not isinstance(error, IndexError)
    if (quotes and not own) or (isinstance(error, UpstreamFailed) and error.quoted):
        return WITHHELD
    try:
        return redact(str(error))
    except Exception:  # noqa: BLE001 - a foreign __str__ may do anything, and a log line must not fail
        return "[no message]"


def describe(error: BaseException) -> str:
    """Return the type of ``error`` and its ``message``."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = message(error)
    return f"{name}: {text}" if text else name


def explain(error: BaseException) -> str:
    """Return the traceback of ``error`` and what led to it: files, lines and functions, never values of variables."""
    lines: list[str] = []
    _explain(error, lines, set())
    text = "".join(lines).rstrip("\n")
    # The end is where it broke, so the beginning is what an endless one loses.
    return text if len(text) <= _LONGEST_TRACE else f"...{text[-_LONGEST_TRACE:]}"


def _explain(error: BaseException, lines: list[str], told: set[int]) -> bool:
    """Append the story of ``error``, causes first; return False when it, or ``_ERRORS`` others, were told before."""
    if id(error) in told or len(told) >= _ERRORS:
        return False
    told.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and _explain(cause, lines, told):
        lines.append("which led to\n")
    if error.__traceback__ is not None:
        lines.append("Traceback (most recent call last):\n")
        lines.extend(traceback.format_tb(error.__traceback__, -_FRAMES))
    lines.append(f"{describe(error)}\n")
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions[:_ERRORS]:
            here = len(lines)
            if _explain(member, lines, told):
                lines.insert(here, "of which one is\n")
    return True
