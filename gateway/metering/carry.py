"""What goes over from one segment of a journal to the next: rates, attempts that are open, and how far each of them is.

A segment is complete by itself: whatever reads it needs no other, and those before it may be shipped and deleted.
Memory only.
"""

from __future__ import annotations

from gateway.metering.record import Price, Progress, frame
from gateway.types.money import Rates

Attempt = tuple[bytes, int]
"""Request id and attempt."""


class Carry:
    """What the next segment begins with.

    Attributes:
        declared: the rates that records may name, by id.
        open: how each open attempt began, framed.
        priced: ids of the rates that the segment being written holds; 0 stands for none.
    """

    __slots__ = ("_progress", "declared", "open", "priced")

    def __init__(self) -> None:
        self.open: dict[Attempt, bytes] = {}
        self.priced: set[int] = set()
        self.declared: dict[int, Rates] = {}
        self._progress: dict[Attempt, Progress] = {}

    def require(self, rates_id: int) -> None:
        """Raise ``ValueError`` when ``rates_id`` names rates that were not declared."""
        if rates_id and rates_id not in self.declared:
            raise ValueError(f"rates {rates_id} were not declared")

    def prices(self, *ids: int) -> bytes:
        """Return the frames of those rates that the segment does not hold yet; it does from now on."""
        missing = [rates_id for rates_id in ids if rates_id not in self.priced and rates_id in self.declared]
        self.priced.update(ids)
        return b"".join(frame(Price(rates_id, self.declared[rates_id])) for rates_id in missing)

    def reached(self, attempt: Attempt, progress: Progress) -> None:
        """Take note of how far an open attempt is."""
        self._progress[attempt] = progress

    def ended(self, attempt: Attempt) -> bytes | None:
        """Take note of the end of an attempt; return the frame it began with, or None when it was not open."""
        if self._progress:
            self._progress.pop(attempt, None)
        return self.open.pop(attempt, None)

    def head(self) -> list[bytes]:
        """Return the frames that a segment begins with."""
        found = [frame(Price(rates_id, rates)) for rates_id, rates in self.declared.items()]
        found += self.open.values()
        found += [frame(record) for record in self._progress.values()]
        return found

    def carried(self) -> None:
        """Take note that a segment was begun with ``head``, and is the one being written."""
        self.priced = {0, *self.declared}
