"""One episode: a gateway that is killed again and again under callers, then its books.

Afterwards segments that were shipped are delivered again, in any order and several times, and must change nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from gateway.db.engine import Database
from gateway.metering.audit import audit
from gateway.metering.segments import list_segments
from gateway.metering.shipper import Shipper
from tests.e2e.processes import presently
from tests.kill.books import Ledger, Verdict, compare, read_ledger, summary
from tests.kill.callers import Crowd
from tests.kill.engine import Book, engines
from tests.kill.failpoints import IN_KEEPER, IN_WORKER
from tests.kill.house import House
from tests.kill.weather import Weather, blowing

CALLERS: Final = 10
ENGINES: Final = 2
_ANSWERS_S: Final = 180.0


@dataclass(slots=True)
class Result:
    """What an episode, or several, came to."""

    started: int = 0
    completed: int = 0
    kills: int = 0
    redelivered: int = 0
    strikes: int = 0
    points: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)

    def take(self, other: Result) -> None:
        """Add what another episode came to."""
        self.started += other.started
        self.completed += other.completed
        self.kills += other.kills
        self.redelivered += other.redelivered
        self.strikes += other.strikes
        self.verdict.take(other.verdict)
        for mine, theirs in ((self.points, other.points), (self.rows, other.rows)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count


def schedule(chance: Random, kills: int) -> list[str]:
    """Return the points of ``kills`` deaths: each named one about as often as any other, and random moments."""
    points: list[str] = []
    while len(points) < kills:
        cycle = [*IN_WORKER, *IN_KEEPER, "random", "random", "random"]
        chance.shuffle(cycle)
        points += cycle
    return points[:kills]


async def play(
    folder: Path,
    chance: Random,
    points: Sequence[str],
    *,
    workers: int,
    durability: str = "disk",
    database_url: str = "",
    weather: Weather | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Result:
    """Play one episode in ``folder``, whose state folder may be a disk of its own; it dies at each of ``points``."""
    async with engines(ENGINES) as (book, urls):
        house = House(folder, urls, workers=workers, durability=durability, database_url=database_url)
        crowd = Crowd(chance, CALLERS)
        try:
            crowd.port = await house.start()
            async with blowing(weather, Random(chance.random()), lambda: crowd.answered) as log:
                for point in points:
                    await _more_answers(crowd, house, chance.randrange(1, 25))
                    if chance.random() < 0.3:
                        _deliver_again(house, chance)
                    await house.kill(point, chance)
                    if workers == 1:
                        crowd.port = await house.restart(chance.choice(IN_KEEPER) if chance.random() < 0.2 else "")
                    say(f"{house.kills} kills, last {point}; {len(crowd.seen)} asked, {crowd.answered} answered")
            for point in (*IN_WORKER, *IN_KEEPER):
                house.failpoints.disarm(point)
            await _more_answers(crowd, house, 5)
            await crowd.stop()
            await house.stop()
        finally:
            house.process.close()
        result = await _settle(house, crowd, book, chance)
        result.strikes = log.strikes
        return result


async def _more_answers(crowd: Crowd, house: House, count: int) -> None:
    target = crowd.answered + count
    try:
        await presently(lambda: crowd.answered >= target, _ANSWERS_S)
    except AssertionError as error:
        raise AssertionError(f"nobody is answered any more:\n{house.process.output[-20_000:]}") from error


async def _settle(house: House, crowd: Crowd, book: Book, chance: Random) -> Result:
    """Compare the books, deliver everything again, compare them once more."""
    result = Result(len(crowd.seen), crowd.answered, house.kills, points=house.points)
    ledger = await read_ledger(house.database_url)
    result.verdict.take(compare(book, crowd.seen, ledger))
    result.redelivered = await _redeliver(house, chance)
    after = await read_ledger(house.database_url)
    _compare_deliveries(result.verdict, ledger, after)
    result.rows = summary(after)
    return result


def _compare_deliveries(verdict: Verdict, before: Ledger, after: Ledger) -> None:
    for identity, rows in after.items():
        if set(rows) != set(before.get(identity, ())):
            verdict.doubled.append(f"{identity}: delivering again made of {before.get(identity)} {rows}")


def _deliver_again(house: House, chance: Random) -> int:
    """Put copies of some segments that were shipped and deleted back into the journal, under other times."""
    gone = sorted(house.archive.iterdir())
    chosen = chance.sample(gone, min(len(gone), 10))
    for path in chosen:
        writer = path.name.partition("-")[2]
        name = f"20260101T{chance.randrange(10**12):012d}Z-{writer}"
        hidden = house.journal / f"copy-{name}"
        try:
            shutil.copyfile(path, hidden)
            hidden.rename(house.journal / name)
        except OSError:  # the disk is full
            hidden.unlink(missing_ok=True)
    return len(chosen)


async def _redeliver(house: House, chance: Random) -> int:
    """Deliver segments that were shipped again, some at a time; return how many records that were. All books agree."""
    database = Database(house.database_url)
    shipper = Shipper(house.journal, database)
    delivered = 0
    try:
        for _ in range(3):
            _deliver_again(house, chance)
            shipped = await shipper.ship()
            delivered += shipped.conflicts
        report = await audit(house.journal, database)
        assert report.ok, report.mismatches
    finally:
        shipper.close()
        await database.close()
    assert list_segments(house.journal) == []
    return delivered
