"""The ledger book: what a host's processes ask of the ledger, answered with what the journal holds this moment.

Everything here is ``Unavailable`` while the database is away or the journal cannot be read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.db.engine import Database
from gateway.keeper import usage
from gateway.keeper.keybook import KeyBook
from gateway.keeper.shipping import unreadable
from gateway.metering.audit import audit
from gateway.metering.ledger import Ledger
from gateway.metering.outcome import Shipped, ShipperBusy
from gateway.metering.record import Status
from gateway.metering.shipper import Shipper
from gateway.types.generation import GenerationRecord, KeyUsage, MeterReport


class LedgerBook(KeyBook):
    """``LedgerReader`` of one host, besides what a ``KeyBook`` is."""

    @property
    @abstractmethod
    def shipper(self) -> Shipper:
        """The shipper of this host."""

    @property
    @abstractmethod
    def _books(self) -> Database:
        """The database. Raises ``Unavailable`` while it is away."""

    @property
    @abstractmethod
    def _journal(self) -> Path:
        """Folder of the journal."""

    @abstractmethod
    def _require(self) -> None:
        """Raise ``Unavailable`` while the database has not been there yet."""

    def _shipped(self, shipped: Shipped) -> None:
        self._remember_use(shipped.last_used)

    async def generation(self, request_id: bytes) -> GenerationRecord | None:
        """Return a request by id, also one that ended a moment ago; None when it is unknown."""
        ledger = Ledger(self._books)
        found = await ledger.generation(request_id)
        if found is not None and found.attempts[-1].status != Status.FAILED:
            return found
        # The answer, or the attempt after the failed ones, may still be in the journal.
        await self.catch_up()
        return await ledger.generation(request_id)

    async def recent(self, limit: int) -> Sequence[GenerationRecord]:
        """Return the newest requests, newest first."""
        return await Ledger(self._books).recent(limit)

    async def catch_up(self) -> None:
        """Bring what is in the journal now into the ledger, orphans of dead writers too. Raises ``Unavailable``."""
        self._require()
        try:
            self._shipped(await self.shipper.ship())
        except (OSError, ShipperBusy) as error:
            raise unreadable(error) from error

    async def audit(self) -> MeterReport:
        """Compare journal, ledger and rollups, once what the journal holds now is in the ledger."""
        await self.catch_up()
        try:
            return await audit(self._journal, self._books)
        except OSError as error:
            raise unreadable(error) from error

    async def key_usage(self, key_ids: Sequence[str]) -> Mapping[str, KeyUsage]:
        """Return what each of the keys was charged, by key id; zeros for a key that was never used."""
        return await usage.key_usage(self._books, key_ids, datetime.now(UTC))
