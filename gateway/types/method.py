"""Methods of the keeper: how a process asks the one that owns the database.

A ``Method`` is declared once, beside the part that answers it, with the types of its arguments and of its result.
Callers write ``await books.ask(RANKINGS, (query,))`` and do not see whether the keeper is this process or another one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

R = TypeVar("R")
Handler = Callable[..., Awaitable[Any]]
"""Answers a method: takes its arguments, returns its result or raises a ``WeirError``."""


@dataclass(frozen=True, slots=True)
class Method(Generic[R]):
    """A method of the keeper.

    Attributes:
        name: unique; those of an office are called ``<noun>.<verb>``.
        arguments: decoder of the argument tuple.
        result: decoder of the result.
        repeatable: whether calling it again after a lost connection does no harm.
        seconds: how long a client waits for the result.
    """

    name: str
    arguments: msgspec.msgpack.Decoder[Any]
    result: msgspec.msgpack.Decoder[R]
    repeatable: bool = True
    seconds: float = 10.0


def method(name: str, arguments: Any, result: Any, *, repeatable: bool = True, seconds: float = 10.0) -> Method[Any]:
    """Return a method whose arguments are a tuple of type ``arguments`` and whose result is of type ``result``."""
    decoders = msgspec.msgpack.Decoder(arguments), msgspec.msgpack.Decoder(result)
    return Method(name, *decoders, repeatable=repeatable, seconds=seconds)


class Asking(Protocol):
    """Whoever can ask the keeper: the keeper itself, or a client of it."""

    async def ask(self, method: Method[R], arguments: Sequence[Any] = ()) -> R:
        """Return what ``method`` answers.

        Raises:
            WeirError: what the method raises; ``Unavailable`` when the keeper or its database is away.
        """
        ...
