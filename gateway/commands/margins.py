"""What ``weir prices`` reports: margins, hours of own machines, invoices of providers.

What is refused is a ``WeirError``.
"""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.console import Json, fail, print_json, table
from gateway.commands.environment import with_keeper

_From = Annotated[str, typer.Option("--from", help="First UTC day, such as 2026-11-01.")]
_To = Annotated[str, typer.Option("--to", help="Last UTC day.")]


def margin(first: _From, last: _To, as_json: Json = False) -> None:
    """Show what was charged and what it cost, per day, model and endpoint, and tokens per dollar."""
    from gateway.tariff.form import day_of
    from gateway.tariff.margin import MARGIN
    from gateway.tariff.report import margin_form

    days = day_of(first, "--from"), day_of(last, "--to")
    with working("adding up"):
        lines = with_keeper(lambda keeper: keeper.ask(MARGIN, days), fresh=True)
    document = margin_form(lines)
    if as_json:
        print_json(document)
        return
    names = ("charged_usd", "cost_usd", "margin_usd", "tokens", "tokens_per_usd_charged", "tokens_per_usd_of_cost")
    rows = [
        (
            line["day"] or "all",
            "idle" if line["idle"] else line["model"] or "",
            line["endpoint"] or "",
            *(line[name] or "" for name in names),
        )
        for line in (*document["data"], document["total"])
    ]
    table(("day", "model", "endpoint", "charged", "cost", "margin", "tokens", "per $ charged", "per $ of cost"), rows)


def allocation(
    first: _From,
    last: _To,
    backend: Annotated[str | None, typer.Option(help="Only this backend.")] = None,
    as_json: Json = False,
) -> None:
    """Show what the hours of own machines cost, and what they were used for."""
    from gateway.tariff.form import day_of
    from gateway.tariff.margin import ALLOCATION
    from gateway.tariff.report import allocation_form

    hours = day_of(first, "--from") * 24, day_of(last, "--to") * 24 + 23
    with working("reading hours"):
        lines = with_keeper(lambda keeper: keeper.ask(ALLOCATION, (*hours, backend)))
    document = allocation_form(lines)
    if as_json:
        print_json(document)
        return
    rows = [
        (
            line["hour"],
            line["backend"],
            line["model"] or "idle",
            line["endpoint"] or "",
            line["share"],
            line["cost_usd"],
            line["tokens"],
            line["measure"] + ("" if line["final"] else ", not final"),
        )
        for line in document
    ]
    table(("hour", "backend", "model", "endpoint", "share", "cost", "tokens", "by"), rows)


def reconcile(
    provider: Annotated[str, typer.Option(help="Slug of the provider.")],
    file: Annotated[Path, typer.Option(help="Its invoice, CSV: day, model, cost_usd and, if known, tokens.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare.")] = False,
    as_json: Json = False,
) -> None:
    """Compare a provider's invoice with the recorded cost; differences become corrections of the owner's cost."""
    import hashlib

    from gateway.billing.invoice import read_invoice
    from gateway.billing.methods import RECONCILE
    from gateway.tariff.form import day_text
    from gateway.types.money import usd_text

    data = bytes_of(file)
    lines = read_invoice(data)
    digest = hashlib.sha256(data).hexdigest()
    with working("comparing with the ledger"):
        found = with_keeper(lambda keeper: keeper.ask(RECONCILE, (provider, lines, digest, dry_run)), fresh=True)
    document = [
        {
            "day": day_text(each.day),
            "model": each.model,
            "invoiced_usd": None if each.invoiced is None else usd_text(each.invoiced),
            "recorded_usd": usd_text(each.recorded),
            "difference_usd": usd_text((each.invoiced or 0) - each.recorded),
            "invoiced_tokens": None if each.invoiced_tokens is None else str(each.invoiced_tokens),
            "recorded_tokens": str(each.recorded_tokens),
            "outcome": each.outcome,
        }
        for each in found
    ]
    if as_json:
        print_json({"provider": provider, "file_sha256": digest, "dry_run": dry_run, "lines": document})
        return
    names = ("day", "model", "invoiced_usd", "recorded_usd", "difference_usd", "outcome")
    table(names, [tuple(line[name] or "" for name in names) for line in document])


def bytes_of(path: Path) -> bytes:
    """Return the content of a file, or end the command with a sentence."""
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", 2)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something is going on, on a terminal's standard error."""
    import sys

    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
