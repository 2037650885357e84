"""Numbers as people read them: short, with units, exact where it matters. Nothing here raises."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_STEPS: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))
_NANO: Final = 10**9
NONE: Final = "–"


def short(value: float | None) -> str:
    """Return a count in three digits or so: 999, 1.23K, 45.6M, 1.4T."""
    if value is None:
        return NONE
    size = abs(value)
    for step, letter in _STEPS:
        if size >= step * 0.9995:
            return f"{_digits(value / step)}{letter}"
    return f"{value:.0f}" if size >= 10 or value == int(value) else f"{value:.1f}"


def _digits(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def whole(value: int | None) -> str:
    """Return a count with every digit: 1,234,567."""
    return NONE if value is None else f"{value:,}"


def brief(value: int | None) -> str:
    """Return a count with every digit as long as that is short enough for a column, else in three digits or so."""
    return short(value) if value is not None and abs(value) >= 10_000_000 else whole(value)


def usd(nano: int | None) -> str:
    """Return an amount in USD for a glance: cents from a dollar on, more digits below."""
    if nano is None:
        return NONE
    value, sign = abs(nano) / _NANO, "−" if nano < 0 else ""
    if value >= 1e6:
        return f"{sign}${_digits(value / 1e6)}M"
    if value >= 1e5:
        return f"{sign}${value / 1e3:.1f}K"
    if value >= 1 or value == 0:
        return f"{sign}${value:,.2f}"
    if value >= 0.01:
        return f"{sign}${value:.3f}"
    if value < 5e-7:
        return f"{sign}<$0.000001"
    return f"{sign}${value:.2g}" if value >= 1e-4 else f"{sign}${value:.6f}"


def exact_usd(nano: int | None) -> str:
    """Return an amount in USD with every digit it has, two at least."""
    if nano is None:
        return NONE
    sign, size = ("−" if nano < 0 else ""), abs(nano)
    cents = f"{size % _NANO:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${size // _NANO:,}.{cents}"


def percent(share: float | None) -> str:
    """Return a share as percent: <0.1 %, 0.4 %, 12 %."""
    if share is None:
        return NONE
    value = share * 100
    if 0 < value < 0.05:
        return "<0.1 %"
    return f"{value:.0f} %" if abs(value) >= 9.95 or value == 0 else f"{value:.1f} %"


def change(share: float | None) -> str:
    """Return a growth with its sign: +12 %, −3.4 %."""
    if share is None:
        return NONE
    if abs(share) < 0.0005:
        return "±0 %"
    return ("+" if share > 0 else "−" if share < 0 else "±") + percent(abs(share))


def seconds(value: float | None) -> str:
    """Return a duration: 84 ms, 1.24 s, 12 min, 3.2 h, 5 d."""
    if value is None:
        return NONE
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 99.5:
        return f"{_digits(value)} s"
    if value < 5_400:
        return f"{value / 60:.0f} min"
    return f"{_digits(value / 3_600)} h" if value < 172_800 else f"{value / 86_400:.0f} d"


def moment(microseconds: int | None) -> str:
    """Return a time since 1970 in UTC: 2026-05-11 07:31."""
    if microseconds is None:
        return NONE
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")


def second(microseconds: int) -> str:
    """Return a time since 1970 in UTC to the second: 2026-05-11 07:31:09."""
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def stamp(microseconds: int) -> str:
    """Return a time since 1970 for machines: ISO 8601 in UTC."""
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def ago(microseconds: int | None, now_us: int) -> str:
    """Return how long ago a time was: just now, 5 min ago, 3 d ago."""
    if microseconds is None:
        return "never"
    passed = (now_us - microseconds) / 1e6
    if passed < 0:
        return f"in {_about(-passed)}"
    return "just now" if passed < 60 else f"{_about(passed)} ago"


def _about(passed: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed / size:.0f} {name}"
    return f"{passed:.0f} s"


def growth(now: float, before: float) -> float | None:
    """Return how much more ``now`` is than ``before``, 0.1 for ten percent; None when there was nothing before."""
    return None if not before else (now - before) / before
