"""Teams and budgets that the configuration file names: made when it is read, and again when it changes."""

from __future__ import annotations

from typing import Final, Protocol

from gateway.config.snapshot import ConfigSnapshot
from gateway.telemetry import logs
from gateway.types.budgets import FILE_BUDGETS, NewBudget, Scope, Window
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.keys import KeyAdmin
from gateway.types.method import Asking

_log: Final = logs.logger(__name__)


class Books(KeyAdmin, Asking, Protocol):
    """The keeper, as far as it makes teams and budgets."""


async def declare(books: Books, snapshot: ConfigSnapshot) -> None:
    """Make what a changed file names; what cannot be made now is logged, and what is there stays."""
    for team in snapshot.teams:
        try:
            await books.create_team(team.slug, team.name)
        except BadRequest:
            continue  # it is there
        except Unavailable as error:
            _log.warning("a team of the configuration could not be made", team=team.slug, reason=str(error))
    try:
        await books.ask(FILE_BUDGETS, (file_budgets(snapshot),))
    except (BadRequest, Unavailable) as error:
        _log.warning("the budgets of the configuration could not be set", reason=str(error))


def file_budgets(snapshot: ConfigSnapshot) -> tuple[NewBudget, ...]:
    """Return the budgets of the configuration file as the keeper takes them."""
    return tuple(
        NewBudget(
            Scope(spec.key, spec.team, spec.model),
            Window(spec.window),
            spec.limit_nano,
            spec.hard,
            spec.alerts,
            source="file",
        )
        for spec in snapshot.budgets
    )
