"""The treasury: hard budgets on one host, between requests, the escrow in memory and the leases in the database.

A request that its host's leases cover is answered at once; else a slice is leased first, in one transaction. What was
charged is confirmed once it is in the ledger (``gateway.access.confirmation``), what is not used goes back after some
seconds.

Nothing is taken on trust after a loss: what a lost worker, or the keeper before this one, may have spent stays leased
until every journal that could tell of it is in the ledger (``gateway.access.witnesses``). While the database is away
requests go on as far as the leases reach and are ``Unavailable`` beyond: a hard budget fails closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final

from gateway.access.budgets import BudgetStore, wall_clock_us
from gateway.access.confirmation import Confirmation, Shipping
from gateway.access.escrow import Escrow, PoolKey, Share
from gateway.access.index import BudgetIndex
from gateway.access.leases import UNKNOWN, Leases, Standing, Wish, wish_of
from gateway.access.witnesses import Witnesses
from gateway.db.engine import Database
from gateway.types.budgets import Budget, BudgetState, NewBudget, Paid, Scope, Shortfall, Spend, today
from gateway.types.errors import Unavailable

ROUND_S: Final = 1.0
"""Seconds between two rounds of keeping house; a change that was not told of is known after as long."""
IDLE_S: Final = 3.0
"""Seconds after which what nobody reserves from goes back."""
DRY_S: Final = 0.5
"""Seconds for which a database that had no more to lend is not asked again."""
OVERTAKEN: Final = 3
"""How often more is leased for a request whose share others took while the database was asked."""
KEEP_DAYS: Final = 2
"""Days after its end for which a window is remembered: requests that began in it may still run."""


class Treasury:
    """Hard budgets of one host.

    Args:
        database: of the ledger, migrated.
        host: id of this host's state folder.
        shipping: the shipper of this host.
        on_scopes: told the scopes of all hard budgets whenever they change.
        clock: monotonic seconds.
        now_us: wall clock, microseconds since 1970.

    Attributes:
        escrow: what this host holds.
        store: the budgets themselves.
        budgets: all of them by id, as last read.
    """

    def __init__(
        self,
        database: Database,
        host: str,
        shipping: Shipping,
        *,
        on_scopes: Callable[[Sequence[Scope]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.host = host
        self._database = database
        self._read_edition: object = None
        self.store = BudgetStore(database, now_us=now_us)
        self.escrow = Escrow()
        self.budgets: Mapping[str, Budget] = {}
        self._leases = Leases(database, host, now_us=now_us)
        self._on_scopes = on_scopes
        self._clock = clock
        self._now_us = now_us
        self._books = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._written: dict[PoolKey, int] = {}
        self._dry: dict[PoolKey, tuple[float, Standing]] = {}
        self._index = BudgetIndex()
        self._witnesses = Witnesses(lambda: shipping.writers)
        self._confirmation = Confirmation(self.escrow, self._witnesses, shipping)
        self._ahead: asyncio.Task[None] | None = None
        self._opened = False

    # Opening and closing

    async def open(self) -> None:
        """Learn budgets and leases. What was leased before is stale until the journal has told all. ``Unavailable``."""
        self._learn(await self.store.all())
        for key, amount in (await self._leases.mine()).items():
            self.escrow.pool(key).stale = amount
            self._written[key] = amount
        # Writers that are here already served without the database: what they run they have named.
        self._witnesses.open()
        self._opened = True

    def recall(self, budgets: Sequence[Budget]) -> None:
        """Go on with the budgets that were known last, until the database is there for ``open``.

        What this host had leased, and what of it was spent, nobody can say now: requests that concern a hard budget
        are ``Unavailable`` until then.
        """
        self._learn(budgets)

    async def close(self) -> None:
        """Give back what is not needed; call it after the last round of shipping. Raises ``Unavailable``."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait([self._ahead])
        if not self._opened or (not self._written and not self.escrow.pools):
            return
        async with self._books:
            await self._confirmation.ship()
            if self._witnesses.clean:
                self.escrow.clear({key: pool.stale for key, pool in self.escrow.pools.items()})
            for key, pool in self.escrow.pools.items():
                self.escrow.give_back(key, pool.free)
            await self._write_leases()

    # Requests

    def shares(self, key_id: str, spend: Spend) -> list[Share]:
        """Return the pools that a request concerns; none when no hard budget does."""
        return self._index.shares(key_id, spend)

    def reserve(self, hold: int, owner: Hashable, shares: Sequence[Share], spend: Spend) -> bool:
        """Reserve all that a request may cost from what is leased; return whether that was there."""
        if not self.escrow.reserve(hold, owner, shares, spend.amount, self._clock()):
            return False
        if self._ahead is None and self.escrow.free(shares) < spend.amount:
            self._ahead = asyncio.get_running_loop().create_task(self._lend_ahead(shares, spend))
        return True

    async def obtain(self, hold: int, owner: Hashable, shares: Sequence[Share], spend: Spend) -> int | Shortfall:
        """As ``reserve``, leasing what is missing first.

        Returns:
            How much was reserved, which is less than all only where that is enough; or why nothing was.

        Raises:
            Unavailable: the database is away and what is leased does not suffice.
        """
        if not self._opened:
            raise Unavailable("the database is away, so nobody knows what is left of a budget", retry_after=5.0)
        async with self._books:
            if not self._covers(shares, spend.amount) and not self._is_dry(shares, spend):
                standings = await self._lease(shares, spend)
                until = self._clock() + DRY_S
                self._dry.update({key: (until, standing) for key, standing in standings.items()})
                if len(standings) < len(shares):  # a budget is gone
                    await self.reload()
                    shares = [share for share in shares if share[0][0] in self.budgets]
            if not shares:
                return spend.amount
            amount = min(spend.amount, self.escrow.free(shares))
            if amount >= spend.least and self.escrow.reserve(hold, owner, shares, amount, self._clock()):
                return amount
            return self._shortfall(shares, spend)

    def settle(self, hold: int, paid: Paid, owner: Hashable = None) -> None:
        """End the request of ``hold``, whose end is in the journal.

        Holds that are unknown, or not of ``owner`` where one is named, are ignored.
        """
        if not self.escrow.settle(hold, paid, owner):
            self._witnesses.ended(hold, owner)

    # Who is there

    def present(self, owner: Hashable, writer: str, holds: Iterable[int]) -> None:
        """Take note that ``owner`` writes the journal ``writer`` and runs the requests ``holds``, and no others."""
        self._witnesses.present(owner, writer, [hold for hold in holds if not self.escrow.holds(hold)])

    def leave(self, owner: Hashable) -> None:
        """Take note that ``owner`` is gone: what its requests cost, its journal will tell."""
        self._witnesses.leave(owner, held=self.escrow.lose(owner) > 0)

    # Budgets

    async def set(self, new: NewBudget) -> Budget:
        """Set a budget; it binds every request of this host that is admitted after this returns."""
        budget = await self.store.set(new)
        await self.reload()
        return budget

    async def delete(self, budget_id: str) -> None:
        """Delete a budget."""
        await self.store.delete(budget_id)
        await self.reload()

    async def follow_file(self, said: Sequence[NewBudget]) -> None:
        """Bring the budgets of the configuration file to what it says."""
        await self.store.follow_file(said)
        await self.reload()

    async def reload(self) -> None:
        """Read the budgets anew, after a reading that is under way: an older one never comes last. ``Unavailable``."""
        async with self._reading:
            edition = self._database.edition
            self._learn(await self.store.all())
            self._read_edition = edition

    @property
    def scopes(self) -> Sequence[Scope]:
        """Scopes of all hard budgets."""
        return tuple(sorted({scope for budget in self.budgets.values() if budget.hard for scope in budget.scopes}))

    async def states(self, team: str | None, key_ids: Sequence[str] | None) -> Sequence[BudgetState]:
        """Return budgets and where they stand now: all, or those for a team and for keys that are named.

        Those of revoked keys are among them only where their key is named.
        """
        keys = None if key_ids is None else frozenset(key_ids)

        def asked(budget: Budget) -> bool:
            if keys is None:
                return not budget.ended
            return budget.scope.key_id in keys or not keys.isdisjoint(budget.keys)

        return await self._states(team, asked)

    async def ended(self, team: str | None) -> Sequence[BudgetState]:
        """Return the budgets of revoked keys: all, or those that name a team."""
        return await self._states(team, lambda budget: budget.ended)

    async def _states(self, team: str | None, asked: Callable[[Budget], bool]) -> Sequence[BudgetState]:
        async with self._books:
            await self._confirmation.ship()
            await self.reload()
            day = today(self._now_us())
            wanted = [
                (budget, budget.window.start(day))
                for budget in sorted(self.budgets.values(), key=lambda each: (each.scope, each.window))
                if team in (None, budget.scope.team) and asked(budget)
            ]
            spent = await self.store.spent(wanted)
            others = await self._leases.others()
        states = []
        for (budget, start), amount in zip(wanted, spent, strict=True):
            key = (budget.budget_id, start)
            pool = self.escrow.pools.get(key)
            mine, charged = (pool.held + pool.stale, pool.charged) if pool is not None else (0, 0)
            states.append(BudgetState(budget, start, amount + charged, mine + others.get(key, 0)))
        return tuple(states)

    # Keeping house

    async def keep_house(self) -> None:
        """Do what comes again: confirm, give back, forget, and learn what was changed. ``Unavailable``."""
        if self._read_edition != self._database.edition:
            await self.reload()
        async with self._books:
            self._confirmation.follow()
            now, day = self._clock(), today(self._now_us())
            for key, pool in self.escrow.pools.items():
                if pool.free > 0 and (now - pool.used_at >= IDLE_S or key[0] not in self.budgets):
                    self.escrow.give_back(key, pool.free)
            found = await self._leases.look(self._written, self._clock())
            if found is not None:
                self._written = dict(found)
                for key in found:  # what only the database knows of goes back
                    self.escrow.pool(key)
            await self._write_leases()
            over = self.escrow.forget(lambda key: self._is_over(key, day))
            if over:
                await self._leases.forget(over, day)
                for key in over:
                    self._written.pop(key, None)
                    self._dry.pop(key, None)

    def _learn(self, budgets: Sequence[Budget]) -> None:
        known = {budget.budget_id: budget for budget in budgets}
        if known == self.budgets:
            return
        before, changed = self.scopes, known.items() ^ self.budgets.items()
        self.budgets = known
        # What was lent under another limit is lent anew, by the one that holds now.
        for key, pool in self.escrow.pools.items():
            if any(key[0] == budget_id for budget_id, _ in changed):
                self.escrow.give_back(key, pool.free)
        self._dry.clear()
        self._index = BudgetIndex(budget for budget in budgets if budget.hard)
        if self.scopes != before:
            self._on_scopes(self.scopes)

    def _is_over(self, key: PoolKey, day: int) -> bool:
        budget = self.budgets.get(key[0])
        if budget is None:
            return True
        end = budget.window.end(key[1])
        return end is not None and end + KEEP_DAYS <= day

    # Lending

    def _covers(self, shares: Sequence[Share], amount: int) -> bool:
        return self.escrow.free(shares) >= amount

    def _is_dry(self, shares: Sequence[Share], spend: Spend) -> bool:
        """Whether the database said a moment ago that there is not enough, and nothing has changed since."""
        now = self._clock()
        for key, _ in shares:
            until, standing = self._dry.get(key, (0.0, None))
            if standing is not None and now < until and spend.least - self.escrow.pool(key).free > standing.left:
                return True
        return False

    async def _lease(self, shares: Sequence[Share], spend: Spend) -> Mapping[PoolKey, Standing]:
        """Lease what is missing for a request, by every way there is; the lock of the books is held."""
        standings = await self._lend(shares, spend)
        owed = any(self.escrow.pool(key).charged for key, _ in shares)
        if owed and not self._covers(shares, spend.least):
            # What is in the way may be in the ledger by now, or can be.
            await self._confirmation.ship()
            standings = await self._lend(shares, spend)
        for _ in range(OVERTAKEN):
            # A request that needed no more than what is leased may have taken meanwhile what this one counted on.
            if self._covers(shares, spend.least) or any(
                key not in standings or self.escrow.pool(key).free + standings[key].left < spend.least
                for key, _ in shares
            ):
                break
            standings = await self._lend(shares, spend)
        return standings

    async def _lend(self, shares: Sequence[Share], spend: Spend, ahead: int = 0) -> Mapping[PoolKey, Standing]:
        """Lease what is missing for a request, and ``ahead`` on top; the lock of the books is held."""
        wishes = {key: wish_of(self.escrow.pool(key), spend.amount + ahead, spend.least) for key, _ in shares}
        try:
            standings = await self._leases.adjust(wishes)
        except BaseException:  # also who hangs up may do so behind the commit
            self._written.update(dict.fromkeys(wishes, UNKNOWN))
            raise
        for key, wish in wishes.items():
            standing = standings.get(key)
            if standing is not None:
                self.escrow.grant(key, standing.lent)
                self._written[key] = wish.lease + standing.lent
        return standings

    async def _lend_ahead(self, shares: Sequence[Share], spend: Spend) -> None:
        """Lease for requests like the last one before they come, so that they need not wait."""
        try:
            async with self._books:
                if not self._covers(shares, spend.amount) and not self._is_dry(shares, spend):
                    standings = await self._lend(shares, spend, ahead=spend.amount)
                    until = self._clock() + DRY_S
                    self._dry.update(
                        {key: (until, standing) for key, standing in standings.items() if not standing.lent}
                    )
        except Unavailable:
            pass  # a request that needs it will ask, and hear it
        finally:
            self._ahead = None

    def _shortfall(self, shares: Sequence[Share], spend: Spend) -> Shortfall:
        """Return what is in the way of a request: the budget that has least to give."""
        found: list[Shortfall] = []
        for key, _ in shares:
            budget, pool = self.budgets[key[0]], self.escrow.pool(key)
            _, standing = self._dry.get(key, (0.0, None))
            spent = standing.spent if standing is not None else 0
            left = max(0, budget.limit_nano - spent - pool.charged)
            free = max(0, pool.free + (standing.left if standing is not None else 0))
            where = key[0], budget.scope, budget.window, key[1], budget.limit_nano
            found.append(Shortfall(*where, left, min(free, left), spend.amount, pool.charged))
        return min(found, key=lambda each: (each.free, each.left))

    async def _write_leases(self) -> None:
        """Write what this host has leased, where it differs from what is written; the lock of the books is held."""
        changed = {
            key: Wish(pool.lease) for key, pool in self.escrow.pools.items() if self._written.get(key, 0) != pool.lease
        }
        if not changed:
            return
        try:
            await self._leases.adjust(changed)
        except BaseException:
            self._written.update(dict.fromkeys(changed, UNKNOWN))
            raise
        self._written.update({key: wish.lease for key, wish in changed.items()})
