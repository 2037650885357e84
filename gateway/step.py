"""The step between two stops of a request, at which others that came with it catch up.

A request runs some 13,000 instructions of the interpreter, each of them once: by its end the processor's caches and
predictors hold little of its beginning. So requests that are there together go from stop to stop together: each gives
way between two stops, and what the first of them brought into the caches serves the others. Nobody waits for anybody,
and a request that comes alone goes on at once (docs/decisions/0044-side-by-side.md).

Whatever must not be seen half done by other requests has no step in it: from the gate to the entry in the books of the
replica that was chosen there is none, or all of them would choose the same one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, final

TOGETHER_S: Final = 0.001
"""Seconds between two requests that count as having come together: about as long as either is worked on."""


@final
class _Step:
    """Awaited, it ends the task's turn while requests come together; alone it does nothing."""

    __slots__ = ("_last", "_together")

    def __init__(self) -> None:
        self._last = 0.0
        self._together = False

    def came(self, at: float, *, others: bool) -> None:
        """A request has come, ``at`` so many monotonic seconds; ``others`` is whether any is still there.

        Of a caller who asks again as soon as it has its answer each comes alone, however soon that is.
        """
        self._together = others and at - self._last < TOGETHER_S
        self._last = at

    def __await__(self) -> Generator[None, None, None]:
        if self._together:
            yield


STEP: Final = _Step()
"""``await STEP`` lets the others catch up."""
