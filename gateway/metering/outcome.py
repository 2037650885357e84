"""What came of shipping: of a transaction, of a round, and of asking a host that somebody else ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class ShipperBusy(Exception):
    """Another process ships this host's journal."""


class Reconnected(Exception):
    """The connection to the server is newer than what is known of its checkpoints: it may have forgotten some."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction did: how many rows it made, and when the keys of these rows were last used."""

    rows: int
    last_used: Mapping[str, int]


@dataclass(slots=True)
class Shipped:
    """What a round of shipping did.

    Attributes:
        records: ends of attempts read from the journal.
        inserted: ledger rows made, orphans included.
        conflicts: rows that the ledger held already.
        orphans: rows made for attempts whose process died.
        deleted: segments deleted or put aside.
        last_used: key id to the latest start of an attempt, microseconds since 1970, of the rows made.
    """

    records: int = 0
    inserted: int = 0
    conflicts: int = 0
    orphans: int = 0
    deleted: int = 0
    last_used: dict[str, int] = field(default_factory=dict)

    def note(self, written: Written) -> None:
        """Count rows that were made."""
        self.inserted += written.rows
        for key_id, opened_us in written.last_used.items():
            self.last_used[key_id] = max(opened_us, self.last_used.get(key_id, 0))
