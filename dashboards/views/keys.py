"""Keys: listing, making, changing, rotating and revoking them. A key is shown when it is made, and never again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

from starlette.responses import Response

from dashboards import forms
from dashboards.visit import Page, Visit
from gateway.access.keys import label
from gateway.console.measure import USAGE, Pick, UsageQuestion
from gateway.console.roles import Permission
from gateway.types.budgets import BUDGETS
from gateway.types.errors import BadRequest, NotFound
from gateway.types.keys import IssuedKey, KeyPatch, KeyRecord, NewKey

PATH: Final = "/console/keys"
OVERLAPS: Final = (("0", "at once"), ("3600", "after an hour"), ("86400", "after a day"), ("604800", "after a week"))
SORTS: Final = (("new", "Newest"), ("used", "Last used"), ("name", "Name"), ("spend", "Spend this month"))
PAGE: Final = 100


async def teams_within(visit: Visit, permission: Permission) -> list[str]:
    """Return the slugs of the teams that a permission of the visitor reaches."""
    return [team.slug for team in await visit.site.books.teams() if visit.may(permission, team.slug)]


async def listed(visit: Visit) -> Response:
    """List the keys within reach."""
    team, wanted, sort = visit.asked("team"), visit.asked("q").lower(), visit.asked("sort", "new")
    teams = await teams_within(visit, Permission.KEYS_SEE)
    if team and team not in teams:
        raise NotFound("there is no such team")
    records = [
        record
        for record in await visit.site.books.keys(team or None)
        if record.team in teams and (not wanted or wanted in f"{record.name} {record.key_id} {record.team}".lower())
    ]
    month, ever = await _charged(visit, team) if records else ({}, {})
    if sort == "used":
        records.sort(key=lambda record: -(record.last_used_at or 0))
    elif sort == "name":
        records.sort(key=lambda record: record.name.lower())
    elif sort == "spend":
        records.sort(key=lambda record: -month.get(record.key_id, 0))
    page = visit.page_number
    start = PAGE * (page - 1)
    return visit.render(
        "keys.html",
        keys=records[start : start + PAGE],
        count=len(records),
        page=page,
        pages=-(-len(records) // PAGE),
        month=month,
        ever=ever,
        label=label,
        teams=teams,
        team=team,
        wanted=visit.asked("q"),
        sort=sort,
        sorts=SORTS,
        makes=visit.may(Permission.KEYS_CHANGE),
        manages=visit.may(Permission.USERS_CHANGE),
        done=visit.asked("done"),
    )


async def _charged(visit: Visit, team: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return what each key within reach was charged this UTC month and ever, in nano-USD."""
    reached = visit.reach(Permission.KEYS_SEE)
    pick = Pick(None if reached.everything else tuple(sorted(reached.teams)), team)
    today = visit.now_us // 86_400_000_000
    month = today - datetime.fromtimestamp(visit.now_us / 1e6, UTC).day + 1
    questions = [UsageQuestion("day", first, today, "key_id", pick, series=False) for first in (month, 0)]
    sums = await asyncio.gather(*(visit.site.books.ask(USAGE, (question,)) for question in questions))
    one, other = ({row.name: row.charge_nano for row in rows} for rows in sums)
    return one, other


async def new(visit: Visit) -> Response:
    """Show the form for a new key."""
    return await _new(visit, {})


