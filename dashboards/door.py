"""Who is at the door of the console: cookies, the token that forms carry, where a request came from, headers.

A form is taken only from a page of this very site: the session's cookie is not sent by other sites (SameSite=Lax), the
``Origin`` must be this host (without one, ``Sec-Fetch-Site`` must say so), and the form must hold a token made of the
cookie. If any of the three fails it is ``Forbidden``.
"""

from __future__ import annotations

import hmac
from secrets import token_urlsafe
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.types.errors import Forbidden

SESSION: Final = "weir_session"
VISIT: Final = "weir_visit"
"""Of a browser that has not signed in: what the token of the sign-in form is made of."""
THEME: Final = "weir_theme"
THEMES: Final = ("light", "dark")
FIELD: Final = "csrf"
_LONGEST: Final = 128

CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "content-security-policy": CSP,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What every page says to the browser."""


def secure(request: Request) -> bool:
    """Return whether the browser speaks TLS, with us or with a proxy before us."""
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "") == "https"


def session_token(request: Request) -> str:
    """Return the token of the session's cookie, ``""`` without one."""
    return request.cookies.get(SESSION, "")[:_LONGEST]


def visit_token(request: Request) -> str:
    """Return the token of a browser that has not signed in, a new one when it has none."""
    known = request.cookies.get(VISIT, "")[:_LONGEST]
    return known or token_urlsafe(18)


def form_token(cookie: str) -> str:
    """Return what forms carry for the holder of ``cookie``: it follows from the cookie, not the other way round."""
    return hmac.digest(cookie.encode(), b"a form of the console", "sha256").hex()[:40]


def keep(response: Response, request: Request, name: str, value: str, seconds: int | None = None) -> None:
    """Put a cookie into ``response`` that scripts cannot read."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=secure(request), httponly=True, samesite="lax")


def check_form(request: Request, cookie: str, token: str) -> None:
    """Let a form of our own in. Raises ``Forbidden``."""
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    if origin is None:
        fetched = request.headers.get("sec-fetch-site", "")
        if not fetched:
            # Every browser of this decade says one or the other; a proxy may take both away.
            raise Forbidden("this form does not say where it came from: its Origin header is missing")
        if fetched != "same-origin":
            raise Forbidden("this form came from another site")
    elif not host or origin.partition("://")[2] != host:
        raise Forbidden("this form came from another site")
    if not cookie or not hmac.compare_digest(form_token(cookie).encode(), token.encode()):
        raise Forbidden("this form is too old: go back, load the page anew, and send it again")


def local_path(wanted: str, default: str = "/console") -> str:
    """Return ``wanted`` if it is a path of this site, else ``default``: nobody is sent elsewhere."""
    if not wanted.startswith("/") or wanted.startswith(("//", "/\\")) or not wanted.isprintable():
        return default
    return wanted
