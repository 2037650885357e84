"""What a part of the keeper offers: methods it answers and duties it does, both with the keeper's database.

A part that is heavy, or seldom asked, is declared as ``Deferred`` and opened when it is first needed, so that an idle
keeper carries what it uses and no more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.snapshot import ConfigSnapshot
from gateway.db.engine import Database
from gateway.types.method import Handler, Method


@dataclass(frozen=True, slots=True)
class Premises:
    """What an office works with.

    Attributes:
        database: the keeper's.
        home: the state folder.
        pepper: the gateway's secret.
        config: returns the configuration of now, or None for a keeper that a command made for itself.
    """

    database: Database
    home: Path
    pepper: bytes
    config: Callable[[], ConfigSnapshot | None]


@dataclass(frozen=True, slots=True)
class Duty:
    """Work that comes again.

    Attributes:
        name: for the log.
        every_s: seconds before each turn.
        run: does one turn; may be cancelled at any await.
        once: whether it is done with the first turn that does not fail.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]
    once: bool = False


@dataclass(frozen=True, slots=True)
class Lasting:
    """What an office knows and has to know again when the database is away at the next start.

    Attributes:
        name: under which it is kept; unique.
        methods: those that can be answered from it, without the database.
        version: returns something that differs whenever what is known does; None while nothing is known.
        read: returns what is known.
        take: takes it up again, in a keeper whose database is away.
        drop: goes back to asking the database, which is there now.
    """

    name: str
    methods: tuple[Method[Any], ...]
    version: Callable[[], object]
    read: Callable[[], bytes]
    take: Callable[[bytes], None]
    drop: Callable[[], None]


class LastAnswer:
    """Answers a method, and keeps the last answer that was not None for a start without the database.

    Args:
        method: what is asked; its answers are whole, not what is new since the last one.
        handler: answers it, with the database.
    """

    __slots__ = ("_handler", "_last", "_method", "_recalled", "_version")

    def __init__(self, method: Method[Any], handler: Handler) -> None:
        self._method = method
        self._handler = handler
        self._version = 0
        self._last: Any = None
        self._recalled: Any = None

    async def __call__(self, *arguments: Any) -> Any:
        """Answer."""
        if self._recalled is not None:
            return self._recalled
        found = await self._handler(*arguments)
        if found is not None and found != self._last:
            self._last = found
            self._version += 1
        return found

    def lasting(self) -> Lasting:
        """Return what makes it last."""

        def take(content: bytes) -> None:
            self._recalled = self._method.result.decode(content)

        def drop() -> None:
            self._recalled = None

        return Lasting(
            self._method.name,
            (self._method,),
            lambda: self._version or None,
            lambda: msgspec.msgpack.encode(self._last),
            take,
            drop,
        )


@dataclass(frozen=True, slots=True)
class Office:
    """What one part answers and does, and what of it outlasts the database."""

    handlers: Mapping[Method[Any], Handler]
    duties: tuple[Duty, ...] = field(default=())
    lasting: tuple[Lasting, ...] = field(default=())
    figures: Mapping[str, Callable[[], Mapping[tuple[str, ...], float]]] = field(default_factory=dict)
    """Metrics by name: what each has now, by the values of its labels."""


def _never(_config: ConfigSnapshot | None) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Deferred:
    """An office that opens when one of its methods is first asked, or when it has something to do.

    Attributes:
        module: where its ``open_office`` is; imported then, in a thread.
        methods: all that it answers, declared in a module that is cheap to import.
        due: whether its duties are needed under a configuration; looked at every few seconds until it is open.
    """

    module: str
    methods: Sequence[Method[Any]]
    due: Callable[[ConfigSnapshot | None], bool] = _never
