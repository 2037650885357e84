"""Tables as files: CSV that a spreadsheet and a program read alike."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from gateway.billing.cell import safe

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def harmless(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; a number is none, a negative one neither."""
    return safe(cell) if isinstance(cell, str) and not _NUMBER.fullmatch(cell) else cell


def csv_of(rows: Sequence[dict[str, Any]], name: str, columns: Sequence[str] = ("rank", "name")) -> Response:
    """Return a file with a line for each row; ``columns`` are its head where there is none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else columns)
    writer.writeheader()
    writer.writerows({key: harmless(each) for key, each in row.items()} for row in rows)
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(out.getvalue(), media_type="text/csv", headers=headers)
