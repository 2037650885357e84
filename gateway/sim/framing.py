"""Server-sent events as bytes: as they should be, and as the ``malformed_sse`` fault wants them.

A framer returns the bytes of an event in one part, or in two where the event is to cross a chunk and a TCP write.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.sim.faults import Style

DONE = b"[DONE]"


class Framer:
    """Plain events: one ``data:`` line and a blank line."""

    def frame(self, payload: bytes) -> tuple[bytes, ...]:
        """Return the event that carries ``payload``."""
        return (b"data: %b\n\n" % payload,)


class OddFramer(Framer):
    """Events in unusual or broken dress; ``styles`` take turns."""

    def __init__(self, styles: Sequence[Style]) -> None:
        self._styles = styles
        self._turn = 0

    def frame(self, payload: bytes) -> tuple[bytes, ...]:
        """Return the event that carries ``payload`` in the style whose turn it is."""
        style = self._styles[self._turn % len(self._styles)] if self._styles else None
        self._turn += 1
        match style:
            case "crlf":
                return (b"data: %b\r\n\r\n" % payload,)
            case "no_space":
                return (b"data:%b\n\n" % payload,)
            case "comments":
                return (b": waiting\n\n: a comment inside\nid: 7\ndata: %b\n\n" % payload,)
            case "no_blank":
                return (b"data: %b\n" % payload,)
            case "split":
                return _split(b"data: %b\n\n" % payload)
            case _:
                return super().frame(payload)


def _split(event: bytes) -> tuple[bytes, bytes]:
    """Cut ``event`` inside its first character of several bytes, or in the middle when it has none."""
    at = next((place + 1 for place, byte in enumerate(event) if byte >= 0xC0), len(event) // 2)
    return event[:at], event[at:]
