"""The offices of the keeper: parts that answer methods and do duties with the keeper's database.

Each part (prices, budgets, rankings, billing, …) has a function ``open_office`` that takes the ``Premises`` and returns
its ``Office``; it is opened with the keeper by one line in ``OFFICES``. A part that is heavy or seldom asked is a
``Deferred`` there: its module is imported, in a thread, when one of its methods is first asked or when it is due. A
duty that fails is logged and tried again at its next turn; no duty ends another one.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from gateway.access import house, upstream_keys
from gateway.beat import paused
from gateway.billing import methods as billing
from gateway.console import calibrations, drains, management
from gateway.console import question as console
from gateway.db.office import Deferred, Duty, Lasting, Office, Premises
from gateway.keeper import content, repetition, stored_responses
from gateway.leaderboard import office as boards
from gateway.metering import retention
from gateway.routing.decisions import office as decisions
from gateway.tariff import office as tariff
from gateway.telemetry import logs
from gateway.types import background
from gateway.types.analytics import ANALYTICS
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.method import Handler, Method

OFFICES: Final[tuple[Callable[[Premises], Office] | Deferred, ...]] = (
    decisions.open_office,
    boards.open_office,
    house.open_office,
    upstream_keys.open_office,
    tariff.open_office,
    Deferred("gateway.metering.analytics", (ANALYTICS,)),
    Deferred("gateway.billing.reconciliation", (billing.RECONCILE,)),
    Deferred("gateway.billing.office", billing.OFFICE, billing.due),
    retention.open_office,
    repetition.open_office,
    content.open_office,
    stored_responses.open_office,
    Deferred("gateway.keeper.background", background.OFFICE),
    drains.open_office,
    calibrations.open_office,
    management.open_office,
    Deferred("gateway.console.office", console.OFFICE),
)
"""What every keeper has."""
AWAY: Final = "the database has been away since this gateway started"
STOP_S: Final = 5.0
"""Seconds for which a turn that runs is waited for when the keeper stops."""
LOOK_S: Final = 5.0
"""Seconds between two looks whether a deferred office is due."""

_log: Final = logs.logger(__name__)


class Offices:
    """All offices of one keeper, open or to be opened; ``more`` are those that need more than the ``Premises``.

    Attributes:
        methods: all that is answered, by name.
        away: whether the database was not there at the start and is not yet: only what is known without it is told.
    """

    def __init__(self, premises: Premises, *more: Office, offices: Sequence[Any] = OFFICES) -> None:
        self.methods: dict[str, Method[Any]] = {}
        self.away = False
        self._lasting: dict[str, Lasting] = {}
        self._told_away: set[str] = set()
        self._premises = premises
        self._handlers: dict[str, Handler] = {}
        self._figures: dict[str, Callable[[], Mapping[tuple[str, ...], float]]] = {}
        self._closed: list[Deferred] = []
        self._opening = asyncio.Lock()
        self._running = False
        self._stopping = asyncio.Event()
        self._duties: list[Duty] = []
        self._tasks: list[asyncio.Task[None]] = []
        for each in (*more, *offices):
            if isinstance(each, Deferred):
                self._closed.append(each)
                for method in each.methods:
                    self._declare(method, partial(self._first, each, method))
                continue
            opened = each if isinstance(each, Office) else each(premises)
            for method, handler in opened.handlers.items():
                self._declare(method, handler)
            self._duties.extend(opened.duties)
            self._figures |= opened.figures
            self._lasting |= {lasting.name: lasting for lasting in opened.lasting}

    def _declare(self, method: Method[Any], handler: Handler) -> None:
        if method.name in self.methods:
            raise RuntimeError(f"two offices answer {method.name}")
        self.methods[method.name] = method
        self._handlers[method.name] = handler

    def start(self) -> None:
        """Begin the duties; needs the running loop."""
        self._running = True
        self._stopping.clear()
        watch = [Duty("offices that are due", LOOK_S, self._look)] if self._closed else []
        self._begin((*self._duties, *watch))

    async def stop(self) -> None:
        """End the duties. A turn that runs is waited for: cut off in a call of the database it leaves a broken one."""
        self._running = False
        self._stopping.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.wait(self._tasks)
        self._tasks = []

    async def ask(self, method: Method[Any], arguments: Sequence[Any]) -> Any:
        """Return what the office answers.

        Raises:
            BadRequest: no office has this method.
            Unavailable: the database is away and this is not known without it.
        """
        handler = self._handlers.get(method.name)
        if handler is None:
            raise BadRequest(f"the keeper has no method {method.name!r}")
        if self.away and method.name not in self._told_away:
            raise Unavailable(AWAY, retry_after=5.0)
        return await handler(*arguments)

    def figure(self, name: str) -> Mapping[tuple[str, ...], float]:
        """Return what a metric has now; nothing while the office that knows is not open."""
        read = self._figures.get(name)
        return {} if read is None else read()

    @property
    def version(self) -> tuple[object, ...]:
        """Something that differs whenever what is to be kept for a start without the database does."""
        return tuple(each.version() for each in self._lasting.values())

    def remembered(self) -> dict[str, bytes]:
        """Return what is to be kept for a start without the database, by name."""
        return {name: each.read() for name, each in self._lasting.items() if each.version() is not None}

    def recall(self, known: Mapping[str, bytes]) -> None:
        """Go on without the database, with what was kept; what cannot be read any more is not known."""
        self.away = True
        for lasting in self._lasting.values():
            kept = known.get(lasting.name)
            if kept is None:
                continue
            try:
                lasting.take(kept)
            except ValueError as error:
                _log.error("what was kept is of another version", name=lasting.name, reason=str(error))
            else:
                self._told_away.update(method.name for method in lasting.methods)

    def resume(self) -> None:
        """Go on with the database, which is there now."""
        self.away = False
        for each in self._lasting.values():
            each.drop()

    def _begin(self, duties: Sequence[Duty]) -> None:
        loop = asyncio.get_running_loop()
        self._tasks += [loop.create_task(_do(duty, self._stopping)) for duty in duties]

    async def _first(self, deferred: Deferred, method: Method[Any], *arguments: Any) -> Any:
        """Open an office for the first question to it, and answer that."""
        await self.open(deferred)
        return await self._handlers[method.name](*arguments)

    async def _look(self) -> None:
        """Open the offices that are due."""
        for deferred in tuple(self._closed):
            if deferred.due(self._premises.config()):
                await self.open(deferred)

    async def open(self, deferred: Deferred) -> None:
        """Open an office, unless it is open. A lone worker goes on serving while its modules are imported."""
        async with self._opening:
            if deferred not in self._closed:
                return
            module = await asyncio.to_thread(importlib.import_module, deferred.module)
            opened: Office = module.open_office(self._premises)
            if {each.name for each in opened.handlers} != {each.name for each in deferred.methods}:
                raise RuntimeError(f"{deferred.module} answers other methods than it is declared with")
            self._handlers |= {method.name: handler for method, handler in opened.handlers.items()}
            self._figures |= opened.figures
            self._closed.remove(deferred)
            if self._running:
                self._begin(opened.duties)


async def _do(duty: Duty, stopping: asyncio.Event) -> None:
    """Do a duty again and again, until ``stopping`` is set or it was to be done once."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(paused(duty.every_s)):
                await stopping.wait()
        if stopping.is_set():
            return
        try:
            await duty.run()
        except Unavailable as error:
            _log.info("a duty waits for the database", duty=duty.name, reason=error.message)
        except Exception:  # noqa: BLE001 - one failed turn must not end the duty for good
            _log.exception("a duty failed", duty=duty.name)
        else:
            if duty.once:
                return
