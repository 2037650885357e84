"""The keeper: the one process per host that writes the database, ships the journal and counts limits.

It owns the state folder by a lock, so a second keeper refuses to start. Changes of keys are told to every subscriber
after their commit and before the caller learns of it, in the order of the commits. While the database is away, changes
are ``Unavailable``, keys stay as last known, limits go on, and the journal waits on disk. An ``enduring`` keeper also
starts without it, from what was known last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.access import office as budgets
from gateway.access.alerts import Alerts, Webhook
from gateway.access.limits import LocalLimits
from gateway.access.shared import open_shared
from gateway.access.store import AccessStore
from gateway.access.treasury import Treasury
from gateway.access.turnstile import Turnstile
from gateway.beat import paused
from gateway.config.overlay import Overlay
from gateway.config.snapshot import ConfigSnapshot
from gateway.console import settings
from gateway.db.engine import Database
from gateway.db.office import Premises
from gateway.db.unit_of_work import Refused
from gateway.keeper import schema, secret
from gateway.keeper.absence import wait_for_database
from gateway.keeper.address import KeeperLock, host_id
from gateway.keeper.extras import NO_EXTRAS, Extras
from gateway.keeper.figures import BudgetFigures, Figures
from gateway.keeper.follow import KeyFollower
from gateway.keeper.housekeeping import keep_house
from gateway.keeper.ledgerbook import LedgerBook
from gateway.keeper.memory import Known, Memory, Remembering
from gateway.keeper.offices import AWAY, Offices
from gateway.keeper.shipping import TreasuryShipping
from gateway.metering.outcome import ShipperBusy
from gateway.metering.shipper import Shipper
from gateway.telemetry import logs
from gateway.types.budgets import Budget, Paid, Scope, Spend
from gateway.types.errors import Unavailable, WeirError
from gateway.types.keys import Grant, KeyLimits, KeyRecord
from gateway.types.method import Method

JOURNAL_FOLDER: Final = "journal"
LAST_SHIP_S: Final = 10.0

R = TypeVar("R")
_log: Final = logs.logger(__name__)


class Keeper(LedgerBook):
    """``KeyAdmin``, ``KeyFeed``, ``LimitBook`` and ``LedgerReader`` of one host.

    Args:
        home: the state folder, with the journal in ``journal/``.
        database_url: the ledger database; migrated at the start.
        pepper: the gateway's secret.
        migrate: brings the database to this version, when it is not there yet.
        config: returns the configuration of now; None of a keeper that a command made for itself.
        extras: the servers beside the database that it may use.
        enduring: whether it may start while a database on a server is away.

    Attributes:
        limits: this host's counts of requests and tokens.
        turnstile: limits and budgets together, for owners other than this process.
        shipper: the shipper, once started.
    """

    def __init__(
        self,
        home: Path,
        database_url: str,
        pepper: bytes,
        *,
        migrate: schema.Migrate = schema.migrate_here,
        config: Callable[[], ConfigSnapshot | None] = lambda: None,
        extras: Extras = NO_EXTRAS,
        enduring: bool = False,
    ) -> None:
        super().__init__(pepper, config)
        self.limits = LocalLimits()
        self._shared = open_shared(extras.redis_url, self.limits) if extras.redis_url else None
        self.turnstile = Turnstile(self.limits, lambda: self._treasury, self._shared)
        self._treasury: Treasury | None = None
        self._scope_watchers: list[Callable[[Sequence[Scope]], None]] = []
        self._home = home
        self._database_url = database_url
        self._migrate = migrate
        self._extras = extras
        self._lock = KeeperLock(home)
        self._database: Database | None = None
        self._store: AccessStore | None = None
        self._shipper: Shipper | None = None
        self._figures: Figures | None = None
        self._budget_figures: BudgetFigures | None = None
        self._offices: Offices | None = None
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._shipping: asyncio.Task[None] | None = None
        self._enduring = enduring
        self._memory = Memory(home, pepper)
        self._revision = 0
        self._later: list[Callable[[], Awaitable[None]]] = []

    @property
    def away(self) -> bool:
        """Whether the database was not there at the start and is not yet."""
        return self._offices is not None and self._offices.away

    @property
    def figures(self) -> Figures:
        """The metrics of this host's workers."""
        return _started(self._figures)

    @property
    def budget_figures(self) -> BudgetFigures:
        """The figures of budgets and shared limits."""
        return _started(self._budget_figures)

    @property
    def offices(self) -> Offices:
        """The parts that answer methods of their own."""
        return _started(self._offices)

    @property
    def treasury(self) -> Treasury:
        """The hard budgets of this host."""
        return _started(self._treasury)

    @property
    def shipper(self) -> Shipper:
        """The shipper of this host."""
        return _started(self._shipper)

    async def start(self) -> None:
        """Take the folder, bring the database to this version, learn the keys, begin to ship.

        Raises:
            KeeperError: another keeper has the folder, or the database is of no use; nothing was started.
            Unavailable: the database is away and nothing is known without it; nothing was started.
        """
        self._lock.acquire()
        try:
            known = await self._prepare()
            database = self._database = Database(self._database_url)
            host = host_id(self._home)
            self._shipper = Shipper(self._journal, database, on_shipped=self._shipped, host=host)
            shipping = TreasuryShipping(self._shipper, self._shipped)
            self._treasury = Treasury(database, host, shipping, on_scopes=self._tell_scopes)
            to = self._extras.alert_url
            hook = None if to is None else Webhook(to, self._extras.alert_secret)
            alerts = Alerts(database, self._treasury, self._config, hook)
            overlay = Overlay()
            premises = Premises(database, self._home, self._pepper, lambda: overlay.over(self._config()))
            own = budgets.open_office(self._treasury, alerts), settings.open_office(database, overlay)
            self._offices = Offices(premises, *own)
            if known is None:
                await self._open_books()
            else:
                self._recall(known)
        except BaseException:
            await self._close()
            raise
        self._budget_figures = BudgetFigures(self._treasury, alerts, self._shared)
        self._figures = Figures(self._shipper, self._budget_figures, self._offices)
        self._stopping.clear()
        loop = asyncio.get_running_loop()
        if known is None:
            self._begin()
        else:
            self._tasks = [loop.create_task(self._wait_for_database())]
        if self._shared is not None:
            self._shared.start()

    async def _prepare(self) -> Known | None:
        """Bring the database to this version; return what was known last where it is away and that will do.

        Raises as ``start``.
        """
        try:
            await self._migrated()
        except Refused:
            raise
        except Unavailable as error:
            known = self._memory.read() if self._enduring and not self._database_url.startswith("sqlite") else None
            if known is None:
                raise
            since = datetime.fromtimestamp(known.at_us / 1e6, UTC).isoformat(timespec="seconds")
            _log.warning("the database is away: starting with what was known last", reason=error.message, of=since)
            return known
        return None

    async def _migrated(self) -> None:
        if not await schema.is_current(self._database_url):
            await self._migrate(self._database_url, self._lock.descriptor)

    async def _open_books(self) -> None:
        """Learn keys and budgets from the database. Raises ``Unavailable``."""
        await secret.compare(_started(self._database), self._pepper)
        store = AccessStore(_started(self._database), self._pepper)
        keys, self._revision = await store.changed_since(-1)
        await self.treasury.open()
        self._store = store
        self._tell_all_keys(keys)

    def _recall(self, known: Known) -> None:
        """Go on with what was known last."""
        self.treasury.recall(known.budgets)
        self._tell_keys(known.keys)
        self.offices.recall(known.offices)

    def _begin(self) -> None:
        """Begin all that needs the database."""
        loop = asyncio.get_running_loop()
        housekeeping = keep_house(self._mark_used, self.limits, self._stops_within)
        self._tasks += [loop.create_task(housekeeping), loop.create_task(self.shipper.run())]
        self._shipping = self._tasks[-1]
        if _started(self._database).partitioned:
            # Only a server's database has other hosts that change it, and can be away at the next start.
            tell = self._tell_keys, self._tell_all_keys, lambda: len(self._known)
            follower = KeyFollower(_started(self._store), self._revision, self._changing, *tell)
            self._tasks.append(loop.create_task(follower.run(self._stops_within)))
            remembering = Remembering(self._memory, self._version, self._content)
            self._tasks.append(loop.create_task(remembering.run(self._stops_within)))
        self.offices.start()

    def _version(self) -> object:
        """Return something that differs whenever ``_content`` does."""
        return self._told, self.treasury.budgets, self.offices.version

    def _content(self) -> tuple[tuple[KeyRecord, ...], tuple[Budget, ...], dict[str, bytes]]:
        """Return what is to be known at a start without the database."""
        return tuple(self._known.values()), tuple(self.treasury.budgets.values()), self.offices.remembered()

    async def _wait_for_database(self) -> None:
        """Open the books once the database is there, and do what had to wait for it."""

        async def come_back() -> None:
            await self._migrated()
            await self._open_books()

        if not await wait_for_database(come_back, self._stops_within, self.shipper.look):
            return
        self.offices.resume()
        self._begin()
        later, self._later = self._later, []
        for work in later:
            try:
                await work()
            except WeirError as error:
                _log.error("what had to wait for the database failed", reason=error.message)

    async def when_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work``, which needs the database: now, or once it is there."""
        if self.away:
            self._later.append(work)
        else:
            await work()

    async def stop(self) -> None:
        """End what runs, ship what is in the journal, and give the folder back."""
        if self._changes:
            await asyncio.wait(self._changes)
        self._stopping.set()
        if self._offices is not None:
            await self._offices.stop()
        if self._tasks:
            try:
                async with asyncio.timeout(LAST_SHIP_S):
                    await self._finish()
            except (OSError, TimeoutError, Unavailable, ShipperBusy) as error:
                _log.warning("the journal is shipped at the next start", reason=str(error))
            await self._end_tasks()
        await self._close()

    async def _finish(self) -> None:
        """Ship for the last time, after the round that runs.

        A task that is cancelled inside a call of the database leaves a broken connection and a trace in the log. So
        rounds are waited for: when ours is through, no other one has begun in the same step of the event loop.
        """
        if self._shipping is None:
            await asyncio.wait(self._tasks)
            return
        try:
            await self.catch_up()
            await self.treasury.close()
        finally:
            self._shipping.cancel()
        await asyncio.wait([task for task in self._tasks if task is not self._shipping])
        await self._mark_used()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._tasks, self._shipping = [], None

    async def ask(self, method: Method[R], arguments: Sequence[Any] = ()) -> R:
        """Return what an office answers."""
        result: R = await self.offices.ask(method, arguments)
        return result

    @property
    def _keys_store(self) -> AccessStore:
        self._require()
        return _started(self._store)

    @property
    def _books(self) -> Database:
        self._require()
        return _started(self._database)

    @property
    def _journal(self) -> Path:
        return self._home / JOURNAL_FOLDER

    async def _key_made(self) -> None:
        await self.treasury.reload()  # guardrails may have made budgets for it

    def _require(self) -> None:
        """Raise ``Unavailable`` while the database has not been there yet."""
        if self.away:
            raise Unavailable(AWAY, retry_after=5.0)

    async def follow_scopes(self, on_change: Callable[[Sequence[Scope]], None]) -> Sequence[Scope]:
        """Return the scopes of all hard budgets, and call ``on_change`` with all of them whenever they change."""
        return self.watch_scopes(on_change)

    def watch_scopes(self, on_change: Callable[[Sequence[Scope]], None]) -> Sequence[Scope]:
        """As ``follow_scopes``, in one step of the event loop."""
        self._scope_watchers.append(on_change)
        return self.treasury.scopes

    def unfollow_scopes(self, on_change: Callable[[Sequence[Scope]], None]) -> None:
        """End a subscription; harmless when there is none."""
        with suppress(ValueError):
            self._scope_watchers.remove(on_change)

    def present(self, writer: str) -> None:
        """Tell that this process writes the journal ``writer``."""
        self.treasury.present(self, writer, ())

    async def admit(self, key_id: str, limits: KeyLimits, tokens: int, spend: Spend | None = None) -> Grant:
        """Ask to run a request of this process, of about ``tokens`` tokens, that costs no more than ``spend`` says."""
        grant = self.turnstile.take(self, key_id, limits, tokens, spend)
        return grant if isinstance(grant, Grant) else await grant

    def settle(self, hold: int, tokens: int, paid: Paid = ()) -> None:
        """End the request of ``hold``, which took ``tokens`` tokens and was charged ``paid``."""
        self.turnstile.settle(hold, tokens, paid)

    def _tell_scopes(self, scopes: Sequence[Scope]) -> None:
        for on_change in tuple(self._scope_watchers):
            on_change(scopes)

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(paused(seconds)):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _close(self) -> None:
        if self._shared is not None:
            await self._shared.stop()
        if self._shipper is not None:
            self._shipper.close()
        if self._database is not None:
            await self._database.close()
        self._shipper = self._database = self._store = self._offices = self._treasury = None
        self._lock.release()


def _started(part: R | None) -> R:
    """Return ``part``, which there is between start and stop."""
    if part is None:
        raise Unavailable("the keeper is not running")
    return part
