"""What commands print: sentences and tables for people, JSON for programs. Nothing here raises."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(wanted: bool) -> None:
    if wanted:
        from gateway import __version__

        say(__version__)
        raise typer.Exit


def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One endpoint for every app; every token metered once."""


@cache
def _console() -> Console:
    from rich.console import Console

    # Names are what people gave: [prod] is no style and :key: no picture.
    return Console(width=None if sys.stdout.isatty() else 10_000, markup=False, emoji=False)


def say(text: str) -> None:
    """Print ``text`` as it is; without the library of the tables, which a server would carry for its one line."""
    typer.echo(text)


def complain(text: str, *, style: str | None = None) -> None:
    """Print ``text`` to standard error as it is."""
    typer.secho(text, fg=style, err=True)


def fail(message: str, status: int) -> NoReturn:
    """End the command with one sentence and the exit status."""
    complain(message, style="red")
    raise SystemExit(status)


def print_json(document: Any) -> None:
    """Print ``document`` for programs."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whole: folded to the width of a terminal, a line per row for whoever reads it from a pipe."""
    from rich.table import Table

    shown = Table(box=None, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    _console().print(shown, highlight=False)


def iso(microseconds: int | None) -> str | None:
    """Return a time since 1970 as programs read it: ISO 8601 in UTC."""
    if microseconds is None:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(microseconds: int | None) -> str:
    """Return a time since 1970 as people read it."""
    if microseconds is None:
        return "never"
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
