"""One visit of a page: who comes, whether they may, what they sent, and how the answer leaves.

``serve`` is the way of every request: session, permission, form, view. A ``WeirError`` of a view becomes a page with
its status; a database that is away becomes a page that says so and that inference goes on. A defect is logged and
becomes a page without its text. Who has not signed in is sent to the sign-in page and comes back afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from dashboards import door, render, upload
from gateway.console.question import SESSION, Session
from gateway.console.roles import Permission, Reach, reach
from gateway.telemetry import logs
from gateway.types.actor import ACTING, Actor
from gateway.types.errors import BadRequest, Forbidden, NotFound, PayloadTooLarge, Unauthorized, Unavailable, WeirError

if TYPE_CHECKING:
    from dashboards.site import Site

MAX_FORM: Final = 256 * 1024
SIGN_IN: Final = "/console/sign-in"
PROFILE: Final = "/console/profile"
_log: Final = logs.logger(__name__)
View = Callable[["Visit"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page or a form.

    Attributes:
        path: of the URL, with parameters in braces.
        view: makes the answer.
        permission: what a visitor needs; None for what is open to everybody.
        methods: GET for pages, POST for forms.
        upload: bytes of the largest form with a file that is taken; 0 takes none.
    """

    path: str
    view: View
    permission: Permission | None
    methods: tuple[str, ...] = ("GET",)
    upload: int = 0


