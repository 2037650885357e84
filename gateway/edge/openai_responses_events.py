"""The events of a Responses stream as bytes, numbered one after the other, for whoever writes them.

``gateway.edge.openai_responses_output`` tells what happens to the output, ``openai_responses_reply`` how the answer
begins and ends. Nothing here raises.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


class ResponseEvents:
    """Collects the events of one answer.

    Args:
        wanted: whether the answer is a stream; of another one nothing is told.

    Attributes:
        wanted: whether there is anybody to tell.
    """

    __slots__ = ("_frame", "_parts", "_sequence", "wanted")

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self._frame = (b"", b"", b"")
        self._parts: list[bytes] = []
        self._sequence = 0

    def take(self) -> bytes:
        """Return the bytes that have not been taken."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def add(self, kind: str, **members: Any) -> None:
        """Add an event."""
        if not self.wanted:
            return
        document = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        self._parts.append(b"event: %s\ndata: %s\n\n" % (kind.encode("ascii"), _encode(document)))

    def pass_on(self, event: dict[str, Any]) -> None:
        """Add an event of an API that speaks Responses itself; its number becomes one of ours, in place."""
        kind = str(event.get("type"))
        event["sequence_number"] = self._sequence
        self._sequence += 1
        name = kind.encode("ascii", "replace") if kind.isprintable() else b"message"
        self._parts.append(b"event: %s\ndata: %s\n\n" % (name, _encode(event)))

    def begin_deltas(self, words: str, place: dict[str, Any]) -> None:
        """Write the deltas to come as those of the part at ``place``, which events call ``words``."""
        kind = f"response.{words}.delta".encode("ascii")
        self._frame = (
            b'event: %s\ndata: {"type":"%s","sequence_number":' % (kind, kind),
            b',%s,"delta":' % _encode(place)[1:-1],
            b',"logprobs":[]}\n\n' if words == "output_text" else b"}\n\n",
        )

    def add_delta(self, text: str) -> None:
        """Add a piece of the part that ``begin_deltas`` named last: what ``add`` would write, for less."""
        if not self.wanted:
            return
        head, place, end = self._frame
        self._parts.append(b"%s%d%s%s%s" % (head, self._sequence, place, _encode(text), end))
        self._sequence += 1
