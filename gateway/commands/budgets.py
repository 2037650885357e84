"""``weir budgets``: what keys, teams and models may spend. What the keeper refuses is a ``WeirError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import Json, iso, moment, print_json, say, table
from gateway.commands.environment import with_keeper

if TYPE_CHECKING:
    from gateway.types.budgets import BudgetState

app = typer.Typer(help="Budgets: what keys, teams and models may spend.", no_args_is_help=True)


class Period(StrEnum):
    """The windows of budgets, as the command line names them."""

    daily = "daily"
    weekly = "weekly"
    monthly = "monthly"
    total = "total"


@app.command("set")
def budgets_set(
    usd: Annotated[str, typer.Argument(help='USD per window, such as "250" or "0.05".')],
    team: Annotated[str | None, typer.Option(help="Slug of the team whose requests count.")] = None,
    key: Annotated[str | None, typer.Option(help="Id of the key whose requests count.")] = None,
    model: Annotated[str | None, typer.Option(help="Id of the model that answers.")] = None,
    window: Annotated[Period, typer.Option(help="The time it is for, in UTC; weeks begin on Monday.")] = Period.monthly,
    soft: Annotated[bool, typer.Option("--soft", help="Only alert; refuse nothing.")] = False,
    alert: Annotated[
        list[int] | None, typer.Option(help="Percentage at which an alert goes out; may be repeated.")
    ] = None,
) -> None:
    """Set a budget; the one for the same key, team, model and window is replaced."""
    from gateway.types.budgets import PERCENTS, SET_BUDGET, NewBudget, Scope, Window
    from gateway.types.errors import BadRequest
    from gateway.types.money import MoneyError, nano_from_usd

    try:
        limit = nano_from_usd(usd)
    except MoneyError as error:
        raise BadRequest(f"{usd!r} {error.message}: {error.mend}") from None
    alerts = PERCENTS if alert is None else tuple(alert)
    new = NewBudget(Scope(key or "", team or "", model or ""), Window(window.value), limit, not soft, alerts)
    budget = with_keeper(lambda keeper: keeper.ask(SET_BUDGET, (new,)))
    say(f"budget {budget.budget_id}")


@app.command("list")
def budgets_list(
    team: Annotated[str | None, typer.Option(help="Only this team's.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key's.")] = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Only those of keys that are revoked.")] = False,
    as_json: Json = False,
) -> None:
    """List budgets and where they stand now; those of a revoked key only where the key or --revoked is named."""
    from gateway.types.budgets import BUDGETS, ENDED_BUDGETS
    from gateway.types.money import usd_text

    keys = None if key is None else (key,)
    if revoked:
        found = with_keeper(lambda keeper: keeper.ask(ENDED_BUDGETS, (team,)), fresh=True)
        states = [state for state in found if key in (None, state.budget.scope.key_id)]
    else:
        states = list(with_keeper(lambda keeper: keeper.ask(BUDGETS, (team, keys)), fresh=True))
    if as_json:
        print_json([_shown(state) for state in states])
        return
    rows = [
        (
            state.budget.budget_id,
            str(state.budget.scope) + (" (revoked)" if state.budget.ended else ""),
            state.budget.window.value,
            usd_text(state.budget.limit_nano) + ("" if state.budget.hard else " (soft)"),
            usd_text(state.spent),
            usd_text(state.reserved),
            usd_text(state.remaining),
            state.resets or "never",
        )
        for state in states
    ]
    table(("budget", "for", "window", "limit USD", "spent", "reserved", "left", "resets"), rows)


@app.command("delete")
def budgets_delete(budget: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Delete a budget."""
    from gateway.types.budgets import DELETE_BUDGET

    with_keeper(lambda keeper: keeper.ask(DELETE_BUDGET, (budget,)))
    say(f"deleted {budget}")


@app.command("leases")
def budgets_leases(as_json: Json = False) -> None:
    """List what hosts hold of budgets and have not spent yet, as far as the ledger tells."""
    from gateway.types.budgets import LEASES
    from gateway.types.money import usd_text

    leases = with_keeper(lambda keeper: keeper.ask(LEASES))
    if as_json:
        print_json(
            [
                {
                    "host": lease.host,
                    "budget": lease.budget_id,
                    "amount_usd": usd_text(lease.amount),
                    "updated_at": iso(lease.updated_at),
                }
                for lease in leases
            ]
        )
        return
    rows = [(lease.host, lease.budget_id, usd_text(lease.amount), moment(lease.updated_at)) for lease in leases]
    table(("host", "budget", "USD", "written"), rows)


@app.command("release")
def budgets_release(
    host: Annotated[str, typer.Argument(help="Id of the host, as `weir budgets leases` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Give back what a host holds that will never come back; what its lost journal held is then charged to nobody."""
    from gateway.types.budgets import RELEASE
    from gateway.types.money import usd_text

    if not yes:
        typer.confirm(f"Is the host {host} gone for good, with its journal?", abort=True)
    freed = with_keeper(lambda keeper: keeper.ask(RELEASE, (host,)))
    say(f"freed {usd_text(freed)} USD")


def _shown(state: BudgetState) -> dict[str, Any]:
    """Return a budget as JSON-able members; money is decimal text in USD."""
    from gateway.types.money import usd_text

    budget = state.budget
    return {
        "id": budget.budget_id,
        "key": budget.scope.key_id or None,
        "team": budget.scope.team or None,
        "model": budget.scope.model or None,
        "window": budget.window.value,
        "hard": budget.hard,
        "alerts": list(budget.alerts),
        "source": budget.source,
        "revoked": budget.ended,
        "limit_usd": usd_text(budget.limit_nano),
        "spent_usd": usd_text(state.spent),
        "reserved_usd": usd_text(state.reserved),
        "remaining_usd": usd_text(state.remaining),
        "resets_at": state.resets,
    }
