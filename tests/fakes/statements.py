"""Statements are compiled once by a test process, not again for the database of each test.

What SQLAlchemy makes of a statement depends on the kind of the database and not on which one it is, but it keeps that
for each engine: a gateway that lives for one test compiles all it asks, which is a third of what its start takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import LRUCache

from gateway.db import engine

_compiled: LRUCache[Any, Any] = LRUCache(4_000)


def share() -> None:
    """Have all ledgers of this process, from now on, use what was compiled for another one of their kind."""
    for dialect in (SQLiteDialect_aiosqlite, PGDialect_asyncpg):
        # Part of the key of what was compiled. All are made with the same options.
        dialect.__eq__ = _same  # type: ignore[method-assign] # found on the class, as a method would be
        dialect.__hash__ = _number  # type: ignore[assignment] # see above
    for name in ("sqlite_engine", "postgresql_engine"):
        setattr(engine, name, _sharing(getattr(engine, name)))


def _same(one: object, other: object) -> bool:
    return type(one) is type(other)


def _number(one: object) -> int:
    return hash(type(one))


def _sharing(make: Callable[..., AsyncEngine]) -> Callable[..., AsyncEngine]:
    def made(*arguments: Any, **options: Any) -> AsyncEngine:
        found = make(*arguments, **options)
        found.sync_engine.update_execution_options(compiled_cache=_compiled)
        return found

    return made
