"""Days as callers write them. They count from 1970, in UTC, as in the ledger."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

YEARS: Final = (1970, 9998)
"""Years that may be named: there are days before the first and after the last, which windows are compared with."""
_EPOCH: Final = date(1970, 1, 1).toordinal()
_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def day_named(text: str) -> int:
    """Return the day that ``text``, such as ``2026-10-05``, names. Raises ``ValueError`` outside ``YEARS``, too."""
    if not _FORM.fullmatch(text) or not YEARS[0] <= int(text[:4]) <= YEARS[1]:
        raise ValueError(text)
    return date.fromisoformat(text).toordinal() - _EPOCH
