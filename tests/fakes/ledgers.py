"""Migrated SQLite ledgers for tests whose subject is not the migration: a copy takes a hundredth of the time."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from functools import cache
from pathlib import Path

from gateway.db.migrations import migrate


def furnish(home: Path) -> None:
    """Give the state folder ``home`` an empty ledger of this version, unless it has a ledger."""
    path = home / "weir.db"
    if not path.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(migrated())


@cache
def migrated() -> bytes:
    """Return the file of an empty, migrated ledger."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            asyncio.run(migrate(f"sqlite+aiosqlite:///{path}"))
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            failed.append(error)

    with tempfile.TemporaryDirectory(prefix="weir-ledger-") as folder:
        path = Path(folder) / "weir.db"
        thread = threading.Thread(target=run)  # because an event loop may run in this one
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return path.read_bytes()
