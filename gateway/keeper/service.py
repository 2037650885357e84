"""The keeper: the one process per host that writes the database, ships the journal and counts limits.

It owns the state folder by a lock, so a second keeper refuses to start. Changes of keys are told to every subscriber
after their commit and before the caller learns of it, in the order of the commits. While the database is away, changes
are ``Unavailable``, keys stay as last known, limits go on, and the journal waits on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from gateway.access import office as budgets
from gateway.access.alerts import Alerts, Webhook
from gateway.access.keys import digest, key_id_of
from gateway.access.limits import LocalLimits
from gateway.access.names import check_models
from gateway.access.shared import open_shared
from gateway.access.store import AccessStore
from gateway.access.treasury import Treasury
from gateway.access.turnstile import Turnstile
from gateway.config.snapshot import ConfigSnapshot
from gateway.db.engine import Database
from gateway.db.office import Premises
from gateway.keeper import schema, usage
from gateway.keeper.address import KeeperLock, host_id
from gateway.keeper.extras import NO_EXTRAS, Extras
from gateway.keeper.figures import BudgetFigures, Figures
from gateway.keeper.follow import KeyFollower
from gateway.keeper.offices import Offices
from gateway.keeper.shipping import TreasuryShipping
from gateway.metering.audit import audit
from gateway.metering.ledger import Ledger
from gateway.metering.record import Status
from gateway.metering.shipper import Shipped, Shipper, ShipperBusy
from gateway.telemetry import logs
from gateway.types.budgets import Paid, Scope, Spend
from gateway.types.errors import BadRequest, NotFound, Unavailable
from gateway.types.generation import GenerationRecord, KeyUsage, MeterReport
from gateway.types.keys import Grant, IssuedKey, KeyLimits, KeyPatch, KeyRecord, NewKey, TeamRecord
from gateway.types.method import Method

JOURNAL_FOLDER: Final = "journal"
HOUSEKEEPING_S: Final = 1.0
SWEEP_S: Final = 60.0
LAST_SHIP_S: Final = 10.0

R = TypeVar("R")
_log: Final = logs.logger(__name__)


class Keeper:
    """``KeyAdmin``, ``KeyFeed``, ``LimitBook`` and ``LedgerReader`` of one host.

    Args:
        home: the state folder, with the journal in ``journal/``.
        database_url: the ledger database; migrated at the start.
        pepper: the gateway's secret.
        migrate: brings the database to this version, when it is not there yet.
        config: returns the configuration of now; None of a keeper that a command made for itself.
        extras: the servers beside the database that it may use.

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
    ) -> None:
        self.limits = LocalLimits()
        self._shared = open_shared(extras.redis_url, self.limits) if extras.redis_url else None
        self.turnstile = Turnstile(self.limits, lambda: self._treasury, self._shared)
        self._treasury: Treasury | None = None
        self._scope_watchers: list[Callable[[Sequence[Scope]], None]] = []
        self._home = home
        self._database_url = database_url
        self._pepper = pepper
        self._migrate = migrate
        self._config = config
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
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._known: dict[str, KeyRecord] = {}
        self._watchers: list[Callable[[Sequence[KeyRecord]], None]] = []
        self._last_used: dict[str, int] = {}

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
    def watched(self) -> bool:
        """Whether a process still follows the keys: a worker that has not ended."""
        return bool(self._watchers)

    @property
    def shipper(self) -> Shipper:
        """The shipper of this host."""
        return _started(self._shipper)

    async def start(self) -> None:
        """Take the folder, bring the database to this version, learn the keys, begin to ship.

        Raises:
            KeeperError: another keeper has the folder, or the database is of no use; nothing was started.
            Unavailable: the database is away; nothing was started.
        """
        self._lock.acquire()
        try:
            if not await schema.is_current(self._database_url):
                await self._migrate(self._database_url, self._lock.descriptor)
            self._database = Database(self._database_url)
            self._store = AccessStore(self._database, self._pepper)
            keys, revision = await self._store.changed_since(-1)
            self._known = {record.key_id: record for record in keys}
            self._shipper = Shipper(
                self._home / JOURNAL_FOLDER, self._database, on_shipped=self._shipped, host=host_id(self._home)
            )
            self._treasury = await self._open_treasury(self._database, self._shipper)
        except BaseException:
            await self._close()
            raise
        alerts = Alerts(self._database, self._treasury, self._config, _webhook(self._extras))
        self._budget_figures = BudgetFigures(self._treasury, alerts, self._shared)
        self._figures = Figures(self._shipper, self._budget_figures)
        self._offices = Offices(
            Premises(self._database, self._home, self._pepper, self._config),
            budgets.open_office(self._treasury, alerts),
        )
        loop = asyncio.get_running_loop()
        self._stopping.clear()
        self._tasks = [loop.create_task(self._keep_house()), loop.create_task(self._shipper.run())]
        if self._database.partitioned:
            # Only a server's database has other hosts that change it.
            follower = KeyFollower(self._store, revision, self._changing, self._tell_keys)
            self._tasks.append(loop.create_task(follower.run(self._stops_within)))
        self._offices.start()
        if self._shared is not None:
            self._shared.start()

    async def _open_treasury(self, database: Database, shipper: Shipper) -> Treasury:
        """Return the hard budgets, opened. Raises ``Unavailable``."""
        shipping = TreasuryShipping(shipper, self._shipped)
        treasury = Treasury(database, host_id(self._home), shipping, on_scopes=self._tell_scopes)
        await treasury.open()
        return treasury

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
        housekeeping, shipping, *others = self._tasks
        try:
            self._shipped(await self.shipper.ship())
            await self.treasury.close()
        finally:
            shipping.cancel()
        await asyncio.wait([housekeeping, *others])
        await self._mark_used()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._tasks = []

    async def ask(self, method: Method[R], arguments: Sequence[Any] = ()) -> R:
        """Return what an office answers."""
        result: R = await self.offices.ask(method, arguments)
        return result

    async def create_team(self, slug: str, name: str) -> TeamRecord:
        """Make a team."""
        return await _started(self._store).create_team(slug, name)

    async def ensure_team(self, slug: str, name: str) -> TeamRecord:
        """Return the team of that slug, made when it is missing."""
        for team in await self.teams():
            if team.slug == slug:
                return team
        try:
            return await self.create_team(slug, name)
        except BadRequest:
            # Another host that starts with the same configuration may have been first.
            for team in await self.teams():
                if team.slug == slug:
                    return team
            raise

    async def teams(self) -> Sequence[TeamRecord]:
        """Return all teams by slug."""
        return await _started(self._store).teams()

    async def create_key(self, new: NewKey) -> IssuedKey:
        """Make a key."""
        self._check_models(new.models)
        return await self._change(_started(self._store).create_key(new), _record)

    def _check_models(self, names: Sequence[str] | None) -> None:
        """Refuse models that the configuration does not know; without one everything passes."""
        snapshot = self._config()
        if snapshot is not None:
            check_models(names, snapshot.models.keys() | snapshot.aliases.keys())

    async def ensure_key(self, new: NewKey, secret: str) -> KeyRecord:
        """Return the key whose text is ``secret``, made as ``new`` says when it is missing; it may be revoked.

        Raises:
            BadRequest: another text has its public id, or the gateway's secret changed since it was made.
        """
        try:
            record = await self.key(key_id_of(secret))
        except NotFound:
            chosen = NewKey(new.name, new.team, new.models, new.limits, new.expires_at, secret)
            return (await self.create_key(chosen)).record
        if record.digest != digest(self._pepper, secret.encode()):
            raise BadRequest("the key is known under another secret of the gateway: revoke it and choose another text")
        return record

    async def keys(self, team: str | None = None) -> Sequence[KeyRecord]:
        """Return keys that are not revoked, newest first."""
        return await _started(self._store).keys(team)

    async def key(self, key_id: str) -> KeyRecord:
        """Return one key, revoked or not."""
        return await _started(self._store).key(key_id)

    async def update_key(self, key_id: str, patch: KeyPatch) -> KeyRecord:
        """Change a key."""
        if patch.models is not msgspec.UNSET:
            self._check_models(patch.models)
        return await self._change(_started(self._store).update_key(key_id, patch), _itself)

    async def rotate_key(self, key_id: str, overlap_s: float) -> IssuedKey:
        """Give a key a new secret; the old one works for ``overlap_s`` seconds more."""
        return await self._change(_started(self._store).rotate_key(key_id, overlap_s), _record)

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """Revoke a key for good; every subscriber is told before this returns."""
        return await self._change(_started(self._store).revoke_key(key_id), _itself)

    async def subscribe(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> Sequence[KeyRecord]:
        """Return all keys, revoked ones too, and call ``on_change`` with each key that changes later."""
        return self.watch(on_change)

    def watch(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> Sequence[KeyRecord]:
        """As ``subscribe``, in one step of the event loop."""
        self._watchers.append(on_change)
        return tuple(self._known.values())

    def unwatch(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> None:
        """End a subscription; harmless when there is none."""
        with suppress(ValueError):
            self._watchers.remove(on_change)

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

    async def generation(self, request_id: bytes) -> GenerationRecord | None:
        """Return a request by id, also one that ended a moment ago; None when it is unknown."""
        ledger = Ledger(_started(self._database))
        found = await ledger.generation(request_id)
        if found is not None and found.attempts[-1].status != Status.FAILED:
            return found
        # The answer, or the attempt after the failed ones, may still be in the journal.
        try:
            self._shipped(await self.shipper.ship())
        except (OSError, ShipperBusy) as error:
            raise Unavailable("the journal cannot be read now", retry_after=1.0) from error
        return await ledger.generation(request_id)

    async def recent(self, limit: int) -> Sequence[GenerationRecord]:
        """Return the newest requests, newest first."""
        return await Ledger(_started(self._database)).recent(limit)

    async def audit(self) -> MeterReport:
        """Compare journal, ledger and rollups."""
        try:
            return await audit(self._home / JOURNAL_FOLDER, _started(self._database))
        except OSError as error:
            raise Unavailable("the journal cannot be read now", retry_after=1.0) from error

    async def key_usage(self, key_ids: Sequence[str]) -> Mapping[str, KeyUsage]:
        """Return what each of the keys was charged, by key id; zeros for a key that was never used."""
        return await usage.key_usage(_started(self._database), key_ids, datetime.now(UTC))

    async def _change(self, operation: Coroutine[Any, Any, R], changed: Callable[[R], KeyRecord]) -> R:
        """Carry out a change and tell it, whole or not at all, whoever stops waiting for it."""

        async def carry_out() -> R:
            async with self._changing:
                result = await operation
                record = changed(result)
                self._tell_keys((record,))
                return result

        task = asyncio.get_running_loop().create_task(carry_out())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    def _tell_keys(self, changed: Sequence[KeyRecord]) -> None:
        self._known.update((record.key_id, record) for record in changed)
        for on_change in tuple(self._watchers):
            on_change(changed)

    def _tell_scopes(self, scopes: Sequence[Scope]) -> None:
        for on_change in tuple(self._scope_watchers):
            on_change(scopes)

    def _shipped(self, shipped: Shipped) -> None:
        self._remember_use(shipped.last_used)

    def _remember_use(self, last_used: Mapping[str, int]) -> None:
        for key_id, moment in last_used.items():
            self._last_used[key_id] = max(moment, self._last_used.get(key_id, 0))

    async def _mark_used(self) -> None:
        used, self._last_used = self._last_used, {}
        if not used:
            return
        try:
            await _started(self._store).mark_used(used)
        except BaseException:
            self._remember_use(used)
            raise

    async def _keep_house(self) -> None:
        swept = time.monotonic()
        while not await self._stops_within(HOUSEKEEPING_S):
            try:
                await self._mark_used()
            except Unavailable:
                pass  # the database is away; the next round has the same and more
            except Exception:  # noqa: BLE001 - without this loop limits would never forget a key
                _log.exception("the last use of keys cannot be kept")
            if time.monotonic() - swept >= SWEEP_S:
                swept = time.monotonic()
                self.limits.sweep()

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
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


def _webhook(extras: Extras) -> Webhook | None:
    return None if extras.alert_url is None else Webhook(extras.alert_url, extras.alert_secret)


def _record(issued: IssuedKey) -> KeyRecord:
    return issued.record


def _itself(record: KeyRecord) -> KeyRecord:
    return record


def _started(part: R | None) -> R:
    """Return ``part``, which there is between start and stop."""
    if part is None:
        raise Unavailable("the keeper is not running")
    return part
