"""``weir billing``: periods, statements and what goes to sinks. What the keeper refuses is a ``WeirError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.console import Json, fail, moment, print_json, say, table
from gateway.commands.environment import with_keeper

app = typer.Typer(help="Billing periods, statements and sinks.", no_args_is_help=True)
Period = Annotated[str, typer.Option("--period", help="The month, such as 2026-10.")]


@app.command("close")
def billing_close(period: Period, as_json: Json = False) -> None:
    """Close a month for good: its statements never change again; what comes late is billed in the next."""
    from gateway.billing import methods
    from gateway.billing.shown import period_data
    from gateway.types.money import usd_text

    found = with_keeper(lambda keeper: keeper.ask(methods.CLOSE, (period,)), configured=True, fresh=True)
    if as_json:
        print_json(period_data(found))
        return
    say(f"{found.period} is closed: {found.lines:,} lines, {usd_text(found.charge_nano)} USD, digest {found.digest}")


@app.command("list")
def billing_list(as_json: Json = False) -> None:
    """List all months with usage."""
    from gateway.billing import methods
    from gateway.billing.shown import period_data
    from gateway.types.money import usd_text

    periods = with_keeper(lambda keeper: keeper.ask(methods.PERIODS), fresh=True)
    if as_json:
        print_json([period_data(each) for each in periods])
        return
    rows = [
        (
            each.period,
            each.state,
            "" if each.closed_us is None else moment(each.closed_us),
            usd_text(each.charge_nano + each.discount_nano),
            usd_text(each.discount_nano),
            usd_text(each.charge_nano),
        )
        for each in periods
    ]
    table(("period", "state", "closed", "list USD", "discount USD", "to pay USD"), rows)


@app.command("statement")
def billing_statement(
    period: Period,
    team: Annotated[str, typer.Option(help="Slug of the team.")],
    form: Annotated[str, typer.Option("--format", help="json, csv, or html to print.")] = "json",
    out: Annotated[Path | None, typer.Option(help="File to write; default standard output.")] = None,
) -> None:
    """Show what a team owes for a month."""
    from gateway.billing import methods

    found = with_keeper(lambda keeper: keeper.ask(methods.STATEMENT, (period, team, form)), configured=True, fresh=True)
    if out is None:
        sys.stdout.write(found.content.decode())
        return
    try:
        out.write_bytes(found.content)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}", 1)
    say(f"{out}: {'closed' if found.closed else 'open'}, sha256 {found.digest}")


@app.command("sinks")
def billing_sinks(
    as_json: Json = False,
    retry: Annotated[str | None, typer.Option(help="Id of an item to try again at once.")] = None,
) -> None:
    """List what goes to sinks, newest first, and what became of it."""
    from gateway.billing import methods
    from gateway.billing.shown import item_data

    if retry is not None:
        items = [with_keeper(lambda keeper: keeper.ask(methods.RETRY, (retry,)))]
    else:
        items = list(with_keeper(lambda keeper: keeper.ask(methods.OUTBOX)))
    shown = [item_data(each) for each in items]
    if as_json:
        print_json(shown)
        return
    rows = [
        (
            each["id"],
            each["sink"] or "all",
            each["state"],
            str(each["attempts"]),
            each["next_at"] or each["done_at"] or "",
            each["error"] or "",
        )
        for each in shown
    ]
    table(("item", "sink", "state", "tries", "next or done", "error"), rows)
