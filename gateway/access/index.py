"""Which budgets a request concerns, found by its key, its team and the models that may answer it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.access.escrow import Share
from gateway.types.budgets import Budget, Spend, Window, day_of

_MOST_STARTS = 64


class BudgetIndex:
    """Budgets by whom they are for.

    Args:
        budgets: those that count.
    """

    __slots__ = ("_keys", "_models", "_starts", "_teams")

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self._keys: dict[str, list[Budget]] = {}
        self._teams: dict[str, list[Budget]] = {}
        self._models: dict[str, list[Budget]] = {}
        self._starts: dict[tuple[Window, int], int] = {}
        for budget, scope in ((each, scope) for each in budgets for scope in each.scopes):
            if scope.key_id:
                self._keys.setdefault(scope.key_id, []).append(budget)
            elif scope.team:
                self._teams.setdefault(scope.team, []).append(budget)
            else:
                self._models.setdefault(scope.model, []).append(budget)

    def shares(self, key_id: str, spend: Spend) -> list[Share]:
        """Return the pools that a request concerns; none when no hard budget does."""
        found = []
        day = day_of(spend.at_ms)
        for budgets in (self._keys.get(key_id), self._teams.get(spend.team)):
            for budget in budgets or ():
                scope = budget.scope
                if scope.team in ("", spend.team) and (not scope.model or scope.model in spend.models):
                    found.append(((budget.budget_id, self._start(budget.window, day)), scope.model))
        for model in spend.models if self._models else ():
            named = self._models.get(model, ())
            found.extend(((budget.budget_id, self._start(budget.window, day)), model) for budget in named)
        return found

    def _start(self, window: Window, day: int) -> int:
        start = self._starts.get((window, day))
        if start is None:
            if len(self._starts) > _MOST_STARTS:
                self._starts.clear()
            start = self._starts[window, day] = window.start(day)
        return start
