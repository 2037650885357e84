"""Filling a demo's ledger with its past, by the road that real records take: the journal, then the shipper.

So ledger, rollups, boards and milestones agree as they always do. Every row has an id made of the seed, so writing one
again changes nothing, and a file in the state folder says how far the past goes; a later start adds only the days
since. A ledger that holds anything but the demo's own is left alone. Raises ``Unavailable`` when the keeper cannot be
used.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Final, Protocol

import msgspec

from gateway.access.keys import PREFIX
from gateway.leaderboard.question import DECIDE, MADE_UP, SIGHT, STRANGERS, Sighting
from gateway.metering.journal import Journal
from gateway.sim.history.cast import CREWS, PROGRAMS
from gateway.sim.history.past import past, rates
from gateway.telemetry import logs
from gateway.types.errors import NotFound, WeirError
from gateway.types.keys import IssuedKey, KeyPatch, KeyRecord, NewKey, TeamRecord
from gateway.types.method import Asking

SLICE: Final = 40
"""Rows written before others get their turn on the event loop."""
DAY_S: Final = 86_400
JOURNAL: Final = "journal"
_log: Final = logs.logger(__name__)


class Keeping(Asking, Protocol):
    """What is needed of the keeper."""

    async def ensure_team(self, slug: str, name: str) -> TeamRecord:
        """Return the team of that slug, made when it is missing."""

    async def keys(self, team: str | None = None) -> Sequence[KeyRecord]:
        """Return keys that are not revoked."""

    async def key(self, key_id: str) -> KeyRecord:
        """Return one key, revoked or not. Raises ``NotFound``."""

    async def create_key(self, new: NewKey) -> IssuedKey:
        """Make a key."""

    async def update_key(self, key_id: str, patch: KeyPatch) -> KeyRecord:
        """Change a key."""


class Mark(msgspec.Struct, frozen=True):
    """How far the past was written: its seed, day 0, and its first and last day, counted from 1970."""

    seed: int
    anchor: int
    first: int
    last: int


class Filled(msgspec.Struct, frozen=True):
    """What was done.

    Attributes:
        rows: written.
        seconds: of CPU time that writing took.
        foreign: a key that is not the demo's, because of which nothing was written.
    """

    rows: int = 0
    seconds: float = 0.0
    foreign: str = ""


async def fill(keeper: Keeping, home: Path, days: int, seed: int = 1, *, own_keys: Sequence[str] = ()) -> Filled:
    """Write the past of ``days`` days before today into the journal of ``home``, or what is missing of it.

    Args:
        keeper: of ``home``.
        home: the state folder.
        days: length of the past, when there is none yet.
        seed: of all chance, when there is none yet.
        own_keys: ids of keys that belong to the demo and may have been used.
    """
    today = int(time.time()) // DAY_S
    path = home / MADE_UP
    mark = _read(path)
    if days <= 0 or (mark is not None and mark.last >= today - 1):
        return Filled()
    ours = {key_id for crew in CREWS for key_id in crew.keys} | set(own_keys)
    strangers = [key.key_id for key in await keeper.keys() if key.key_id not in ours]
    used: list[str] = await keeper.ask(STRANGERS, (tuple(ours),))
    strangers += used
    if strangers:
        return Filled(foreign=strangers[0])
    await _introduce(keeper, today)
    started = time.process_time()
    if mark is None:
        mark = Mark(seed, today, today - days, today - days - 1)
    rows = await _write(home / JOURNAL, mark, today - 1)
    _save(path, Mark(mark.seed, mark.anchor, mark.first, today - 1))
    return Filled(rows, time.process_time() - started)


async def fill_beside(keeper: Keeping, home: Path, days: int, own_keys: Sequence[str]) -> None:
    """As ``fill``, beside a gateway that serves: says in the log what became of it and raises nothing."""
    try:
        filled = await fill(keeper, home, days, own_keys=own_keys)
    except (WeirError, OSError) as error:
        _log.warning("the made-up past could not be written", reason=str(error))
        return
    if filled.rows:
        _log.info("a made-up past was written", rows=filled.rows, seconds=round(filled.seconds, 2))
    elif filled.foreign:
        _log.warning("no made-up past was written: this ledger has other data than the demo's", key=filled.foreign)


async def _introduce(keeper: Keeping, today: int) -> None:
    """Make the teams, their keys (disabled, and nobody knows their secrets) and the apps, which are approved."""
    for crew in CREWS:
        await keeper.ensure_team(crew.slug, crew.name)
        for number, key_id in enumerate(crew.keys, 1):
            try:
                await keeper.key(key_id)
            except NotFound:
                secret = f"{PREFIX}{key_id}-{token_hex(32)}"
                await keeper.create_key(NewKey(f"made up {number}", crew.slug, secret=secret))
                await keeper.update_key(key_id, KeyPatch(disabled=True))
    for program in PROGRAMS:
        if program.host:
            key_id = next(crew.keys[0] for crew in CREWS if crew.slug == program.team)
            seen = Sighting(today - 1, key_id, program.host, program.title, program.categories, len(PROGRAMS))
            await keeper.ask(SIGHT, (seen,))
            await keeper.ask(DECIDE, (program.host, "approved", program.title))


async def _write(folder: Path, mark: Mark, last: int) -> int:
    """Write the rows of the days after ``mark.last`` into a journal of its own; return how many."""
    journal = Journal.create(folder, durability="process")
    for rates_id, each in rates().items():
        journal.declare(rates_id, each)
    count = 0
    # The newest days first: boards are asked for the last weeks before all else.
    for day in range(last, mark.last, -1):
        for row in past(mark.seed, mark.anchor, day, day):
            journal.append(row)
            count += 1
            if count % SLICE == 0:
                await asyncio.sleep(0)
    await journal.close()
    return count


def _read(path: Path) -> Mark | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _save(path: Path, mark: Mark) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(mark))
    os.replace(new, path)  # noqa: PTH105 - the whole file or none
