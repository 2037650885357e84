"""What a part of the keeper offers: methods it answers and duties it does, both with the keeper's database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        every_s: seconds between two turns.
        run: does one turn; may be cancelled at any await.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Office:
    """What one part answers and does."""

    handlers: Mapping[Method[Any], Handler]
    duties: tuple[Duty, ...] = field(default=())
