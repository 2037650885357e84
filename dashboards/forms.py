"""Reading fields of forms. A value that cannot be is a ``Wrong`` that names its field, where the form says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from gateway.types.errors import WeirError
from gateway.types.keys import KeyLimits
from gateway.types.money import MoneyError, nano_from_usd

STALE: Final = "somebody else changed this meanwhile: look at what it is now, then send it again"

_GROUPED: Final = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
"""A number with a comma before each three digits: any other comma may be somebody's decimal point."""
_LARGEST: Final = 2**63 - 1
"""What a column of the database holds."""


class Wrong(Exception):
    """A field holds what cannot be; nothing was changed.

    Attributes:
        field: its name.
        message: what is wrong, for a person.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def number(form: Mapping[str, str], name: str) -> int | None:
    """Return a whole number above 0, or None for an empty field."""
    text = _plain(form.get(name, "").replace(" ", ""))
    if not text:
        return None
    found = whole(text)
    if found is None or not 0 < found <= 10**12:
        raise Wrong(name, "a whole number above 0, or nothing for no limit")
    return found


def limits(form: Mapping[str, str]) -> KeyLimits:
    """Return the limits of a key."""
    return KeyLimits(number(form, "rpm"), number(form, "tpm"), number(form, "concurrent"))


def day_end(form: Mapping[str, str], name: str) -> int | None:
    """Return the end of a day (UTC) in microseconds since 1970, or None for an empty field."""
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Wrong(name, "a day such as 2027-01-31") from None
    return int((day.timestamp() + 86_400) * 1_000_000)


def dollars(form: Mapping[str, str], name: str) -> int:
    """Return an amount of USD in nano-USD."""
    text = _plain(form.get(name, "").strip().removeprefix("$"))
    try:
        return nano_from_usd(text)
    except MoneyError as error:
        raise Wrong(name, f"{error.message}: {error.mend}") from None


def whole(text: str) -> int | None:
    """Return the whole number that ``text`` is in plain digits; None for any other text, and for more than fits."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_LARGEST)):
        return None
    return int(text) if int(text) <= _LARGEST else None


def cursor(text: str) -> int:
    """Return the id before which a page of a list begins; 0, which is the newest, for anything else."""
    return whole(text) or 0


def names(form: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    """Return words separated by commas, spaces or lines; None for an empty field."""
    found = tuple(dict.fromkeys(form.get(name, "").replace(",", " ").split()))
    return found or None


def problem(error: WeirError | Wrong, default: str) -> dict[str, str]:
    """Return what is wrong by field, for the form to show."""
    if isinstance(error, Wrong):
        return {error.field: error.message}
    return {error.param or default: error.message}


def _plain(text: str) -> str:
    """Return ``text`` without the commas that group its digits; with other ones it is no number."""
    text = text.strip()
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text
