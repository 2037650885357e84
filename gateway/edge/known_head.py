"""The head a connection sent last: most callers send the same one again, but for the length of the body.

Reading a head costs a dozen calls of the parser and a digest of the key. Equal bytes mean the same thing again, so a
connection that remembers what its last head meant needs only compare. Nothing is taken this way but what the parser
has read before, byte for byte; the length is read anew and the key is looked up anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.access.principal import Principal
from gateway.edge.inference import Inlet

_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength:[ \t]*([0-9]{1,15})[ \t]*\r\n")
_END: Final = b"\r\n\r\n"
_LONGEST: Final = 4096
"""Bytes of a head worth keeping for as long as its connection lives."""


class KnownHead:
    """A head that was read and found good, and what it said.

    Attributes:
        path: without the query.
        headers: lower-case names to values, as they were; the length is that of the first request.
        principal: who asked.
    """

    __slots__ = ("_after", "_before", "_digits", "headers", "inlet", "path", "principal")

    def __init__(
        self,
        head: bytes,
        digits: tuple[int, int],
        path: bytes,
        headers: Mapping[bytes, bytes],
        inlet: Inlet,
        principal: Principal,
    ) -> None:
        first, behind = digits
        self._before = head[:first]
        self._after = head[behind:]
        self._digits = first
        self.path = path
        self.headers = headers
        self.inlet = inlet
        self.principal = principal

    @classmethod
    def of(
        cls, data: bytes, path: bytes, headers: Mapping[bytes, bytes], inlet: Inlet, principal: Principal
    ) -> KnownHead | None:
        """Return the head that ``data`` begins with, or None when it is not one to remember.

        A read that holds more than one request teaches nothing: what was read last need not be what came first.

        Args:
            data: a read that began with the request.
            path: without the query.
            headers: of the head, none of them repeated; what the parser made of it.
            inlet: of the path.
            principal: who was authenticated by ``headers``.
        """
        end = data.find(_END, 0, _LONGEST)
        found = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if found is None or headers.get(b"content-length") != found[1]:
            return None
        if len(data) > end + len(_END) + int(found[1]):
            return None  # another request is behind it, and it may be that one's headers
        if b"transfer-encoding" in headers or b"expect" in headers or b"upgrade" in headers:
            return None
        return cls(data[: end + len(_END)], found.span(1), path, headers, inlet, principal)

    def body(self, data: bytes, limit: int) -> bytes | None:
        """Return the body if ``data`` is this head again with a whole body of at most ``limit`` bytes; else None."""
        if not data.startswith(self._before):
            return None
        behind = data.find(b"\r", self._digits, self._digits + 16)
        digits = data[self._digits : behind]
        if not digits.isdigit() or not data.startswith(self._after, behind):
            return None
        start = behind + len(self._after)
        length = int(digits)
        return data[start:] if length == len(data) - start and length <= limit else None
