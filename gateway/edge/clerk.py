"""Hands things over to the keeper beside the requests: what is kept of answers, and what is let go.

Nothing that a caller waits for depends on it for long. What cannot be handed over is tried again for a while, because
a keeper comes back within seconds, and is then dropped and counted. What waits is bounded in bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.telemetry import logs
from gateway.telemetry.instruments import Counter
from gateway.types.errors import Unavailable, WeirError
from gateway.types.method import Asking, Method

MOST_WAITING: Final = 64 * 2**20
"""Bytes that wait for the keeper at most."""
TRIES: Final = 20
PAUSE_S: Final = 0.5
LATER_S: Final = 5.0
COLLECT_S: Final = 0.5
MOST_COLLECTED: Final = 10_000
LAST_S: Final = 5.0
"""Seconds that a process which stops waits for what is on its way."""

Arguments = Sequence[Any] | Callable[[], Sequence[Any]]
_log: Final = logs.logger(__name__)


class Clerk:
    """Hands over for one process; belongs to its event loop.

    Args:
        books: the keeper.
        lost: counts what was dropped, by method.
    """

    def __init__(self, books: Asking, lost: Counter) -> None:
        self._books = books
        self._lost = lost
        self._running: dict[asyncio.Task[Any], int] = {}
        self._waiting = 0
        self._collected: dict[Method[Any], list[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def post(
        self, method: Method[Any], arguments: Arguments, size: int = 0, *, at_last: Sequence[Any] | None = None
    ) -> asyncio.Task[Any] | None:
        """Hand over in a task of its own and return it, or None when too much waits already.

        Args:
            method: repeatable.
            arguments: of the method; or what makes them in a thread, because that takes long.
            size: bytes of memory that the arguments take.
            at_last: small arguments that are handed over in place of those that had to be dropped, however long it
                takes.

        The task never raises; its result is what the method answers, or None when that could not be had.
        """
        if self._waiting + size > MOST_WAITING:
            self._lost.add((method.name,))
            if at_last is None:
                return None
            work, size = self._insist(method, at_last), 0
        else:
            work = self._deliver(method, arguments, at_last)
        task = asyncio.get_running_loop().create_task(work)
        self._running[task] = size
        self._waiting += size
        task.add_done_callback(self._done)
        return task

    def collect(self, method: Method[Any], item: Any) -> None:
        """Hand ``item`` over within ``COLLECT_S`` seconds, in one list with others for ``method``."""
        items = self._collected.setdefault(method, [])
        if len(items) >= MOST_COLLECTED:
            self._lost.add((method.name,))
            return
        items.append(item)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COLLECT_S, self._post_collected)

    async def flush(self) -> None:
        """Wait until all that was posted or collected is handed over or dropped."""
        self._post_collected()
        while self._running:
            await asyncio.wait(self._running)

    async def stop(self) -> None:
        """Wait a few seconds for what is on its way, and give up the rest."""
        self._post_collected()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=LAST_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _deliver(self, method: Method[Any], arguments: Arguments, at_last: Sequence[Any] | None) -> Any:
        if callable(arguments):
            arguments = await asyncio.to_thread(arguments)
        for number in range(TRIES):
            if number:
                await asyncio.sleep(PAUSE_S)
            try:
                return await self._books.ask(method, arguments)
            except Unavailable:
                continue
            except WeirError as error:
                _log.warning("the keeper does not take what is to be kept", method=method.name, reason=error.message)
                break
        self._lost.add((method.name,))
        if at_last is None:
            return None
        task = asyncio.current_task()
        assert task is not None
        self._waiting -= self._running[task]
        self._running[task] = 0
        del arguments
        return await self._insist(method, at_last)

    async def _insist(self, method: Method[Any], arguments: Sequence[Any]) -> Any:
        """Hand over, however long the keeper is away."""
        while True:
            try:
                return await self._books.ask(method, arguments)
            except Unavailable:
                await asyncio.sleep(LATER_S)
            except WeirError as error:
                _log.warning("the keeper does not take what is to be kept", method=method.name, reason=error.message)
                return None

    def _post_collected(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        collected, self._collected = self._collected, {}
        for method, items in collected.items():
            self.post(method, (items,))

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._waiting -= self._running.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("what is to be kept could not be handed over: defect", error=type(error).__name__)
