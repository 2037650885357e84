"""Billing periods: calendar months in UTC, written ``2026-10``. Days count from 1970."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from gateway.types.day import YEARS, day_named
from gateway.types.errors import BadRequest

_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_FORM: Final = re.compile(r"([0-9]{4})-([0-9]{2})")


def period_of(day: int) -> str:
    """Return the period that ``day`` is in."""
    return dt.date.fromordinal(day + _EPOCH).isoformat()[:7]


def checked_period(text: str) -> str:
    """Return ``text`` when it names a period.

    Raises:
        BadRequest: it does not.
    """
    match = _FORM.fullmatch(text)
    if match is None or not (YEARS[0] <= int(match[1]) <= YEARS[1] and 1 <= int(match[2]) <= 12):
        raise BadRequest("a period is a month such as 2026-10", param="period")
    return text


def days_of(period: str) -> tuple[int, int]:
    """Return the first and the last day of a period."""
    year, month = int(period[:4]), int(period[5:])
    first = dt.date(year, month, 1).toordinal() - _EPOCH
    after = dt.date(year + month // 12, month % 12 + 1, 1).toordinal() - _EPOCH
    return first, after - 1


def following(period: str) -> str:
    """Return the period after this one."""
    return period_of(days_of(period)[1] + 1)


def day_text(day: int) -> str:
    """Return a day as ISO 8601: ``2026-10-05``."""
    return dt.date.fromordinal(day + _EPOCH).isoformat()


def day_in(text: str, param: str) -> int:
    """Return the day that ``text``, such as ``2026-10-05``, names.

    Raises:
        BadRequest: it names none; the error names ``param``.
    """
    try:
        return day_named(text)
    except ValueError:
        years = "{} to {}".format(*YEARS)
        raise BadRequest(f"{param} is a day of the years {years}, such as 2026-10-05", param=param) from None


def moment_text(day: int) -> str:
    """Return the beginning of a day as FOCUS writes moments."""
    return f"{day_text(day)}T00:00:00Z"


def iso(microseconds: int) -> str:
    """Return a moment, microseconds since 1970, as ISO 8601 in UTC, to the second."""
    moment = dt.datetime.fromtimestamp(microseconds // 1_000_000, tz=dt.UTC)
    return moment.isoformat().replace("+00:00", "Z")
