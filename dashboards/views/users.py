"""Users: who may sign in, with which roles. Owners alone make or change owners."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from dashboards import forms, roles
from dashboards.views.playground import end_keys
from dashboards.views.teams import new_password
from dashboards.visit import Page, Visit
from gateway.console.question import (
    CREATE_USER,
    SET_PASSWORD,
    SIGN_OUT_EVERYWHERE,
    UPDATE_USER,
    USERS,
    NewUser,
    User,
    UserPatch,
)
from gateway.console.roles import Grant, Permission, Role
from gateway.types.errors import BadRequest, Forbidden, NotFound

PATH: Final = "/console/users"


async def listed(visit: Visit) -> Response:
    """List all users."""
    return await _listed(visit, {})


async def _listed(
    visit: Visit, errors: dict[str, str], status: int = 200, *, password: str = "", whose: str = ""
) -> Response:
    return visit.render(
        "users.html",
        status=status,
        users=await visit.site.books.ask(USERS),
        roles=roles.offered(visit, "no role everywhere"),
        errors=errors,
        form=visit.form,
        password=password,
        whose=whose,
        touches=lambda user: _touches(visit, user),
        role_of=role_of,
        done=visit.asked("done"),
    )


def role_of(user: User) -> str:
    """Return the role that a user has everywhere, ``""`` for none."""
    return next((grant.role.value for grant in user.grants if not grant.team), "")


def _touches(visit: Visit, user: User) -> bool:
    """Return whether the visitor may change ``user``: an owner is changed by owners alone."""
    return roles.may_give(visit, role_of(user))


def _role(visit: Visit) -> tuple[Grant, ...]:
    """Return the role everywhere that the form asks for. Raises ``BadRequest`` and ``Forbidden``."""
    wanted = visit.form.get("role", "")
    if not wanted:
        return ()
    try:
        role = Role(wanted)
    except ValueError:
        raise BadRequest("choose a role", param="role") from None
    if not roles.may_give(visit, wanted):
        raise Forbidden("owners alone make owners")
    return (Grant(role),)


async def create(visit: Visit) -> Response:
    """Make a user and show their first password, unless they sign in through the identity provider."""
    sso = visit.form.get("how") == "sso"
    password = "" if sso else new_password()
    try:
        wanted = NewUser(visit.form.get("login", ""), visit.form.get("name", ""), _role(visit), password or None)
        user = await visit.site.books.ask(CREATE_USER, (wanted,))
    except BadRequest as error:
        return await _listed(visit, forms.problem(error, "login"), 400)
    if sso:
        return visit.go(PATH, done="made")
    visit.form = {}
    return await _listed(visit, {}, password=password, whose=user.login)


async def _found(visit: Visit) -> User:
    for user in await visit.site.books.ask(USERS):
        if user.user_id == visit.named("user_id"):
            if not _touches(visit, user):
                raise Forbidden("owners alone change owners")
            return user
    raise NotFound("there is no such user")


async def update(visit: Visit) -> Response:
    """Change a user's role everywhere; roles in teams stay."""
    user = await _found(visit)
    try:
        user = await visit.site.books.ask(UPDATE_USER, (user.user_id, UserPatch(grants=_role(visit), within="")))
    except BadRequest as error:
        return await _listed(visit, {f"user {user.user_id}": error.message}, 400)
    await end_keys(visit, user)
    return visit.go(PATH, done="saved")


async def switch(visit: Visit) -> Response:
    """Switch a user off, which signs them out everywhere, or on again."""
    user = await _found(visit)
    try:
        patch = UserPatch(disabled=visit.form.get("disabled") == "yes")
        user = await visit.site.books.ask(UPDATE_USER, (user.user_id, patch))
    except BadRequest as error:
        return await _listed(visit, {f"user {user.user_id}": error.message}, 400)
    await end_keys(visit, user)
    return visit.go(PATH, done="saved")


async def new_password_for(visit: Visit) -> Response:
    """Give a user another password, shown once; they are signed out everywhere."""
    user = await _found(visit)
    password = new_password()
    await visit.site.books.ask(SET_PASSWORD, (user.user_id, password, True))
    return await _listed(visit, {}, password=password, whose=user.login)


async def sign_out(visit: Visit) -> Response:
    """Sign a user out everywhere."""
    await visit.site.books.ask(SIGN_OUT_EVERYWHERE, ((await _found(visit)).user_id,))
    return visit.go(PATH, done="out")


PAGES: Final = (
    Page(PATH, listed, Permission.USERS_CHANGE),
    Page(PATH, create, Permission.USERS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{user_id}}", update, Permission.USERS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{user_id}}/switch", switch, Permission.USERS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{user_id}}/password", new_password_for, Permission.USERS_CHANGE, ("POST",)),
    Page(f"{PATH}/{{user_id}}/sign-out", sign_out, Permission.USERS_CHANGE, ("POST",)),
)
