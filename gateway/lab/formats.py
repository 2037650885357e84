"""Reading traces of published forms from files, plain or gzip.

A line that is no request is left out and remembered with its number and the reason; with ``strict`` the first one
raises ``TraceError``. A file that cannot be read, or holds no request at all, raises it always.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

from gateway.lab.trace import Arrival, BadLine, Trace, TraceError, chained, named

_MOST_TOKENS: Final = 10_000_000
_GZIP: Final = b"\x1f\x8b"
_LARGEST_FILE: Final = 1 << 30

Numbered = Iterator[tuple[int, "Arrival | str"]]
"""Line numbers with what the line holds: a request, or why it is none."""


@dataclass(frozen=True, slots=True)
class Format:
    """A published form of traces.

    Attributes:
        name: what the command line calls it.
        description: source and columns.
        block_tokens: tokens behind each block id, where there are any.
        read: reads the lines of a text.
    """

    name: str
    description: str
    block_tokens: int
    read: Callable[[io.TextIOBase], Numbered]


def load(path: Path, format_: str, *, strict: bool = False) -> Trace:
    """Return the trace in ``path``, which has the form called ``format_`` (a key of ``FORMATS``)."""
    form = FORMATS[format_]
    arrivals: list[Arrival] = []
    bad: list[BadLine] = []
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
            file.seek(0)
            raw = gzip.GzipFile(fileobj=file) if zipped else file
            content = raw.read(_LARGEST_FILE)
        text = io.StringIO(content.decode("utf-8-sig", errors="replace"), newline=None)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    for number, found in form.read(text):
        if isinstance(found, Arrival):
            arrivals.append(found)
        elif strict:
            raise TraceError(f"{path}:{number}: {found}")
        else:
            bad.append(BadLine(number, found))
    if not arrivals:
        first = f"; line {bad[0].number}: {bad[0].reason}" if bad else ""
        raise TraceError(f"{path}: holds no request in the form {format_!r}{first}")
    arrivals.sort(key=lambda arrival: arrival.at)
    return Trace(named(path), form.block_tokens, tuple(arrivals), tuple(bad))


def _tokens(text: str, least: int) -> int:
    count = int(text)
    if not least <= count <= _MOST_TOKENS:
        raise ValueError(f"{count} is no number of tokens")
    return count


def _seconds(text: str) -> float:
    at = float(text)
    if not math.isfinite(at) or at < 0:
        raise ValueError(f"{text!r} is no time")
    return at


def _timestamp(text: str) -> float:
    """Return seconds since 1970 of a time of day as Azure writes it, with up to seven decimals."""
    head, _, fraction = text.partition(".")
    moment = datetime.strptime(head, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


_COLUMNS: Final[Mapping[str, str]] = {
    "arrival_s": "at",
    "TIMESTAMP": "stamp",
    "input_tokens": "prompt",
    "ContextTokens": "prompt",
    "output_tokens": "answer",
    "GeneratedTokens": "answer",
    "client": "client",
    "model": "model",
}


def _table(text: io.TextIOBase, wanted: frozenset[str]) -> Numbered:
    """Read a CSV file whose first line names its columns."""
    rows = csv.reader(text)
    try:
        head = [_COLUMNS.get(name.strip(), "") for name in next(rows, [])]
    except csv.Error as error:
        yield 1, str(error)
        return
    missing = wanted - set(head) - ({"at"} if "stamp" in head else set())
    if missing:
        yield 1, f"the first line does not name the columns of this form ({', '.join(sorted(missing))} missing)"
        return
    first = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield rows.line_num, str(error)
            continue
        if not row:
            continue
        if len(row) != len(head):
            yield rows.line_num, f"{len(row)} columns instead of {len(head)}"
            continue
        cells = dict(zip(head, row, strict=True))
        try:
            at = _timestamp(cells["stamp"]) if "stamp" in cells else _seconds(cells["at"])
            first = at if first is None and "stamp" in cells else first
            yield (
                rows.line_num,
                Arrival(
                    at - (first or 0.0),
                    _tokens(cells["prompt"], 1),
                    max(1, _tokens(cells["answer"], 0)),
                    cells.get("client", ""),
                    cells.get("model", ""),
                ),
            )
        except ValueError as error:
            yield rows.line_num, str(error)


Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST_TOKENS)]
Output = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]
Time = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class _Hashed(msgspec.Struct):
    """A line of Mooncake's or Bailian's traces."""

    timestamp: Time
    input_length: Count
    output_length: Output
    hash_ids: list[int] = []
    chat_id: int | str = ""


class _Own(msgspec.Struct):
    """A line of Weir's own form."""

    at: Time
    prompt_tokens: Count
    completion_tokens: Output
    team: str = ""
    model: str = ""
    blocks: list[int] = []


def _hashed(unit: float) -> Callable[[io.TextIOBase], Numbered]:
    decoder = msgspec.json.Decoder(_Hashed)

    def read(text: io.TextIOBase) -> Numbered:
        for number, line in _lines(text):
            try:
                row = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                yield number, str(error)
                continue
            chain = chained(row.hash_ids)
            yield (
                number,
                Arrival(row.timestamp * unit, row.input_length, max(1, row.output_length), "", "", chain),
            )

    return read


def _own(text: io.TextIOBase) -> Numbered:
    decoder = msgspec.json.Decoder(_Own)
    for number, line in _lines(text):
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield number, str(error)
            continue
        yield (
            number,
            Arrival(row.at, row.prompt_tokens, max(1, row.completion_tokens), row.team, row.model, chained(row.blocks)),
        )


def _lines(text: io.TextIOBase) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text, start=1):
        if line.strip():
            yield number, line


_PLAIN: Final = frozenset({"at", "prompt", "answer"})

FORMATS: Final[Mapping[str, Format]] = {
    form.name: form
    for form in (
        Format(
            "azure",
            "Azure 2023: arrival_s,input_tokens,output_tokens, or TIMESTAMP,ContextTokens,GeneratedTokens",
            16,
            lambda text: _table(text, _PLAIN),
        ),
        Format("mooncake", "Mooncake FAST'25: JSON lines, milliseconds, 512-token block ids", 512, _hashed(0.001)),
        Format(
            "vtc",
            "VTC: arrival_s,client,input_tokens,output_tokens",
            16,
            lambda text: _table(text, _PLAIN | {"client"}),
        ),
        Format(
            "servegen",
            "ServeGen: arrival_s,model,client,input_tokens,output_tokens",
            16,
            lambda text: _table(text, _PLAIN | {"client", "model"}),
        ),
        Format("bailian", "Qwen-Bailian: JSON lines, seconds, 16-token block ids", 16, _hashed(1.0)),
        Format(
            "weir",
            "Weir's own: JSON lines of at, prompt_tokens, completion_tokens, team, model, blocks of 64 tokens",
            64,
            _own,
        ),
    )
}
"""The forms there are, by name."""
