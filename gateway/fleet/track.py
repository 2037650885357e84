"""What callers' requests have met at one endpoint: how often it answered, how quickly, how well it called tools.

Kept per endpoint, not per replica, because callers choose between endpoints; it outlives a reload. Written by the event
loop only. Failures count as the API imitated here counts them: what a caller did wrong and what was merely full do not
speak against an endpoint. Nothing here raises.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.types.failure import Failure
from gateway.types.histogram import Histogram

SLOT: Final = 10.0
"""Seconds in one slot of the outcomes."""
SLOTS: Final = 180
"""Slots kept: half an hour."""
MINUTES: Final = 5
"""Minutes over which the speeds that routing asks for are measured."""
KEPT_MINUTES: Final = 30
"""Minutes of speeds that are kept for whoever looks."""
TOOL_HOURS: Final = 2
"""Hours over which tool calls are judged."""
FEW_TOOL_CALLS: Final = 200
"""Answers with tool calls below which nothing is said of their quality."""
_BLAMELESS: Final = frozenset({400, 403, 413, 429})
"""Statuses that say nothing of an endpoint: the request or its volume was at fault."""


class Speeds(msgspec.Struct, frozen=True, gc=False):
    """Percentiles of the last minutes by their share; None while there is no sample.

    Attributes:
        latency: seconds to the first token that this share of requests stay below.
        throughput: tokens per second that this share of requests do better than.
    """

    latency: dict[str, float] | None
    throughput: dict[str, float] | None


PERCENTILES: Final = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99}
_UNKNOWN: Final = Speeds(None, None)


class _Ring:
    """Good and bad outcomes in slots of ``width`` seconds, the last ``count`` of them, and their sums.

    Attributes:
        good, bad: sums of all slots as of the last ``advance``.
    """

    __slots__ = ("_bad", "_good", "_last", "_width", "bad", "good")

    def __init__(self, width: float, count: int) -> None:
        self._width = width
        self._good = [0] * count
        self._bad = [0] * count
        self._last = 0
        self.good = 0
        self.bad = 0

    def advance(self, now: float) -> int:
        """Forget the slots that are too old at ``now`` and return the slot that is going on."""
        stamp, count = int(now / self._width), len(self._good)
        if stamp > self._last:
            for old in range(max(self._last + 1, stamp - count + 1), stamp + 1):
                slot = old % count
                self.good -= self._good[slot]
                self.bad -= self._bad[slot]
                self._good[slot] = self._bad[slot] = 0
            self._last = stamp
        return self._last % count

    def add(self, now: float, *, good: bool) -> None:
        """Count one outcome."""
        slot = self.advance(now)
        if good:
            self._good[slot] += 1
            self.good += 1
        else:
            self._bad[slot] += 1
            self.bad += 1

    def newest(self, now: float, seconds: float) -> tuple[int, int]:
        """Return the outcomes of the last ``seconds``, the slot that is going on included."""
        last, count = self.advance(now), len(self._good)
        slots = [(last - back) % count for back in range(min(count, max(1, int(seconds / self._width))))]
        return sum(self._good[slot] for slot in slots), sum(self._bad[slot] for slot in slots)


class Track:
    """The track record of one endpoint. Times are monotonic seconds, the clock of ``RouteRequest.now``.

    Attributes:
        speeds_at: when ``speeds`` were last worked out.
    """

    __slots__ = ("_failed_at", "_latency", "_outcomes", "_speeds", "_throughput", "_tools", "speeds_at")

    def __init__(self) -> None:
        self._outcomes = _Ring(SLOT, SLOTS)
        self._tools = _Ring(600.0, TOOL_HOURS * 6)
        self._latency: dict[int, Histogram] = {}
        self._throughput: dict[int, Histogram] = {}
        self._speeds = _UNKNOWN
        self._failed_at = -1e9
        self.speeds_at = -1e9

    def ended(self, failure: Failure | None, now: float) -> None:
        """Book how one attempt ended."""
        if failure is None:
            self._outcomes.add(now, good=True)
        elif failure.unhealthy and failure.status not in _BLAMELESS:
            self._outcomes.add(now, good=False)
            self._failed_at = now

    def answered(self, ttft: float, seconds: float, tokens: int, now: float) -> None:
        """Book a whole answer.

        Args:
            ttft: seconds from sending to its first token.
            seconds: seconds from sending to its end.
            tokens: its completion tokens; fewer than two say nothing of its throughput.
            now: when it ended.
        """
        minute = int(now / 60)
        if ttft > 0:
            _histogram(self._latency, minute).add(ttft)
        if tokens > 1 and seconds > 0:
            _histogram(self._throughput, minute).add(tokens / seconds)

    def called(self, sound: bool | None, now: float) -> None:
        """Book an answer to a request with tools: whether every call can be run, or None when none was made."""
        if sound is not None:
            self._tools.add(now, good=sound)

    def uptime(self, now: float) -> tuple[int, int]:
        """Return how many attempts of the last half hour ended well and how many did not."""
        self._outcomes.advance(now)
        return self._outcomes.good, self._outcomes.bad

    def recent(self, now: float, seconds: float) -> tuple[int, int]:
        """Return the same for the last ``seconds``."""
        return self._outcomes.newest(now, seconds)

    def outage(self, now: float, seconds: float) -> tuple[int, int]:
        """Return the same for a short time; nothing for an endpoint that has not failed in it."""
        return self._outcomes.newest(now, seconds) if now - self._failed_at <= seconds else (0, 0)

    def tool_calls(self, now: float) -> tuple[int, int]:
        """Return how many answers of the last two hours had sound tool calls and how many had others."""
        self._tools.advance(now)
        return self._tools.good, self._tools.bad

    def tool_success(self, now: float) -> float | None:
        """Return the share of tool-calling answers that were sound, or None while there are too few to tell."""
        good, bad = self.tool_calls(now)
        return good / (good + bad) if good + bad >= FEW_TOOL_CALLS else None

    def speeds(self, now: float) -> Speeds:
        """Return the percentiles of the last ``MINUTES``; worked out anew at most once a second."""
        if not 0 <= now - self.speeds_at < 1.0:
            self._speeds = self.speeds_over(now, MINUTES)
            self.speeds_at = now
        return self._speeds

    def speeds_over(self, now: float, minutes: int) -> Speeds:
        """Return the percentiles of the last ``minutes``, at most ``KEPT_MINUTES``."""
        oldest = int(now / 60) - minutes + 1
        return Speeds(
            _percentiles(self._latency, oldest, rising=True),
            _percentiles(self._throughput, oldest, rising=False),
        )


def _histogram(minutes: dict[int, Histogram], minute: int) -> Histogram:
    found = minutes.get(minute)
    if found is None:
        for old in [each for each in minutes if each <= minute - KEPT_MINUTES]:
            del minutes[old]
        found = minutes[minute] = Histogram()
    return found


def _percentiles(minutes: dict[int, Histogram], oldest: int, *, rising: bool) -> dict[str, float] | None:
    """Return the percentiles of all minutes from ``oldest`` on; ``rising`` when more of the measure is worse."""
    merged = Histogram()
    for minute, histogram in minutes.items():
        if minute >= oldest:
            merged.merge(histogram)
    if not merged.counts:
        return None
    found = {name: merged.quantile(share if rising else 1 - share) for name, share in PERCENTILES.items()}
    return {name: value for name, value in found.items() if value is not None}
