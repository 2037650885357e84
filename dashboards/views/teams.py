"""Teams and their members. Who has a role everywhere is a member of none; see ``users``."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_urlsafe
from typing import Final

from starlette.responses import Response

from dashboards import forms
from dashboards.span import span_of
from dashboards.views.playground import end_keys
from dashboards.visit import Page, Visit
from gateway.console.measure import USAGE, Pick, UsageQuestion
from gateway.console.question import CREATE_USER, UPDATE_USER, USERS, NewUser, User, UserPatch
from gateway.console.roles import TEAM_ROLES, Grant, Permission, Role
from gateway.types.errors import BadRequest, NotFound
from gateway.types.keys import TeamRecord

PATH: Final = "/console/teams"


async def listed(visit: Visit) -> Response:
    """List the teams within reach."""
    return await _listed(visit, {})


async def _listed(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    books, span = visit.site.books, span_of("30d", visit.now_us)
    teams = [team for team in await books.teams() if visit.may(Permission.TEAMS_SEE, team.slug)]
    pick = Pick(tuple(team.slug for team in teams))
    rows = await books.ask(USAGE, (UsageQuestion("day", span.first, span.last, "team", pick, series=False),))
    keys: dict[str, int] = {}
    if visit.may(Permission.KEYS_SEE):
        for record in await books.keys():
            keys[record.team] = keys.get(record.team, 0) + 1
    return visit.render(
        "teams.html",
        status=status,
        teams=teams,
        usage={row.name: row for row in rows},
        most=max((row.charge_nano for row in rows), default=0),
        keys=keys,
        makes=visit.may(Permission.TEAMS_MAKE),
        errors=errors,
        form=visit.form,
        done=visit.asked("done"),
    )


async def create(visit: Visit) -> Response:
    """Make a team."""
    slug, name = visit.form.get("slug", "").strip(), visit.form.get("name", "").strip()
    try:
        team = await visit.site.books.create_team(slug, name or slug)
    except BadRequest as error:
        return await _listed(visit, forms.problem(error, "slug"), 400)
    return visit.go(f"{PATH}/{team.slug}", done="made")


async def _found(visit: Visit, permission: Permission) -> TeamRecord:
    slug = visit.named("slug")
    for team in await visit.site.books.teams():
        if team.slug == slug and visit.may(permission, slug):
            return team
    raise NotFound("there is no such team")


def members(users: Sequence[User], slug: str) -> list[tuple[User, Role]]:
    """Return who has a role in a team."""
    return [(user, grant.role) for user in users for grant in user.grants if grant.team == slug]


async def shown(visit: Visit) -> Response:
    """Show a team."""
    return await _shown(visit, await _found(visit, Permission.TEAMS_SEE), {})


async def _shown(
    visit: Visit, team: TeamRecord, errors: dict[str, str], status: int = 200, password: str = ""
) -> Response:
    books, span = visit.site.books, span_of("30d", visit.now_us)
    rows = await books.ask(
        USAGE, (UsageQuestion("day", span.first, span.last, "key_id", Pick(team=team.slug), series=False),)
    )
    keys = await books.keys(team.slug) if visit.may(Permission.KEYS_SEE, team.slug) else ()
    return visit.render(
        "team.html",
        status=status,
        team=team,
        members=members(await books.ask(USERS), team.slug),
        keys=keys,
        usage={row.name: row for row in rows},
        charge=sum(row.charge_nano for row in rows),
        tokens=sum(row.tokens for row in rows),
        requests=sum(row.requests for row in rows),
        changes=visit.may(Permission.MEMBERS_CHANGE, team.slug),
        makes_keys=visit.may(Permission.KEYS_CHANGE, team.slug),
        roles=[(role.value, role.value.replace("_", " ")) for role in TEAM_ROLES],
        errors=errors,
        form=visit.form,
        password=password,
        done=visit.asked("done"),
    )


async def add_member(visit: Visit) -> Response:
    """Give somebody a role in a team; who is not known yet becomes a user with a password that is shown once."""
    team = await _found(visit, Permission.MEMBERS_CHANGE)
    login = visit.form.get("login", "").strip().lower()
    password = ""
    try:
        grant = Grant(_role(visit), team.slug)
        user = next((user for user in await visit.site.books.ask(USERS) if user.login == login), None)
        if user is None:
            password = new_password()
            wanted = NewUser(login, visit.form.get("name", ""), (grant,), password)
            await visit.site.books.ask(CREATE_USER, (wanted,))
        else:
            patch = UserPatch(grants=(grant,), within=team.slug)
            await end_keys(visit, await visit.site.books.ask(UPDATE_USER, (user.user_id, patch)))
    except BadRequest as error:
        return await _shown(visit, team, forms.problem(error, "login"), 400)
    if password:
        return await _shown(visit, team, {}, password=password)
    return visit.go(f"{PATH}/{team.slug}", done="member")


async def remove_member(visit: Visit) -> Response:
    """Take somebody's role in a team away."""
    team = await _found(visit, Permission.MEMBERS_CHANGE)
    for user, _role_there in members(await visit.site.books.ask(USERS), team.slug):
        if user.user_id == visit.form.get("user"):
            patch = UserPatch(grants=(), within=team.slug)
            await end_keys(visit, await visit.site.books.ask(UPDATE_USER, (user.user_id, patch)))
    return visit.go(f"{PATH}/{team.slug}", done="removed")


def _role(visit: Visit) -> Role:
    try:
        return Role(visit.form.get("role", ""))
    except ValueError:
        raise BadRequest("choose a role", param="role") from None


def new_password() -> str:
    """Return a password for somebody's first sign-in."""
    return token_urlsafe(15)


PAGES: Final = (
    Page(PATH, listed, Permission.TEAMS_SEE),
    Page(PATH, create, Permission.TEAMS_MAKE, ("POST",)),
    Page(f"{PATH}/{{slug}}", shown, Permission.TEAMS_SEE),
    Page(f"{PATH}/{{slug}}/members", add_member, Permission.MEMBERS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{slug}}/members/remove", remove_member, Permission.MEMBERS_CHANGE, ("POST",)),
)
