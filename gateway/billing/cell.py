"""Cells of tables that people open in a spreadsheet.

A spreadsheet runs what begins like a formula. Text is therefore led by an apostrophe where it begins so (OWASP ASVS
1.2.10, CWE-1236); numbers are left as they are, negative ones too. Only CSV needs this.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

_DANGEROUS: Final = frozenset("=+-@\t\r\n\0")


def safe(text: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    if text and text[0] in _DANGEROUS:
        return "'" + text.replace("\0", "")
    return text if "\0" not in text else text.replace("\0", "")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows of ready cells as CSV (RFC 4180, lines end with CRLF)."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue()
