"""``python -m tests.kill --kills 200 --seed 1``: see the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from random import Random
from typing import Final

from tests.fakes.postgres import PostgresServer, programs
from tests.fakes.small_disk import MountRefused, SmallDisk, small_disk
from tests.kill.episode import Result, play, schedule
from tests.kill.failpoints import IN_SYNC
from tests.kill.weather import Flood, Outage, Weather

CYCLE: Final = 50
"""Kills after which the conditions begin anew."""
CONDITIONS: Final = {"outages": 0.4, "floods": 0.4, "alone": 0.2}
"""Two workers and a database server that goes away; two whose disk is full at times; one, that never syncs. And their
shares of the kills."""
DISK_BYTES: Final = 32 * 1024 * 1024


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weir-kill-") as folder:
        result = asyncio.run(run(Path(folder), chosen.kills, chosen.seed))
    verdict = result.verdict
    document = {
        "started": result.started,
        "completed": result.completed,
        "lost": len(verdict.lost),
        "doubled": len(verdict.doubled),
        "kills": result.kills,
        "seed": chosen.seed,
        "strikes": result.strikes,
        "redelivered": result.redelivered,
        "points": dict(sorted(result.points.items())),
        "rows": result.rows,
        "seconds": round(time.monotonic() - began),
    }
    sys.stderr.writelines(f"lost: {each}\n" for each in verdict.lost[:20])
    sys.stderr.writelines(f"doubled: {each}\n" for each in verdict.doubled[:20])
    sys.stdout.write(json.dumps(document) + "\n")
    return 1 if verdict.lost or verdict.doubled else 0


async def run(folder: Path, kills: int, seed: int) -> Result:
    """Play episodes under every kind of conditions in turns, until ``kills`` processes have been killed."""
    chance, total, number = Random(seed), Result(), 0
    points = schedule(chance, 2 * kills)
    with ExitStack() as stack:
        server: PostgresServer | None = None
        while total.kills < kills:
            conditions, share = list(CONDITIONS.items())[number % len(CONDITIONS)]
            place, url = folder / str(number), ""
            weather: Weather | None = None
            if conditions == "outages":
                if server is None:
                    server = PostgresServer(programs())
                    stack.callback(server.close)
                weather, url = Outage(server), server.create()
            elif conditions == "floods" and (disk := _disk(place / "home", stack)):
                weather = Flood(disk)
            count = min(ceil(share * min(CYCLE, kills)), kills - total.kills)
            chosen = [points.pop() for _ in range(count)]
            alone = conditions == "alone"
            if alone:
                chosen = ["random" if point in IN_SYNC else point for point in chosen]
            sys.stderr.write(f"episode {number}, {conditions}: {count} kills\n")
            total.take(
                await play(
                    place,
                    Random(chance.random()),
                    chosen,
                    workers=1 if alone else 2,
                    durability="process" if alone else "disk",
                    database_url=url,
                    weather=weather,
                    say=lambda line: sys.stderr.write(f"  {line}\n"),
                )
            )
            number += 1
    return total


def _disk(path: Path, stack: ExitStack) -> SmallDisk | None:
    try:
        return stack.enter_context(small_disk(path, DISK_BYTES))
    except MountRefused as refused:
        sys.stderr.write(f"no episode with a full disk: {refused}\n")
        return None


if __name__ == "__main__":
    raise SystemExit(main())
