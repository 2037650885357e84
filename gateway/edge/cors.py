"""Cross-origin requests from browsers: which web pages may read answers, and what a browser is told beforehand.

Off unless the configuration names origins. Only those exact origins are ever named in an answer; cookies are never
allowed across origins, so a page needs a key like every other caller. A request from another origin is served as it
would be without this: its browser then keeps the answer from the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from gateway.config.cors import CorsSpec

if TYPE_CHECKING:
    from gateway.edge.asgi import App, Message, Receive, Scope, Send

_EXPOSED: Final = (
    b"x-generation-id, x-request-id, x-weir-route, x-weir-max-tokens, retry-after, "
    b"x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"
)
_METHODS: Final = b"GET, POST, PUT, PATCH, DELETE"
_HEADERS: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_LONGEST: Final = 4096


class Cors:
    """The rules in force.

    Attributes:
        on: whether any origin may call.
    """

    __slots__ = ("_max_age", "_origins", "on")

    def __init__(self, spec: CorsSpec | None = None) -> None:
        self.configure(spec or CorsSpec())

    def configure(self, spec: CorsSpec) -> None:
        """Take other rules from now on."""
        self._origins = frozenset(origin.encode("ascii") for origin in spec.origins)
        self._max_age = b"%d" % spec.max_age
        self.on = bool(self._origins)

    def headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """Return what every answer to a page of ``origin`` carries besides."""
        if not self.on:
            return []
        if origin is None or origin not in self._origins:
            return [(b"vary", b"origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        ]

    def lines(self, origin: bytes | None) -> bytes:
        """Return ``headers`` as lines of a response."""
        return b"".join(b"%s: %s\r\n" % header for header in self.headers(origin))

    def preflight(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]] | None:
        """Return the headers of the answer to a browser that asks whether it may; None when that is not asked here."""
        origin, wanted = headers.get(b"origin"), headers.get(b"access-control-request-headers", b"")
        if origin is None or origin not in self._origins or b"access-control-request-method" not in headers:
            return None
        said = [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", self._max_age),
            (b"vary", b"origin, access-control-request-headers"),
        ]
        if wanted and len(wanted) <= _LONGEST and _HEADERS.fullmatch(wanted):
            said.append((b"access-control-allow-headers", wanted))
        return said


class CorsApp:
    """ASGI application: answers browsers that ask whether they may, and lets them read what ``other`` answers."""

    def __init__(self, cors: Cors, other: App) -> None:
        self._cors = cors
        self._other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if not self._cors.on or scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["method"] == "OPTIONS":
            allowed = self._cors.preflight(headers)
            if allowed is not None:
                await send({"type": "http.response.start", "status": 204, "headers": allowed})
                await send({"type": "http.response.body", "body": b""})
                return
        more = self._cors.headers(headers.get(b"origin"))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        await self._other(scope, receive, marked)
