"""Windows of time that callers name by dates: UTC, both ends inclusive. Raises ``BadRequest`` that names the parameter.

Days and hours count from 1970, as in the ledger.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from gateway.leaderboard.question import Grain
from gateway.types.day import YEARS, day_named
from gateway.types.errors import BadRequest

EPOCH: Final = date(1970, 1, 1)
FLOOR: Final = date(2025, 1, 1)
"""The datasets begin here; an earlier start is taken for it."""
LONGEST_DAYS: Final = 366
LONGEST_HOURS: Final = 14 * 24
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HOUR: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2})(?::00(?::00)?Z?)?")


@dataclass(frozen=True, slots=True)
class Window:
    """Days, or hours when ``grain`` says so; both ends inclusive."""

    grain: Grain
    first: int
    last: int

    @property
    def length(self) -> int:
        """How many points there are."""
        return self.last - self.first + 1

    def text(self, point: int) -> str:
        """Return a day as ``2026-05-11`` or an hour as ``2026-05-11T07:00Z``."""
        if self.grain == "day":
            return day_text(point)
        return f"{day_text(point // 24)}T{point % 24:02d}:00Z"


def day_text(day: int) -> str:
    """Return a day as ``2026-05-11``."""
    return (EPOCH + timedelta(days=day)).isoformat()


def moment_text(microseconds: int) -> str:
    """Return a moment as ``2026-05-12T02:00:00.000Z``."""
    moment = datetime.fromtimestamp(microseconds / 1e6, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def today(now_us: int) -> int:
    """Return the UTC day of a moment."""
    return now_us // 86_400_000_000


def dataset_window(start: str | None, end: str | None, now_us: int) -> Window:
    """Return the window of a dataset: by default the 30 days that end with the last completed one."""
    last = _day(end, "end_date") if end is not None else today(now_us) - 1
    floor = (FLOOR - EPOCH).days
    if last < floor:
        raise BadRequest(f"end_date is before {FLOOR}, when the dataset begins", param="end_date")
    first = max(floor, _day(start, "start_date") if start is not None else last - 29)
    return _checked(Window("day", first, last), "start_date", "end_date")


def board_window(start: str | None, end: str | None, grain: Grain, now_us: int) -> Window:
    """Return the window of a board: by default the 30 days or 24 hours that end with the one that runs."""
    if grain == "day":
        last = _day(end, "to") if end is not None else today(now_us)
        return _checked(Window(grain, _day(start, "from") if start is not None else last - 29, last), "from", "to")
    last = _hour(end, "to", 23) if end is not None else now_us // 3_600_000_000
    return _checked(Window(grain, _hour(start, "from", 0) if start is not None else last - 23, last), "from", "to")


def record_window(start: str | None, end: str | None, now_us: int) -> Window:
    """Return the days whose records are told: by default the 366 that end with the one that runs."""
    last = _day(end, "to") if end is not None else today(now_us)
    first = _day(start, "from") if start is not None else last - LONGEST_DAYS + 1
    return _checked(Window("day", first, last), "from", "to")


def _checked(window: Window, start: str, end: str) -> Window:
    if window.first > window.last:
        raise BadRequest(f"{start} is after {end}", param=start)
    longest = LONGEST_DAYS if window.grain == "day" else LONGEST_HOURS
    if window.length > longest:
        raise BadRequest(
            f"{start} to {end} is {window.length} {window.grain}s; at most {longest} are shown", param=start
        )
    return window


def _day(text: str, param: str) -> int:
    try:
        return day_named(text)
    except ValueError:
        years = "{} to {}".format(*YEARS)
        raise BadRequest(f"{param} is no day of the years {years}; write YYYY-MM-DD, in UTC", param=param) from None


def _hour(text: str, param: str, default: int) -> int:
    if _DATE.fullmatch(text):
        return _day(text, param) * 24 + default
    found = _HOUR.fullmatch(text)
    if found is None or int(found[2]) > 23:
        raise BadRequest(f"{param} is no hour; write YYYY-MM-DDTHH, in UTC", param=param)
    return _day(found[1], param) * 24 + int(found[2])
