"""The offices of the keeper: parts that answer methods and do duties with the keeper's database.

Each part (prices, budgets, rankings, billing, …) has a function that takes the ``Premises`` and returns its
``Office``; it is opened with the keeper by one line in ``OFFICES``. A duty that fails is logged and tried again at its
next turn; no duty ends another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.billing import office as billing
from gateway.billing import reconciliation
from gateway.db.office import Duty, Office, Premises
from gateway.leaderboard import office as boards
from gateway.metering import retention
from gateway.routing.decisions import office as decisions
from gateway.tariff import office as tariff
from gateway.telemetry import logs
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.method import Handler, Method

OFFICES: Final[tuple[Callable[[Premises], Office], ...]] = (
    decisions.open_office,
    boards.open_office,
    tariff.open_office,
    reconciliation.open_office,
    billing.open_office,
    retention.open_office,
)
"""What opens with every keeper."""

_log: Final = logs.logger(__name__)


class Offices:
    """All offices of one keeper, open; ``more`` are those that need more than the ``Premises``."""

    def __init__(self, premises: Premises, *more: Office) -> None:
        self.methods: dict[str, Method[Any]] = {}
        self._handlers: dict[str, Handler] = {}
        self._duties: list[Duty] = []
        self._tasks: list[asyncio.Task[None]] = []
        for opened in (*more, *(make(premises) for make in OFFICES)):
            for method, handler in opened.handlers.items():
                if method.name in self.methods:
                    raise RuntimeError(f"two offices answer {method.name}")
                self.methods[method.name] = method
                self._handlers[method.name] = handler
            self._duties.extend(opened.duties)

    def start(self) -> None:
        """Begin the duties; needs the running loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(_do(duty)) for duty in self._duties]

    async def stop(self) -> None:
        """End the duties."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    async def ask(self, method: Method[Any], arguments: Sequence[Any]) -> Any:
        """Return what the office answers. Raises ``BadRequest`` when none has this method."""
        handler = self._handlers.get(method.name)
        if handler is None:
            raise BadRequest(f"the keeper has no method {method.name!r}")
        return await handler(*arguments)


async def _do(duty: Duty) -> None:
    """Do a duty again and again. Runs until cancelled."""
    while True:
        await asyncio.sleep(duty.every_s)
        try:
            await duty.run()
        except Unavailable as error:
            _log.info("a duty waits for the database", duty=duty.name, reason=error.message)
        except Exception:  # noqa: BLE001 - one failed turn must not end the duty for good
            _log.exception("a duty failed", duty=duty.name)
