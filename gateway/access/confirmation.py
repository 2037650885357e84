"""Confirmation: what of a host's leases was spent, as far as the ledger is known to have it.

What requests were charged counts against the lease until it is in the ledger, where it counts from then on. It is
collected in *epochs*: one that ended before a round of shipping began is in the ledger once that round has left nothing
of the journal unread. What is stale is cleared when every journal that could tell of it has been shipped
(``gateway.access.witnesses``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from typing import Protocol

from gateway.access.escrow import Escrow, PoolKey
from gateway.access.witnesses import SETTLED_ROUNDS, Witnesses


class Shipping(Protocol):
    """What the treasury needs of the shipper and its journal."""

    @property
    def rounds(self) -> int:
        """How many rounds left nothing of the journal unread."""

    @property
    def writers(self) -> Collection[str]:
        """Writers of which there is something in the journal's folder, dead or alive."""

    def ship(self) -> Awaitable[None]:
        """Move everything that is in the journal now to the ledger. Raises ``Unavailable`` when that cannot be."""


class Confirmation:
    """Takes off the leases of one host what the ledger has. Whoever calls holds the lock of the books.

    Args:
        escrow: what the host holds.
        witnesses: the journals that can tell of what is stale.
        shipping: the shipper of the host.
    """

    __slots__ = ("_epochs", "_escrow", "_shipping", "_witnesses")

    def __init__(self, escrow: Escrow, witnesses: Witnesses, shipping: Shipping) -> None:
        self._escrow = escrow
        self._witnesses = witnesses
        self._shipping = shipping
        self._epochs: list[tuple[Mapping[PoolKey, int], int]] = []

    async def ship(self) -> None:
        """Ship what was charged so far and confirm it. Raises ``Unavailable``."""
        self._close_epoch()
        epochs = self._epochs
        if not epochs:
            return
        shipping = self._shipping
        rounds, ended = shipping.rounds, len(epochs)
        await shipping.ship()
        if shipping.rounds > rounds:
            for charges, _ in epochs[:ended]:
                self._escrow.confirm(charges)
            del epochs[:ended]

    def follow(self) -> None:
        """Confirm and clear what rounds of shipping have moved to the ledger by themselves. Raises ``Unavailable``."""
        self._confirm_ripe()
        self._clear_stale()

    def _confirm_ripe(self) -> None:
        rounds = self._shipping.rounds
        while self._epochs and self._epochs[0][1] <= rounds:
            self._escrow.confirm(self._epochs.pop(0)[0])
        self._close_epoch()

    def _close_epoch(self) -> None:
        charges = self._escrow.epoch()
        if charges:
            self._epochs.append((charges, self._shipping.rounds + SETTLED_ROUNDS))

    def _clear_stale(self) -> None:
        """Free what is stale once nobody can have spent it without the ledger knowing."""
        stale = {key: pool.stale for key, pool in self._escrow.pools.items() if pool.stale}
        if stale:
            self._escrow.clear(self._witnesses.told(stale, self._shipping.rounds))
