"""Escrow: what this host may spend of each budget, and what of it is held for requests. Arithmetic only, no I/O.

A *pool* is one window of one budget. The host leases amounts of it from the database (``grant``), reserves from them in
memory for each request, over all budgets of the request together or not at all, and keeps what was charged until it
is known to be in the ledger (``confirm``). What nobody here can vouch for any more, such as a request whose worker was
lost, is *stale*: it stays leased and is not lent again until everything it may have cost is in the ledger (``clear``).

In every pool ``charged + held <= granted``, and the lease in the database is never less than ``granted + stale``; hosts
are lent what a budget has only as far as the ledger and all leases together do not reach its limit. So what all hosts
charge never exceeds it. Amounts are nano-USD.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from gateway.types.budgets import Paid

PoolKey = tuple[str, int]
"""Id of a budget, and the first UTC day of the window."""
Share = tuple[PoolKey, str]
"""A pool, and the model its budget is for; ``""`` when it is for all."""


class Pool:
    """One window of one budget, as this host holds it.

    Attributes:
        granted: leased, and not yet spent as far as the ledger tells.
        charged: spent of it, not confirmed to be in the ledger.
        held: reserved of it for requests under way.
        stale: leased, and perhaps spent.
        used_at: when something was reserved last, by whatever clock the owner uses.
    """

    __slots__ = ("charged", "granted", "held", "stale", "used_at")

    def __init__(self, stale: int = 0) -> None:
        self.granted = 0
        self.charged = 0
        self.held = 0
        self.stale = stale
        self.used_at = 0.0

    @property
    def free(self) -> int:
        """What may be reserved."""
        return self.granted - self.charged - self.held

    @property
    def lease(self) -> int:
        """What must be leased in the database at least."""
        return self.granted + self.stale


class _Hold:
    """What one request reserved."""

    __slots__ = ("amount", "owner", "shares")

    def __init__(self, owner: Hashable, shares: Sequence[Share], amount: int) -> None:
        self.owner = owner
        self.shares = shares
        self.amount = amount


class Escrow:
    """The pools of one host and what requests hold of them. Not safe for several threads."""

    __slots__ = ("_epoch", "_holds", "pools")

    def __init__(self) -> None:
        self.pools: dict[PoolKey, Pool] = {}
        self._holds: dict[int, _Hold] = {}
        self._epoch: dict[PoolKey, int] = {}

    @property
    def running(self) -> int:
        """How many requests hold something."""
        return len(self._holds)

    def pool(self, key: PoolKey) -> Pool:
        """Return a pool, empty when it is new."""
        found = self.pools.get(key)
        if found is None:
            found = self.pools[key] = Pool()
        return found

    def free(self, shares: Iterable[Share]) -> int:
        """Return what can be reserved over all of ``shares`` together."""
        return min(self.pool(key).free for key, _ in shares)

    def reserve(self, hold: int, owner: Hashable, shares: Sequence[Share], amount: int, now: float) -> bool:
        """Reserve ``amount`` of every pool for the request ``hold``, or nothing of any; return whether it was done."""
        if self.free(shares) < amount:
            return False
        for key, _ in shares:
            pool = self.pools[key]
            pool.held += amount
            pool.used_at = now
        self._holds[hold] = _Hold(owner, shares, amount)
        return True

    def settle(self, hold: int, paid: Paid, owner: Hashable = None) -> bool:
        """End ``hold``, for which ``paid`` was charged; return whether it was known, and of ``owner`` if one is named.

        No pool is charged above what was reserved.
        """
        found = self._holds.get(hold)
        if found is None or (owner is not None and found.owner != owner):
            return False
        del self._holds[hold]
        for key, model in found.shares:
            charge = min(found.amount, sum(nano for name, nano in paid if model in ("", name)))
            pool = self.pools[key]
            pool.held -= found.amount
            pool.charged += charge
            if charge:
                self._epoch[key] = self._epoch.get(key, 0) + charge
        return True

    def lose(self, owner: Hashable) -> int:
        """Make stale what the requests of ``owner`` hold, because nobody will say what they cost; return how many."""
        gone = [hold for hold, found in self._holds.items() if found.owner == owner]
        for hold in gone:
            found = self._holds.pop(hold)
            for key, _ in found.shares:
                pool = self.pools[key]
                pool.held -= found.amount
                pool.granted -= found.amount
                pool.stale += found.amount
        return len(gone)

    def holds(self, hold: int) -> bool:
        """Return whether ``hold`` is under way."""
        return hold in self._holds

    # The lease

    def grant(self, key: PoolKey, amount: int) -> None:
        """Take ``amount`` into a pool; the database has it as leased already."""
        self.pool(key).granted += amount

    def give_back(self, key: PoolKey, most: int) -> int:
        """Take up to ``most`` of what is free out of a pool and return how much; the database may follow."""
        pool = self.pool(key)
        amount = max(0, min(most, pool.free))
        pool.granted -= amount
        return amount

    # The ledger

    def epoch(self) -> Mapping[PoolKey, int]:
        """Return what was charged since this was last asked, by pool, for ``confirm``."""
        ended, self._epoch = self._epoch, {}
        return ended

    def confirm(self, charges: Mapping[PoolKey, int]) -> None:
        """Take note that ``charges`` of an epoch are in the ledger, where they count from now on."""
        for key, charge in charges.items():
            pool = self.pools.get(key)
            if pool is not None:
                pool.charged -= charge
                pool.granted -= charge

    def clear(self, stale: Mapping[PoolKey, int]) -> None:
        """Take note that nothing more can come of ``stale`` amounts: what they cost is in the ledger."""
        for key, amount in stale.items():
            pool = self.pools.get(key)
            if pool is not None:
                pool.stale -= amount

    def forget(self, over: Callable[[PoolKey], bool]) -> list[PoolKey]:
        """Drop pools that are ``over``, unless requests hold something of them or charges wait; return which."""
        gone = [key for key, pool in self.pools.items() if over(key) and not pool.held and not pool.charged]
        for key in gone:
            del self.pools[key]
            self._epoch.pop(key, None)
        return gone
