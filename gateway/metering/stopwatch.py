"""CPU time of a coroutine, apart from everything else that runs on its event loop."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Stopwatch(Generic[T]):
    """An awaitable that runs a coroutine and sums the CPU time of its steps, and of nothing between them.

    Errors and cancellation pass through in both directions.

    Attributes:
        seconds: CPU seconds of this thread that the coroutine took so far.
    """

    __slots__ = ("_coroutine", "seconds")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.seconds = 0.0

    def __await__(self) -> Generator[Any, Any, T]:
        """Run the coroutine to its end and return its result."""
        coroutine = self._coroutine
        error: BaseException | None = None
        sent: Any = None
        try:
            while True:
                begin = time.thread_time()
                try:
                    waiting = coroutine.send(sent) if error is None else coroutine.throw(error)
                except StopIteration as end:
                    result: T = end.value
                    return result
                finally:
                    self.seconds += time.thread_time() - begin
                sent, error = None, None
                try:
                    sent = yield waiting
                except BaseException as raised:  # noqa: BLE001 - handed on to the coroutine, whatever it is
                    error = raised
        finally:
            coroutine.close()
