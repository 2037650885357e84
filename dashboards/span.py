"""Windows of time that pages show: the last 24 hours, so many days, or days that are named. UTC throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dashboards.forms import Wrong
from gateway.console.measure import Grain
from gateway.types.day import YEARS

SPANS: Final = (("24h", "24 h"), ("7d", "7 d"), ("30d", "30 d"), ("90d", "90 d"))
DEFAULT: Final = "30d"
NAMED: Final = "named"
"""The name of a window of days that are named."""
LONGEST: Final = 400
"""Days of the longest one."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """Days or hours, both ends inclusive, counted from 1970."""

    name: str
    grain: Grain
    first: int
    last: int

    @property
    def length(self) -> int:
        """How many points there are."""
        return self.last - self.first + 1

    @property
    def before(self) -> Span:
        """The window of the same length just before."""
        return Span(self.name, self.grain, self.first - self.length, self.first - 1)

    @property
    def points(self) -> Sequence[int]:
        """Every point."""
        return range(self.first, self.last + 1)

    @property
    def hours(self) -> tuple[int, int]:
        """The first and the last hour."""
        return (self.first, self.last) if self.grain == "hour" else (self.first * 24, self.last * 24 + 23)

    def words(self, point: int) -> str:
        """Return a point as people read it."""
        if self.grain == "hour":
            return (_EPOCH + timedelta(hours=point)).strftime("%d %b %H:%M")
        return (_EPOCH + timedelta(days=point)).strftime("%d %b")

    def stamp(self, point: int) -> str:
        """Return a point as machines read it: 2027-01-31, or 2027-01-31T07:00Z."""
        if self.grain == "hour":
            return (_EPOCH + timedelta(hours=point)).strftime("%Y-%m-%dT%H:00Z")
        return (_EPOCH + timedelta(days=point)).strftime("%Y-%m-%d")


def span_of(wanted: str, now_us: int, default: str = DEFAULT) -> Span:
    """Return the window with the name ``wanted``, or the default one; it ends with the hour or day that runs."""
    name = wanted if wanted in dict(SPANS) else default
    if name == "24h":
        hour = now_us // 3_600_000_000
        return Span(name, "hour", hour - 23, hour)
    day = now_us // 86_400_000_000
    return Span(name, "day", day - int(name[:-1]) + 1, day)


def named(first: str, last: str, now_us: int) -> Span:
    """Return the days from ``first`` to ``last``, written as 2027-01-31; without one 30 days, or up to today.

    Raises:
        Wrong: naming the field, ``from`` or ``to``.
    """
    today = now_us // 86_400_000_000
    end = min(_day(last, "to"), today) if last else today
    begin = _day(first, "from") if first else end - 29
    if begin > end:
        raise Wrong("from", "a day that is not after the last one")
    if end - begin >= LONGEST:
        raise Wrong("from", f"{LONGEST} days at most")
    return Span(NAMED, "day", begin, end)


def _day(text: str, field: str) -> int:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Wrong(field, "a day such as 2027-01-31") from None
    if not YEARS[0] <= day.year <= YEARS[1]:
        raise Wrong(field, "a day of the years {} to {}".format(*YEARS))
    return (day - _EPOCH).days