@dataclass(slots=True)
class Visit:
    """What a view works with.

    Attributes:
        session: who is signed in, or None.
        form: what was sent with a form: the last value of each field; ``many`` has all, ``files`` what was uploaded.
        now_us: when the visit began, microseconds since 1970.
        answers: what was asked for it already, so that one page says one thing.
    """

    site: Site
    page: Page
    request: Request
    session: Session | None = None
    form: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    now_us: int = field(default_factory=lambda: time.time_ns() // 1_000)
    visit_cookie: str = ""
    answers: dict[Any, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the visitor comes from."""
        client = self.request.client
        return client.host if client is not None else ""

    @property
    def login(self) -> str:
        """The visitor's login, ``""`` when nobody is signed in."""
        return self.session.user.login if self.session is not None else ""

    @property
    def cookie(self) -> str:
        """What the token of forms is made of."""
        return door.session_token(self.request) if self.session is not None else self.visit_cookie

    @property
    def roleless(self) -> bool:
        """Whether nobody is signed in, or somebody without any role: neither is shown more than the other."""
        return self.session is None or not self.session.user.grants

    @property
    def theme(self) -> str:
        """The look that was asked for by the URL or the cookie: light, dark, or ``""`` for the system's."""
        wanted = self.request.query_params.get("theme", self.request.cookies.get(door.THEME, ""))
        return wanted if wanted in door.THEMES else ""

    def asked(self, name: str, default: str = "") -> str:
        """Return a parameter of the URL."""
        return self.request.query_params.get(name, default).strip()[:200]

    def with_query(self, name: str, value: object, *, without: str = "") -> str:
        """Return the URL of this page with one parameter set anew; the others stay, if they go with it."""
        over = (name, without, "page", "before", *(("from", "to") if name == "span" else ()))
        kept = {key: each for key, each in self.request.query_params.items() if key not in over}
        return f"{self.request.url.path}?{urlencode(kept | {name: str(value)})}"

    @property
    def page_number(self) -> int:
        """Which page of a list the URL asks for; the first for what is none."""
        wanted = self.asked("page")
        return max(1, int(wanted)) if wanted.isdecimal() and len(wanted) < 7 else 1

    def named(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    def reach(self, permission: Permission) -> Reach:
        """Return how far a permission of the visitor goes."""
        return reach(self.session.user.grants if self.session is not None else (), permission)

    def may(self, permission: Permission, team: str | None = None) -> bool:
        """Return whether the visitor has a permission: for ``team``, or for anything at all."""
        found = self.reach(permission)
        return bool(found) if team is None else found.covers(team)

    def need(self, permission: Permission, team: str) -> None:
        """Raise ``NotFound``, as for what does not exist, unless the visitor has a permission for ``team``."""
        if not self.may(permission, team):
            raise NotFound("there is no such thing here")

    def render(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """Return a page."""
        body = render.page(template, {"visit": self} | context)
        return Response(body, status_code=status, media_type="text/html")

    def go(self, path: str, **query: str) -> Response:
        """Return the way to another page, to be fetched with GET."""
        return RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), status_code=303)


async def serve(site: Site, page: Page, request: Request) -> Response:
    """Answer a visit."""
    visit = Visit(site, page, request, visit_cookie=door.visit_token(request))
    try:
        response = await _admitted(visit)
    except WeirError as error:
        response = _error_page(visit, error)
    except ClientDisconnect:
        response = Response(status_code=400)
    except Exception:  # noqa: BLE001 - a defect of one page is a page too
        _log.exception("a page failed: defect", path=page.path)
        response = _error_page(visit, None)
    framed = "content-security-policy" in response.headers  # it says itself who may show it in a frame
    for name, value in door.HEADERS.items():
        if not (framed and name == "x-frame-options"):
            response.headers.setdefault(name, value)
    response.headers.setdefault("cache-control", "no-store")
    return response


async def _admitted(visit: Visit) -> Response:
    page, request = visit.page, visit.request
    if not visit.site.config().console.enabled:
        raise NotFound("the console is switched off here: `console.enabled` of the configuration")
    token = door.session_token(request)
    if token:
        visit.session = await visit.site.books.ask(SESSION, (token,))
    if page.permission is not None:
        if visit.session is None:
            return _to_sign_in(request)
        own = page.permission is Permission.PROFILE  # everybody's, also without any role
        if visit.session.user.must_change and not own:
            return visit.go(PROFILE)
        if not own and not visit.may(page.permission):
            raise Forbidden("your role does not reach this page: an admin can give you another one")
    ACTING.set(Actor(visit.login or "visitor", "console", visit.address))
    if request.method == "POST":
        await _read_form(visit)
    return await page.view(visit)


def _to_sign_in(request: Request) -> Response:
    if request.method != "GET":
        raise Unauthorized("you are signed out by now: sign in and send it again")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{SIGN_IN}?{urlencode({'next': path})}", status_code=303)


async def _read_form(visit: Visit) -> None:
    """Read what was sent, and let it in only from a page of ours."""
    request = visit.request
    said = request.headers.get("content-type", "")
    kind = said.partition(";")[0].strip()
    largest = visit.page.upload if kind == upload.KIND else MAX_FORM
    if kind not in ("application/x-www-form-urlencoded", upload.KIND) or not largest:
        raise BadRequest("a form is sent as application/x-www-form-urlencoded")
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > largest:
            raise PayloadTooLarge(f"the form is over {largest} bytes")
    if kind == upload.KIND:
        pairs, visit.files = await asyncio.to_thread(upload.parsed, said, bytes(data))
    else:
        pairs = _pairs(bytes(data))
    for name, value in pairs:
        visit.form[name] = value
        visit.many.setdefault(name, []).append(value)
    door.check_form(request, visit.cookie, visit.form.get(door.FIELD, ""))


def _pairs(data: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(data.decode("utf-8"), keep_blank_values=True, max_num_fields=1_000)
    except ValueError:
        raise BadRequest("the form cannot be read") from None


_TITLES: Final[Mapping[int, str]] = {
    400: "That did not work",
    401: "You are signed out",
    403: "Not for your role",
    404: "Nothing here",
    409: "Somebody was faster",
    413: "Too large",
    429: "Too often",
    503: "The books cannot be reached",
}


def _error_page(visit: Visit, error: WeirError | None) -> Response:
    status = 500 if error is None else error.code
    title = _TITLES.get(status, "Something broke")
    message = "This is a defect of Weir. It is in the log." if error is None else error.message
    away = isinstance(error, Unavailable)
    return visit.render("error.html", status=status, title=title, message=message, code=status, away=away)
