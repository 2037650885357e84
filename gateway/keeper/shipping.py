"""The shipper as the treasury sees it: what it has moved to the ledger, and whose journals it still has to read."""

from __future__ import annotations

from collections.abc import Callable, Collection

from gateway.metering.outcome import Shipped, ShipperBusy
from gateway.metering.shipper import Shipper
from gateway.types.errors import Unavailable


class TreasuryShipping:
    """See ``gateway.access.confirmation.Shipping``.

    Args:
        shipper: of this host.
        on_shipped: told of each round that is asked for here.
    """

    __slots__ = ("_on_shipped", "_shipper")

    def __init__(self, shipper: Shipper, on_shipped: Callable[[Shipped], None]) -> None:
        self._shipper = shipper
        self._on_shipped = on_shipped

    @property
    def rounds(self) -> int:
        """How many rounds left nothing of the journal unread."""
        return self._shipper.rounds

    @property
    def writers(self) -> Collection[str]:
        """Writers of which there is something in the journal's folder, dead or alive. Raises ``Unavailable``."""
        try:
            return self._shipper.writers
        except OSError as error:
            raise unreadable(error) from error

    async def ship(self) -> None:
        """Move everything that is in the journal now to the ledger. Raises ``Unavailable``."""
        try:
            self._on_shipped(await self._shipper.ship())
        except (OSError, ShipperBusy) as error:
            raise unreadable(error) from error


def unreadable(error: OSError | ShipperBusy) -> Unavailable:
    """Return what says that the journal cannot be read and why; without its path, because callers are told it, too."""
    reason = error.strerror if isinstance(error, OSError) else "another process ships it"
    return Unavailable(f"the journal cannot be read now ({reason})", retry_after=1.0)
