"""Journal, shipper and ledger together, on a disk that tears records and forgets what was not synced.

A state machine: attempts begin, go on and end; the worker is killed, the machine loses power, syncs and writes fail,
the disk is full, the shipper dies in the middle of a round, segments come back and are delivered again. Whatever
happens in whatever order: what was acknowledged is in the ledger exactly once and as it was, nothing that runs is given
up, and whatever did reach the journal is accounted for.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.db.engine import Database
from gateway.metering import checkpoints, recovery
from gateway.metering.audit import audit
from gateway.metering.backlog import Backlog, Waiting
from gateway.metering.journal import Journal
from gateway.metering.record import Open, Progress
from gateway.metering.segments import list_segments
from gateway.metering.shipper import Shipper
from gateway.types.errors import Unavailable
from gateway.types.tokens import Usage, UsageSource
from tests.integration.metering.books import LABELLED, query
from tests.integration.metering.conftest import only_sqlite, url_in
from tests.integration.metering.samples import begin, closed, opened
from tests.unit.metering.faulty_disk import Disk, put_under

Key = tuple[bytes, int]
ZEROS = 4096


class Died(Exception):
    """The shipper's process ended here."""


class ForgetfulDisk(Disk):
    """A disk that keeps, when power goes, only what was synced; and of the rest whatever it likes.

    Attributes:
        deleted: segments that were deleted since the folder was last synced, by path; they may come back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deleted: dict[Path, bytes] = {}
        self._named: set[int] = set()

    def fsync(self, fd: int) -> None:
        """Sync the folder: what lies in it has its name for good, what was deleted is gone for good."""
        os.fsync(fd)
        self._named = {entry.inode() for entry in os.scandir(f"/dev/fd/{fd}")}
        self.deleted.clear()

    def lose_power(self, folder: Path, chance: Random) -> None:
        """Leave of every segment what was synced, and more or less of the rest; what is left is on the medium."""
        for file in list_segments(folder):
            data, inode = file.path.read_bytes(), file.path.stat().st_ino
            kept = min(self._synced.get(inode, 0), len(data))
            if inode not in self._named and chance.random() < 0.5:
                file.path.unlink()
                continue
            cut = chance.randint(kept, len(data))
            file.path.write_bytes(data[:cut] + bytes(chance.choice([0, ZEROS]) if cut < len(data) else 0))
        for path, data in self.deleted.items():
            if chance.random() < 0.5:
                path.write_bytes(data)
        self.deleted.clear()
        for file in list_segments(folder):
            inode = file.path.stat().st_ino
            self._synced[inode] = file.size()
            self._named.add(inode)


@dataclass(slots=True)
class Attempt:
    """What became of an attempt, as its worker knows.

    Attributes:
        said: completion tokens of its latest progress.
        synced: those of its latest progress that is on the medium, None when not even its beginning is.
        cached: as ``synced``, in the page cache of a machine that has not lost its power since.
        ended: completion tokens it ended with, once its end is written.
        acknowledged: its caller was told the end.
    """

    start: Open
    said: int = 0
    synced: int | None = None
    cached: int | None = None
    ended: int | None = None
    acknowledged: bool = False


@dataclass(slots=True)
class Promise:
    """Somebody waits for a commit: what it will have made durable."""

    future: asyncio.Future[None]
    attempts: list[tuple[Attempt, int, int | None]] = field(default_factory=list)

    def kept(self) -> None:
        """Take note that all of it is durable."""
        for attempt, said, ended in self.attempts:
            attempt.synced = max(attempt.synced or 0, said)
            attempt.cached = max(attempt.cached or 0, said)
            attempt.acknowledged |= ended is not None


class Books(RuleBasedStateMachine):
    """One host: a worker, a shipper, a ledger."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.home = home
        self.folder = home / "journal"
        self.disk = ForgetfulDisk()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        put_under(self.patch, self.disk)
        self.patch.setattr(recovery, "RETRY_S", (0.001, 0.002))
        self.patch.setattr(Backlog, "remove", self._removing(Backlog.remove))
        self.patch.setattr(checkpoints, "save", self._saving(checkpoints.save))
        self.dies_at = ""
        self.archive: list[tuple[str, bytes]] = []
        self.copies = 0
        self.attempts: dict[Key, Attempt] = {}
        self.running: list[Attempt] = []
        self.ended: list[Attempt] = []
        self.promises: list[Promise] = []
        self.faulty = False
        self.database = Database(url_in(home))
        self.shipper = Shipper(self.folder, self.database)
        self.journal = self._begin()

    def _begin(self) -> Journal:
        async def make() -> Journal:
            return begin(self.folder, segment_bytes=2_500, segment_seconds=60.0)

        return self.run(make())

    def run(self, work: Awaitable[Any]) -> Any:
        """Carry something out, for at most twenty seconds."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def _removing(self, remove: Callable[[Backlog, Iterable[Waiting]], None]) -> Any:
        def removed(backlog: Backlog, finished: Iterable[Waiting]) -> None:
            going = list(finished)
            if going and self.dies_at == "before delete":
                raise Died
            for segment in going:
                data = segment.file.path.read_bytes()
                self.archive.append((segment.file.writer, data))
                self.disk.deleted[segment.file.path] = data
            remove(backlog, going)
            if going and self.dies_at == "after delete":
                raise Died

        return removed

    def _saving(self, save: Callable[..., Any]) -> Any:
        async def saved(*arguments: Any) -> None:
            await save(*arguments)
            if self.dies_at == "before commit":
                raise Died

        return saved

    # The worker

    @rule()
    def open(self) -> None:
        """An attempt begins, unless the journal says that it cannot be metered."""
        start = opened()
        try:
            self.journal.append(start)
        except Unavailable:
            assert self.journal.failed
            return
        attempt = Attempt(start)
        self.running.append(attempt)
        self.attempts[start.request_id, start.attempt] = attempt

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9), tokens=st.integers(1, 50))
    def progress(self, which: int, tokens: int) -> None:
        """An attempt goes on."""
        attempt = self.running[which % len(self.running)]
        attempt.said += tokens
        start = attempt.start
        self.journal.append(Progress(start.request_id, 1, Usage(1_000, attempt.said), UsageSource.COUNTED))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9))
    def close(self, which: int) -> None:
        """An attempt ends."""
        attempt = self.running.pop(which % len(self.running))
        attempt.ended = attempt.said + 1
        self.ended.append(attempt)
        self.journal.append(closed(attempt.start, Usage(1_000, attempt.ended)))

    @rule()
    def commit(self) -> None:
        """Somebody waits until everything is durable."""

        async def ask() -> asyncio.Future[None]:
            return self.journal.commit()

        promise = Promise(self.run(ask()))
        promise.attempts = [(each, each.said, each.ended) for each in (*self.running, *self.ended)]
        self.promises.append(promise)

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.003]))
    def rest(self, seconds: float) -> None:
        """Time passes."""
        self.run(asyncio.sleep(seconds))
        self._hear()

    def _hear(self) -> None:
        """Take note of the promises that were kept."""
        for promise in self.promises:
            if promise.future.done() and promise.future.exception() is None:
                promise.kept()
        self.promises = [promise for promise in self.promises if not promise.future.done()]

    @rule(how=st.sampled_from(["fail", "short", "sync fails", "full", "room", "room"]))
    def fail(self, how: str) -> None:
        """The disk fails, or does not any more."""
        self.faulty = self.faulty or how != "room"
        self.disk.fail(how)

    @rule()
    def patience(self) -> None:
        """The disk is well, and whoever waits is answered."""
        self.disk.heal()
        for promise in self.promises:
            self.run(promise.future)
        self._hear()

    # Deaths

    @rule()
    def kill_worker(self) -> None:
        """The worker's process is killed; what it wrote is in the page cache."""
        self._end_worker()
        if not self.faulty:
            for attempt in self.running:
                attempt.cached = attempt.said
        self._start_anew()

    @rule(seed=st.integers(0, 2**32))
    def lose_power(self, seed: int) -> None:
        """The machine goes: worker, shipper, and what was not synced."""
        self._end_worker()
        self.shipper.close()
        self.disk.lose_power(self.folder, Random(seed))
        for attempt in self.attempts.values():
            attempt.cached = attempt.synced
        self.shipper = Shipper(self.folder, self.database)
        self._start_anew()

    def _end_worker(self) -> None:
        self._hear()
        self.journal._stop()
        for promise in self.promises:
            promise.future.cancel()
        self.promises = []

    def _start_anew(self) -> None:
        self.disk.heal()
        self.faulty = False
        self.running, self.ended = [], []
        self.journal = self._begin()

    # The shipper

    @rule(dies_at=st.sampled_from(["", "", "before commit", "before delete", "after delete"]))
    def ship(self, dies_at: str) -> None:
        """A round of shipping, at whose end or in whose middle the keeper may die."""
        self.dies_at = dies_at
        try:
            self.run(self.shipper.ship())
        except Died:
            self.shipper.close()
            self.shipper = Shipper(self.folder, self.database)
        finally:
            self.dies_at = ""

    @precondition(lambda self: self.archive)
    @rule(which=st.integers(0, 99))
    def deliver_again(self, which: int) -> None:
        """A segment that was shipped and deleted is there again, under another time."""
        writer, data = self.archive[which % len(self.archive)]
        self.copies += 1
        (self.folder / f"20260101T{self.copies:012d}Z-{writer}.weirj").write_bytes(data)

    # What must hold

    def rows(self) -> dict[Key, tuple[str, int]]:
        """Return status and completion tokens of every row; no key is there twice."""
        found = query(self.home, f"SELECT request_id, attempt, status, tokens_completion FROM {LABELLED}")
        rows = {(row[0], row[1]): (row[2], row[3]) for row in found}
        assert len(rows) == len(found)
        return rows

    @invariant()
    def nothing_that_runs_is_given_up(self) -> None:
        """An attempt of a living worker has no row before its end."""
        rows = self.rows()
        for attempt in self.running:
            assert (attempt.start.request_id, 1) not in rows

    def teardown(self) -> None:
        """Bring everything to its end and compare the books."""
        try:
            self.patience()
            self.run(self._journal_is_well())
            self.commit()
            self.patience()
            self.run(self.journal.close())
            for attempt in self.running:
                attempt.cached = attempt.said
            self.ship("")
            self.ship("")
            self._compare(self.rows())
            report = self.run(audit(self.folder, self.database))
            assert report.ok, report.mismatches
            assert list_segments(self.folder) == []
        finally:
            self.journal._stop()
            self.shipper.close()
            self.run(self.database.close())
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.home)

    async def _journal_is_well(self) -> None:
        while self.journal.failed:
            await asyncio.sleep(0.001)

    def _compare(self, rows: dict[Key, tuple[str, int]]) -> None:
        assert rows.keys() <= self.attempts.keys()
        for key, attempt in self.attempts.items():
            if attempt.acknowledged:
                assert rows[key] == ("ok", attempt.ended)
            elif key not in rows:
                assert attempt.cached is None, "what is sure to be in the journal is accounted for"
            elif rows[key][0] == "ok":
                assert rows[key][1] == attempt.ended
            else:
                status, billed = rows[key]
                assert status == "orphaned"
                assert (attempt.cached or 0) <= billed <= attempt.said


@only_sqlite
@pytest.mark.timeout(300)
def test_the_books_agree_whatever_dies_and_whatever_is_forgotten(fresh: Callable[[], Path]) -> None:
    """See the module."""
    run_state_machine_as_test(
        lambda: Books(fresh()),  # type: ignore[arg-type] # declared for a class; a function does as well, it says
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
