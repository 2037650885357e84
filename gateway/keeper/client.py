"""The keeper as seen from another process of the host: workers and commands.

The connection is made anew, with growing pauses, whenever it is lost. While the keeper is away, keys stay as last
known, calls fail with ``Unavailable`` after a second (so limited keys fail closed), and settlements wait in memory.
A keeper that comes back is told which requests still run and which ended meanwhile. A call that was under way when
the connection broke is repeated where that does no harm, else it is ``Unavailable`` and says that its outcome is open.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from gateway.access.limits import WINDOW_NS
from gateway.access.rules import checked_limits
from gateway.keeper import protocol
from gateway.keeper.address import socket_path
from gateway.keeper.protocol import KeyChange, OpenHold
from gateway.keeper.session import ConnectionLostError, Heard, Push, Session
from gateway.telemetry import logs
from gateway.types.budgets import Paid, Scope, Spend
from gateway.types.errors import Unavailable, WeirError
from gateway.types.generation import GenerationRecord, KeyUsage, MeterReport
from gateway.types.keys import Grant, IssuedKey, KeyLimits, KeyPatch, KeyRecord, NewKey, TeamRecord
from gateway.types.method import Method

PATIENCE_S: Final = 1.0
"""How long a call waits for the keeper to be reachable."""
_FIRST_PAUSE_S: Final = 0.02
_SETTLING_S: Final = 5.0
"""Seconds in which a keeper that is not there yet is no news."""
_LONGEST_PAUSE_S: Final = 0.5
_UNLIMITED: Final = Grant(0)

R = TypeVar("R")
_log: Final = logs.logger(__name__)


class _Admission:
    """A request under way: what a keeper that does not know of it must be told."""

    __slots__ = ("asked_ns", "hold", "key_id", "spends", "tokens", "used")

    def __init__(self, key_id: str, tokens: int, *, spends: bool) -> None:
        self.key_id = key_id
        self.tokens = tokens
        self.spends = spends
        self.asked_ns = time.monotonic_ns()
        self.hold = 0
        self.used = 0


class KeeperClient:
    """``KeyAdmin``, ``KeyFeed``, ``LimitBook`` and ``LedgerReader`` over the keeper's socket.

    Args:
        home: the state folder the keeper keeps.
        patience: seconds a call waits for the keeper to be reachable.
    """

    def __init__(self, home: Path, *, patience: float = PATIENCE_S) -> None:
        self._home = home
        self._patience = patience
        self._session: Session | None = None
        self._reachable = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._known: dict[str, KeyRecord] = {}
        self._subscribers: list[Callable[[Sequence[KeyRecord]], None]] = []
        self._wants_keys = False
        self._scopes: Sequence[Scope] = ()
        self._scope_followers: list[Callable[[Sequence[Scope]], None]] = []
        self._journal = ""
        self._running: dict[int, _Admission] = {}
        self._ended: list[_Admission] = []

    @property
    def connected(self) -> bool:
        """Whether the keeper is reachable now."""
        return self._session is not None

    @property
    def running(self) -> int:
        """How many granted requests of limited keys are not settled yet."""
        return len(self._running)

    async def start(self, wait: float = 10.0) -> None:
        """Connect, and stay connected from now on.

        Raises:
            Unavailable: the keeper was not reachable within ``wait`` seconds; the client goes on trying.
        """
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._stay_connected())
        await self._reach(loop.time() + wait, wait)

    async def stop(self) -> None:
        """Close the connection; the keeper releases what is not settled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            await asyncio.sleep(0)  # the event loop ends the connection in its next step

    async def ask(self, method: Method[R], arguments: Sequence[Any] = ()) -> R:
        """Return what an office of the keeper answers."""
        return await self._call(method, arguments)

    async def create_team(self, slug: str, name: str) -> TeamRecord:
        """Make a team."""
        return await self._call(protocol.CREATE_TEAM, (slug, name))

    async def teams(self) -> Sequence[TeamRecord]:
        """Return all teams by slug."""
        return await self._call(protocol.TEAMS, ())

    async def create_key(self, new: NewKey) -> IssuedKey:
        """Make a key."""
        checked_limits(new.limits)  # here already, because the protocol has no numbers beyond 64 bits
        return await self._call(protocol.CREATE_KEY, (new,))

    async def keys(self, team: str | None = None) -> Sequence[KeyRecord]:
        """Return keys that are not revoked, newest first."""
        return await self._call(protocol.KEYS, (team,))

    async def key(self, key_id: str) -> KeyRecord:
        """Return one key, revoked or not."""
        return await self._call(protocol.KEY, (key_id,))

    async def update_key(self, key_id: str, patch: KeyPatch) -> KeyRecord:
        """Change a key."""
        if patch.limits is not msgspec.UNSET:
            checked_limits(patch.limits)
        return await self._call(protocol.UPDATE_KEY, (key_id, patch))

    async def rotate_key(self, key_id: str, overlap_s: float) -> IssuedKey:
        """Give a key a new secret; the old one works for ``overlap_s`` seconds more."""
        return await self._call(protocol.ROTATE_KEY, (key_id, overlap_s))

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """Revoke a key for good."""
        return await self._call(protocol.REVOKE_KEY, (key_id,))

    async def generation(self, request_id: bytes) -> GenerationRecord | None:
        """Return a request by id, also one that ended a moment ago; None when it is unknown."""
        return await self._call(protocol.GENERATION, (request_id,))

    async def recent(self, limit: int) -> Sequence[GenerationRecord]:
        """Return the newest requests, newest first."""
        return await self._call(protocol.RECENT, (limit,))

    async def audit(self) -> MeterReport:
        """Compare journal, ledger and rollups; waits up to ten minutes."""
        return await self._call(protocol.AUDIT, ())

    async def key_usage(self, key_ids: Sequence[str]) -> Mapping[str, KeyUsage]:
        """Return what each of the keys was charged, by key id; zeros for a key that was never used."""
        return await self._call(protocol.KEY_USAGE, (tuple(key_ids),))

    async def share_metrics(self, dump: bytes) -> Sequence[bytes]:
        """Hand the figures of this process in and return those of the host's other processes."""
        return await self._call(protocol.SHARE_METRICS, (dump,))

    async def subscribe(self, on_change: Callable[[Sequence[KeyRecord]], None]) -> Sequence[KeyRecord]:
        """Return all keys, revoked ones too, and call ``on_change`` with each key that changes later.

        Changes missed while the keeper was away are told when it is back.
        """
        if not self._wants_keys:
            await self._call(protocol.SUBSCRIBE, (), self._heard_all)
            self._wants_keys = True
        self._subscribers.append(on_change)
        return tuple(self._known.values())

    async def follow_scopes(self, on_change: Callable[[Sequence[Scope]], None]) -> Sequence[Scope]:
        """Return the scopes of all hard budgets, and call ``on_change`` with all of them whenever they change."""
        if not self._scope_followers:
            await self._call(protocol.FOLLOW_SCOPES, (), self._heard_scopes)
        self._scope_followers.append(on_change)
        return self._scopes

    def present(self, writer: str) -> None:
        """Tell that this process writes the journal ``writer``, now and to every keeper that comes later."""
        self._journal = writer
        if self._session is not None:
            self._tell_journal(self._session)

    async def admit(self, key_id: str, limits: KeyLimits, tokens: int, spend: Spend | None = None) -> Grant:
        """Ask to run a request of about ``tokens`` tokens; a key without limits and budgets is not asked about.

        Raises:
            RateLimited: the request alone is larger than the limit.
            Unavailable: the keeper could not be asked within a second, or a budget not leased within five.
        """
        if limits.unlimited and spend is None:
            return _UNLIMITED
        admission = _Admission(key_id, tokens, spends=spend is not None)

        def heard(grant: Grant, waited: bool) -> None:
            if grant.hold:
                admission.hold = grant.hold
                self._running[grant.hold] = admission
                if not waited:
                    self.settle(grant.hold, 0)

        try:
            if spend is None:
                return await self._call(protocol.ADMIT, (key_id, limits, tokens), heard)
            return await self._call(protocol.RESERVE, (key_id, limits, tokens, spend), heard)
        except BaseException:
            # The grant may have come in the same moment as the cancellation of whoever waited for it.
            self.settle(admission.hold, 0)
            raise

    def settle(self, hold: int, tokens: int, paid: Paid = ()) -> None:
        """End the request of ``hold``, which took ``tokens`` tokens and was charged ``paid``.

        Never blocks; unknown holds are ignored. What was charged is not kept for a keeper that is away: the journal
        has it.
        """
        admission = self._running.pop(hold, None)
        if admission is None:
            return
        if self._session is not None:
            self._session.notify(protocol.SETTLE, (hold, tokens, paid))
        else:
            admission.used = tokens
            self._ended.append(admission)

    async def _call(self, method: Method[R], arguments: Sequence[Any], heard: Heard[R] | None = None) -> R:
        deadline = asyncio.get_running_loop().time() + method.seconds
        while True:
            session = await self._reach(deadline, self._patience)
            try:
                async with asyncio.timeout_at(deadline):
                    return await session.request(method, arguments, heard)
            except TimeoutError:
                raise Unavailable("the keeper does not answer", retry_after=1.0) from None
            except ConnectionLostError:
                if not method.repeatable:
                    raise Unavailable(
                        "the keeper went away in the middle; look whether the change was made before trying again"
                    ) from None

    async def _reach(self, deadline: float, patience: float) -> Session:
        """Return the session, waiting no longer than ``deadline`` (loop time) and ``patience`` seconds."""
        if self._session is None:
            limit = min(deadline, asyncio.get_running_loop().time() + patience)
            try:
                async with asyncio.timeout_at(limit):
                    while self._session is None:
                        await self._reachable.wait()
            except TimeoutError:
                raise Unavailable("the keeper of this host is away", retry_after=1.0) from None
        return self._session

    async def _stay_connected(self) -> None:
        pause = _FIRST_PAUSE_S
        trouble = ""
        began = time.monotonic()
        while True:
            session: Session | None = None
            try:
                session = await Session.connect(socket_path(self._home), self._heard, self._lost)
                await self._introduce(session)
                pause, trouble = _FIRST_PAUSE_S, ""
                await session.closed.wait()
                _log.warning("the keeper is gone; waiting for it")
            except (OSError, TimeoutError, ConnectionLostError, WeirError) as error:
                reason = f"{type(error).__name__}: {error}"
                # A worker may be up before its keeper; ``start`` says when that takes too long.
                if reason != trouble and time.monotonic() - began > _SETTLING_S:
                    trouble = reason
                    _log.warning("the keeper cannot be reached", reason=reason)
            finally:
                if session is not None:
                    session.close()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, guards nothing
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _introduce(self, session: Session) -> None:
        """Bring a keeper that may be a new one to where the last one was, then let calls through."""
        async with asyncio.timeout(protocol.HELLO.seconds):
            await session.request(protocol.HELLO, (protocol.VERSION,))
            if self._wants_keys:
                await session.request(protocol.SUBSCRIBE, (), self._heard_all)
            if self._scope_followers:
                await session.request(protocol.FOLLOW_SCOPES, (), self._heard_scopes)
        if session.closed.is_set():
            raise ConnectionLostError
        self._tell_journal(session)
        now = time.monotonic_ns()
        ended = [admission for admission in self._ended if now - admission.asked_ns < WINDOW_NS]
        self._ended = []
        holds = [
            OpenHold(admission.hold, admission.key_id, admission.tokens, now - admission.asked_ns)
            for admission in (*self._running.values(), *ended)
        ]
        if holds:
            session.notify(protocol.RESUME, (holds,))
        for admission in ended:
            session.notify(protocol.SETTLE, (admission.hold, admission.used, ()))
        self._session = session
        self._reachable.set()

    def _tell_journal(self, session: Session) -> None:
        """Tell which journal is written here, and which requests hold something of budgets."""
        if self._journal:
            holds = tuple(hold for hold, admission in self._running.items() if admission.spends)
            session.notify(protocol.PRESENT, (self._journal, holds))

    def _lost(self, session: Session) -> None:
        if self._session is session:
            self._session = None
            self._reachable.clear()

    def _heard(self, push: Push) -> None:
        if isinstance(push, KeyChange):
            self._heard_change(push.keys)
        else:
            self._heard_scopes(push.scopes, True)

    def _heard_scopes(self, scopes: Sequence[Scope], _waited: bool) -> None:
        self._scopes = tuple(scopes)
        for on_change in self._scope_followers:
            on_change(self._scopes)

    def _heard_all(self, records: Sequence[KeyRecord], _waited: bool) -> None:
        self._heard_change([record for record in records if self._known.get(record.key_id) != record])

    def _heard_change(self, changed: Sequence[KeyRecord]) -> None:
        if not changed:
            return
        self._known.update((record.key_id, record) for record in changed)
        for on_change in self._subscribers:
            on_change(changed)
