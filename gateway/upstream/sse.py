"""Reading server-sent events from engines that do not always follow the standard.

Any split of the byte stream gives the same payloads. Tolerated: LF, CRLF and lone CR in any mix, no space after
``data:``, comments, unknown fields, a mark of the byte order, missing blank lines between events, a last event without
a line end.
"""

from __future__ import annotations

from typing import Final

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of one line; a longer one is an attack or a defect."""
_MARKED: Final = b"\xef\xbb\xbfdata:"
"""A data line behind the mark of the byte order, with which a stream may begin."""
_LF: Final = 10
_CR: Final = 13


class LineTooLong(ValueError):
    """A line of the stream is longer than ``MAX_LINE``."""


class EventReader:
    """Cuts a byte stream into the payloads of its ``data:`` lines.

    A payload is returned per line, not per event: engines send one JSON document per line, and some forget the
    blank line. ``boundaries`` asks for an empty payload at each blank line as well, for the rare document that
    spans several ``data:`` lines; ``again`` gives what was read without them.
    """

    __slots__ = ("_lines", "_tail", "boundaries")

    def __init__(self) -> None:
        self._lines = b""
        self._tail = b""
        self.boundaries = False

    def event(self, data: bytes) -> bytes | None:
        """Return the payload when ``data`` is one whole event and no more, which a read of a stream mostly is.

        Otherwise, or where ``boundaries`` or the rest of a line matter, return None and take nothing: ``feed`` does.
        """
        payload = data[6:-2]
        if (
            data[:6] != b"data: "
            or data[-2:] != b"\n\n"
            or _LF in payload
            or _CR in payload
            or self._tail
            or self.boundaries
        ):
            return None
        return payload

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads completed by ``data``. Raises ``LineTooLong``."""
        if self._tail:
            data = self._tail + data
        if _CR in data:
            data, carry = self._normalise(data)
        else:
            carry = b""
        end = data.rfind(b"\n")
        if end < 0:
            self._tail = data + carry
            if len(self._tail) > MAX_LINE:
                raise LineTooLong
            return []
        self._tail = data[end + 1 :] + carry
        self._lines = data[:end]
        return self._payloads(self._lines.split(b"\n"))

    def again(self, count: int) -> list[bytes]:
        """Set ``boundaries`` and return the last ``count`` payloads once more, now with the boundaries before them."""
        self.boundaries = True
        lines = self._lines.split(b"\n")
        start = len(lines)
        while start and (count or lines[start - 1][:5] != b"data:"):
            start -= 1
            if lines[start][:5] == b"data:":
                count -= 1
        return self._payloads(lines[start:])

    def close(self) -> list[bytes]:
        """Return the payload of a last line that had no line end."""
        self._lines, self._tail = self._tail.rstrip(b"\r"), b""
        return self._payloads([self._lines]) if self._lines else []

    def _payloads(self, lines: list[bytes]) -> list[bytes]:
        found = []
        for line in lines:
            if line[:5] == b"data:":
                found.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self.boundaries:
                found.append(b"")
            elif line[:8] == _MARKED:
                found.append(line[8:].removeprefix(b" "))
        return found

    @staticmethod
    def _normalise(data: bytes) -> tuple[bytes, bytes]:
        """Turn CRLF and lone CR into LF; a CR at the very end waits, for its LF may come with the next read."""
        carry = b""
        if data[-1:] == b"\r":
            data, carry = data[:-1], b"\r"
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), carry
