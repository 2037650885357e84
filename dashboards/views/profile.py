"""One's own page: password, sessions, roles."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from dashboards import door
from dashboards.visit import Page, Visit
from gateway.console.question import CHANGE_PASSWORD, END_SESSION, SESSIONS, SIGN_OUT_EVERYWHERE, Session
from gateway.console.roles import Permission
from gateway.types.errors import BadRequest, Unauthorized

PATH: Final = "/console/profile"


def own(visit: Visit) -> Session:
    """Return the session of who is signed in. Raises ``Unauthorized``."""
    if visit.session is None:
        raise Unauthorized("you are signed out by now")
    return visit.session


async def profile(visit: Visit) -> Response:
    """Show it."""
    return await _page(visit, {})


async def _page(visit: Visit, errors: dict[str, str], status: int = 200) -> Response:
    session = own(visit)
    sessions = await visit.site.books.ask(SESSIONS, (session.user.user_id,))
    return visit.render(
        "profile.html",
        status=status,
        errors=errors,
        form=visit.form,
        sessions=sessions,
        mine=session.session_id.hex()[:16],
        done=visit.asked("done"),
    )


async def change_password(visit: Visit) -> Response:
    """Change one's own password; other browsers are signed out."""
    session, form = own(visit), visit.form
    if form.get("password") != form.get("again"):
        return await _page(visit, {"again": "the two passwords differ"}, 400)
    token = door.session_token(visit.request)
    try:
        await visit.site.books.ask(
            CHANGE_PASSWORD, (session.user.user_id, form.get("present", ""), form.get("password", ""), token)
        )
    except BadRequest as error:
        return await _page(visit, {error.param or "password": error.message}, 400)
    return visit.go(PATH, done="password")


async def end_session(visit: Visit) -> Response:
    """Sign one other browser out."""
    await visit.site.books.ask(END_SESSION, (own(visit).user.user_id, visit.form.get("session", "")))
    return visit.go(PATH, done="session")


async def everywhere(visit: Visit) -> Response:
    """Sign out everywhere, here too."""
    await visit.site.books.ask(SIGN_OUT_EVERYWHERE, (own(visit).user.user_id,))
    response = visit.go("/console/sign-in")
    response.delete_cookie(door.SESSION, path="/")
    return response


PAGES: Final = (
    Page(PATH, profile, Permission.PROFILE),
    Page(f"{PATH}/password", change_password, Permission.PROFILE, ("POST",)),
    Page(f"{PATH}/end-session", end_session, Permission.PROFILE, ("POST",)),
    Page(f"{PATH}/sign-out-everywhere", everywhere, Permission.PROFILE, ("POST",)),
)
