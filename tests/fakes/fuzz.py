"""What the fuzz tests share: a loop that keeps nothing to itself, pieces of bytes, and a part that does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def strict_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a loop; what it would only report (an exception in a callback, a task nobody asked) fails the block."""
    reported: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    yield loop
    loop.close()
    assert not reported


def cut(data: bytes, steps: list[int]) -> list[bytes]:
    """Return ``data`` in pieces: of the sizes in ``steps``, and then the rest."""
    pieces = []
    for step in steps:
        pieces.append(data[:step])
        data = data[step:]
    return [piece for piece in [*pieces, data] if piece]


class Nothing:
    """Stands for every part that a refused request touches: all it is told is lost."""

    def __getattr__(self, name: str) -> Any:
        return Nothing()

    def __call__(self, *_given: Any, **_named: Any) -> None:
        """Lose it."""