async def _new(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    return visit.render(
        "key_new.html",
        status=status,
        errors=errors,
        form=visit.form or {"team": visit.asked("team")},
        teams=await teams_within(visit, Permission.KEYS_CHANGE),
        models=sorted(visit.site.registry.fleet.models),
    )


async def create(visit: Visit) -> Response:
    """Make a key and show it."""
    form = visit.form
    visit.need(Permission.KEYS_CHANGE, form.get("team", ""))
    try:
        wanted = NewKey(
            form.get("name", "").strip(),
            form.get("team", ""),
            forms.names(form, "models"),
            forms.limits(form),
            forms.day_end(form, "expires_at"),
        )
        issued = await visit.site.books.create_key(wanted)
    except (forms.Wrong, BadRequest) as error:
        return await _new(visit, forms.problem(error, "name"), 400)
    return _issued(visit, issued, "made")


def _issued(visit: Visit, issued: IssuedKey, how: str) -> Response:
    return visit.render("key_issued.html", record=issued.record, key=issued.key, label=label, how=how)


async def _found(visit: Visit, permission: Permission) -> KeyRecord:
    """Return the key that the path names, as long as it is within reach. Raises ``NotFound``."""
    try:
        record = await visit.site.books.key(visit.named("key_id"))
    except NotFound:
        raise NotFound("there is no such key") from None
    if record.revoked_at is not None or not visit.may(permission, record.team):
        raise NotFound("there is no such key")
    return record


async def shown(visit: Visit) -> Response:
    """Show a key."""
    return await _shown(visit, await _found(visit, Permission.KEYS_SEE), {})


async def _shown(visit: Visit, record: KeyRecord, errors: dict[str, str], status: int = 200) -> Response:
    usage = await visit.site.books.key_usage([record.key_id])
    budgets = await visit.site.books.ask(BUDGETS, (None, (record.key_id,)))
    form = visit.form or {
        "name": record.name,
        "models": ", ".join(record.models or ()),
        "rpm": str(record.limits.rpm or ""),
        "tpm": str(record.limits.tpm or ""),
        "concurrent": str(record.limits.concurrent or ""),
    }
    return visit.render(
        "key.html",
        status=status,
        record=record,
        errors=errors,
        form=form,
        label=label,
        usage=usage[record.key_id],
        budgets=[state for state in budgets if state.budget.scope.key_id == record.key_id],
        changes=visit.may(Permission.KEYS_CHANGE, record.team),
        overlaps=OVERLAPS,
        done=visit.asked("done"),
    )


async def update(visit: Visit) -> Response:
    """Change a key, unless somebody else did meanwhile."""
    record, form = await _found(visit, Permission.KEYS_CHANGE), visit.form
    if form.get("version") != str(record.updated_at or 0):
        return await _shown(visit, record, {"version": forms.STALE}, 409)
    try:
        patch = KeyPatch(
            name=form.get("name", "").strip(), models=forms.names(form, "models"), limits=forms.limits(form)
        )
        await visit.site.books.update_key(record.key_id, patch)
    except (forms.Wrong, BadRequest) as error:
        return await _shown(visit, record, forms.problem(error, "name"), 400)
    return visit.go(f"{PATH}/{record.key_id}", done="saved")


async def switch(visit: Visit) -> Response:
    """Switch a key off or on."""
    record = await _found(visit, Permission.KEYS_CHANGE)
    await visit.site.books.update_key(record.key_id, KeyPatch(disabled=visit.form.get("disabled") == "yes"))
    return visit.go(f"{PATH}/{record.key_id}", done="saved")


async def rotate(visit: Visit) -> Response:
    """Give a key a new secret and show it."""
    record = await _found(visit, Permission.KEYS_CHANGE)
    overlap = visit.form.get("overlap", "0")
    if overlap not in dict(OVERLAPS):
        raise BadRequest("choose until when the old secret works", param="overlap")
    return _issued(visit, await visit.site.books.rotate_key(record.key_id, float(overlap)), "rotated")


async def revoke(visit: Visit) -> Response:
    """Revoke a key for good."""
    record = await _found(visit, Permission.KEYS_CHANGE)
    if visit.form.get("confirm", "").strip() != record.key_id:
        return await _shown(visit, record, {"confirm": f"write {record.key_id} to revoke it for good"}, 400)
    await visit.site.books.revoke_key(record.key_id)
    return visit.go(PATH, done="revoked")


PAGES: Final = (
    Page(PATH, listed, Permission.KEYS_SEE),
    Page(f"{PATH}/new", new, Permission.KEYS_CHANGE),
    Page(f"{PATH}/new", create, Permission.KEYS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{key_id}}", shown, Permission.KEYS_SEE),
    Page(f"{PATH}/{{key_id}}", update, Permission.KEYS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{key_id}}/switch", switch, Permission.KEYS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{key_id}}/rotate", rotate, Permission.KEYS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{key_id}}/revoke", revoke, Permission.KEYS_CHANGE, ("POST",)),
)
