"""Tables as files: CSV that a spreadsheet and a program read alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from gateway.billing.cell import csv_text, safe

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def harmless(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; a number is none, a negative one neither."""
    return safe(cell) if isinstance(cell, str) and not _NUMBER.fullmatch(cell) else cell


def csv_of(rows: Sequence[dict[str, Any]], name: str, columns: Sequence[str] = ("rank", "name")) -> Response:
    """Return a file with a line for each row; ``columns`` are its head where there is none."""
    head = list(rows[0]) if rows else columns
    text = csv_text([head, *([harmless(row[column]) for column in head] for row in rows)])
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(text, media_type="text/csv", headers=headers)
