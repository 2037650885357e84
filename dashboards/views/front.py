"""The door: signing in and out, the first owner, the look, and what is not there."""

from __future__ import annotations

import time
from typing import Final

from starlette.responses import Response

from dashboards import door
from dashboards.visit import SIGN_IN as PATH
from dashboards.visit import Page, Visit
from gateway.console.question import FIRST_OWNER, SIGN_IN, SIGN_OUT, VIRGIN, SignedIn, SignIn
from gateway.console.roles import Permission
from gateway.types.errors import Forbidden, NotFound, Unavailable, WeirError

WELCOME: Final = "/console/welcome"
_YEAR: Final = 365 * 86_400


async def sign_in(visit: Visit) -> Response:
    """Show the form, or the one for the first owner as long as there is nobody."""
    if visit.session is not None:
        return visit.go(door.local_path(visit.asked("next", "/console")))
    if await visit.site.books.ask(VIRGIN):
        return visit.go(WELCOME)
    return _form(visit, {})


async def send_sign_in(visit: Visit) -> Response:
    """Sign in with login and password."""
    who = SignIn(
        visit.form.get("login", "")[:200], visit.form.get("password", "")[:1_000], visit.address, _agent(visit)
    )
    try:
        found = await visit.site.books.ask(SIGN_IN, (who,))
    except Unavailable:
        raise
    except WeirError as error:
        return _form(visit, {"login": error.message}, error.code)
    return enter(visit, found, visit.form.get("next", ""))


def _form(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    oidc = visit.site.config().console.oidc
    wanted = door.local_path(visit.form.get("next") or visit.asked("next", "/console"))
    response = visit.render(
        "sign_in.html", status=status, errors=errors, form=visit.form, next=wanted, oidc=oidc.label if oidc else ""
    )
    door.keep(response, visit.request, door.VISIT, visit.visit_cookie)
    return response


def enter(visit: Visit, found: SignedIn, wanted: str) -> Response:
    """Return the way in for who has just signed in, with a new cookie: an old one is of no use to anybody."""
    response = visit.go(door.local_path(wanted))
    left = max(1, (found.session.expires_at - time.time_ns() // 1_000) // 1_000_000)
    door.keep(response, visit.request, door.SESSION, found.token, left)
    response.delete_cookie(door.VISIT, path="/")
    return response


async def welcome(visit: Visit) -> Response:
    """Show the form that makes the first owner."""
    if not await visit.site.books.ask(VIRGIN):
        return visit.go(PATH)
    return _welcome(visit, {})


async def send_welcome(visit: Visit) -> Response:
    """Make the first owner, for who knows the management key. It opens the console this once."""
    if not await visit.site.books.ask(VIRGIN):
        raise Forbidden("there is an owner already: sign in with a login and a password")
    key = visit.form.get("key", "").strip()
    if not visit.site.accepts(key.encode(), visit.now_us):
        return _welcome(visit, {"key": "this is not the management key"}, 401)
    if visit.form.get("password") != visit.form.get("again"):
        return _welcome(visit, {"again": "the two passwords differ"}, 400)
    who = SignIn(visit.form.get("login", ""), visit.form.get("password", ""), visit.address, _agent(visit))
    try:
        found = await visit.site.books.ask(FIRST_OWNER, (who,))
    except (Unavailable, Forbidden):
        raise
    except WeirError as error:
        return _welcome(visit, {error.param or "login": error.message}, error.code)
    return enter(visit, found, "/console")


def _welcome(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    response = visit.render("welcome.html", status=status, errors=errors, form=visit.form)
    door.keep(response, visit.request, door.VISIT, visit.visit_cookie)
    return response


async def sign_out(visit: Visit) -> Response:
    """Sign out of this browser."""
    await visit.site.books.ask(SIGN_OUT, (door.session_token(visit.request),))
    response = visit.go(PATH)
    response.delete_cookie(door.SESSION, path="/")
    return response


async def theme(visit: Visit) -> Response:
    """Keep the look that was asked for, and go back."""
    wanted = visit.asked("to")
    response = visit.go(door.local_path(visit.request.query_params.get("back", "/console")[:2_000]))
    if wanted in door.THEMES:
        door.keep(response, visit.request, door.THEME, wanted, _YEAR)
    return response


async def root(visit: Visit) -> Response:
    """Go where a visitor can see something."""
    return visit.go("/rankings" if visit.roleless and visit.site.ranked else "/console")


async def nothing(_visit: Visit) -> Response:
    """Say that there is no such page."""
    raise NotFound("there is no such page")


def _agent(visit: Visit) -> str:
    return visit.request.headers.get("user-agent", "")


PAGES: Final = (
    Page("/", root, None),
    Page("/theme", theme, None),
    Page(PATH, sign_in, None),
    Page(PATH, send_sign_in, None, ("POST",)),
    Page(WELCOME, welcome, None),
    Page(WELCOME, send_welcome, None, ("POST",)),
    Page("/console/sign-out", sign_out, Permission.PROFILE, ("POST",)),
)
LAST: Final = (Page("/console/{path:path}", nothing, Permission.PROFILE, ("GET", "POST")),)
