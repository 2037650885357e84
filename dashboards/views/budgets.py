"""Budgets: where each stands, making, changing and deleting them; which alerts there were and what came of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from starlette.responses import Response

from dashboards import forms
from dashboards.visit import Page, Visit
from gateway.console.measure import KEY_NAMES
from gateway.console.roles import Permission
from gateway.types.budgets import (
    ALERTS,
    BUDGETS,
    DELETE_BUDGET,
    ENDED_BUDGETS,
    SET_BUDGET,
    AlertsQuestion,
    BudgetState,
    NewBudget,
    Scope,
    Window,
)
from gateway.types.errors import BadRequest, NotFound

PATH: Final = "/console/budgets"
WINDOWS: Final = tuple((window.value, window.value) for window in Window)


async def listed(visit: Visit) -> Response:
    """List the budgets within reach."""
    return await _listed(visit, {})


async def _listed(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    books = visit.site.books
    ended = visit.asked("revoked") == "yes"
    found = await (books.ask(ENDED_BUDGETS, (None,)) if ended else books.ask(BUDGETS, (None, None)))
    named = tuple({state.budget.scope.key_id for state in found if state.budget.scope.key_id})
    keys = {each.key_id: each for each in await books.ask(KEY_NAMES, (named,))} if named else {}

    def team_of(state: BudgetState) -> str:
        scope = state.budget.scope
        return scope.team or (keys[scope.key_id].team if scope.key_id in keys else "")

    states = [state for state in found if visit.may(Permission.BUDGETS_SEE, team_of(state))]
    reach = visit.reach(Permission.BUDGETS_SEE)
    alerts = await books.ask(ALERTS, (AlertsQuestion(None if reach.everything else tuple(sorted(reach.teams))),))
    states.sort(key=lambda state: -(state.spent / state.budget.limit_nano if state.budget.limit_nano else 1))
    return visit.render(
        "budgets.html",
        status=status,
        states=states,
        ended=ended,
        alerts=alerts,
        keys=keys,
        changes=visit.may(Permission.BUDGETS_CHANGE),
        windows=WINDOWS,
        teams=[team.slug for team in await books.teams()] if visit.may(Permission.BUDGETS_CHANGE) else [],
        models=sorted(visit.site.registry.fleet.models),
        errors=errors,
        form=visit.form,
        done=visit.asked("done"),
    )


async def put(visit: Visit) -> Response:
    """Set a budget; the one of the same scope and window is replaced, unless it changed since the form was loaded."""
    form = visit.form
    try:
        alerts = tuple(
            sorted({int(part) for part in form.get("alerts", "").replace(",", " ").replace("%", " ").split()})
        )
    except ValueError:
        return await _listed(visit, {"alerts": "percentages such as 50, 80, 100"}, 400)
    try:
        new = NewBudget(
            Scope(form.get("key", "").strip(), form.get("team", ""), form.get("model", "")),
            Window(form.get("window", "monthly")),
            forms.dollars(form, "limit"),
            form.get("hard") == "yes",
            alerts,
        )
        known = {state.budget.budget_id for state in await visit.site.books.ask(BUDGETS, (None, None))}
        if new.budget_id in known and form.get("replace") != "yes":
            return await _listed(visit, {"replace": "there is such a budget: tick this to replace it"}, 409)
        await visit.site.books.ask(SET_BUDGET, (new,))
    except (forms.Wrong, BadRequest) as error:
        return await _listed(visit, forms.problem(error, "limit"), 400)
    except ValueError:
        return await _listed(visit, {"window": "choose a window"}, 400)
    return visit.go(PATH, done="set")


async def delete(visit: Visit) -> Response:
    """Delete a budget."""
    with suppress(NotFound):  # somebody else was first: it is gone, which is what was wanted
        await visit.site.books.ask(DELETE_BUDGET, (visit.form.get("budget", "")[:64],))
    return visit.go(PATH, done="deleted")


PAGES: Final = (
    Page(PATH, listed, Permission.BUDGETS_SEE),
    Page(PATH, put, Permission.BUDGETS_CHANGE, ("POST",)),
    Page(f"{PATH}/delete", delete, Permission.BUDGETS_CHANGE, ("POST",)),
)
