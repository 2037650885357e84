"""What the pages that are opened first would wait for, read in small pieces once somebody comes to the console.

The office of the console opens with the first page of the console, which is the one where people sign in. While they
do, this reads what is settled of the usual windows, so that ``Kept`` has it. A question that pages do not ask any more
costs that once; one that is missing here costs the first visitor what it always did. Raises ``Unavailable``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from gateway.console.measure import Grain, Pick, UsageQuestion
from gateway.console.usage import Usage

BEGIN_S: Final = 0.2
PAUSE_S: Final = 0.02
OVERVIEW: Final = 8
"""Names that the overview tells apart."""
ACTIVITY: Final = 12
"""Names that the activity page tells apart."""


async def read_ahead(usage: Usage) -> None:
    """Ask it all, with a pause after each question."""
    hour = int(time.time()) // 3_600
    for question in questions(hour):
        await usage.sums(question)
        await asyncio.sleep(PAUSE_S)
    await usage.speed(hour - 23, hour, Pick())


def questions(hour: int) -> Iterator[UsageQuestion]:
    """Yield what overview, activity and keys ask of everybody's usage, for windows that end with ``hour``."""
    day = hour // 24
    windows: tuple[tuple[Grain, int, int], ...] = (("day", day, 30), ("hour", hour, 24), ("day", day, 90))
    for grain, last, length in windows:
        first = last - length + 1
        yield UsageQuestion(grain, first, last, "model", most=OVERVIEW)
        yield UsageQuestion(grain, first - length, first - 1, series=False)
        for group in ("team", "model"):
            yield UsageQuestion(grain, first, last, group, series=False)
    yield UsageQuestion("day", day - 6, day, "model", most=ACTIVITY)
    month = day - time.gmtime(hour * 3_600).tm_mday + 1
    for first in (month, 0):
        yield UsageQuestion("day", first, day, "key_id", series=False)
    yield UsageQuestion("day", day - 89, day, "key_id", most=ACTIVITY)
