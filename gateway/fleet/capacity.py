"""What a replica can take: how many requests side by side, and what an external API allows.

Both are learned where nobody says them: by additive increase and multiplicative decrease on refusals and preemptions
(as TCP finds the capacity of a line), and from what an API says in the headers of its answers. Nothing here raises.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.fleet.keychain import UpstreamKey

DECREASE: Final = 0.8
"""Share of what was in flight that counts as safe after a refusal or a preemption."""
STEP_SECONDS: Final = 30.0
"""Clean seconds for which one more request is tried."""
SETTLED: Final = 2.0
"""Seconds after a decrease during which further refusals are taken as its echo."""
_DURATION: Final = re.compile(rb"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNITS: Final = {b"ms": 0.001, b"s": 1.0, b"m": 60.0, b"h": 3_600.0}
WINDOW: Final = 60.0
"""Seconds of the window of requests and tokens a minute."""


class Ceiling:
    """How many requests a replica runs side by side.

    Args:
        most: what the owner or the engine kind says, or 0 when there is no limit.

    Attributes:
        learned: what refusals and preemptions taught, as of the last of them, or 0.
        lately: the ceiling when it was last asked for or changed; infinite when there is none.
    """

    __slots__ = ("_at", "_most", "lately", "learned")

    def __init__(self, most: int = 256) -> None:
        self.learned = 0.0
        self._at = 0.0
        self.limit(most)

    def at(self, now: float) -> float:
        """Return the ceiling at monotonic time ``now``, or 0 when there is none."""
        if not self.learned:
            return self._most
        grown = self.learned + (now - self._at) / STEP_SECONDS
        self.lately = grown if not self._most or grown < self._most else self._most
        return self.lately

    def refused(self, in_flight: int, now: float) -> None:
        """Learn that ``in_flight`` requests were too many."""
        if self.learned and now - self._at < SETTLED:
            return
        ceiling = self.at(now)
        self.lately = self.learned = max(1.0, DECREASE * (min(ceiling, in_flight) if ceiling else in_flight))
        self._at = now

    def limit(self, most: int) -> None:
        """Set what the owner says; what was learned below it stays."""
        self._most = most
        self.lately = self.learned or most or inf


_ALSO: Final = {
    b"anthropic-ratelimit-requests-remaining": b"x-ratelimit-remaining-requests",
    b"anthropic-ratelimit-requests-reset": b"x-ratelimit-reset-requests",
    b"anthropic-ratelimit-tokens-remaining": b"x-ratelimit-remaining-tokens",
    b"anthropic-ratelimit-tokens-reset": b"x-ratelimit-reset-tokens",
}
_CLOCK: Final = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]{8,15}(Z|[+-]\d\d:\d\d)")


def _duration(text: bytes) -> float:
    """Return the seconds in ``6m0s``, ``120ms`` or ``17``, at most a minute; 1 for what says nothing."""
    if text.isdigit():
        return min(WINDOW, float(text[:6]))
    if _CLOCK.fullmatch(text):
        with suppress(ValueError):
            return min(WINDOW, max(1.0, datetime.fromisoformat(text.decode("ascii")).timestamp() - time.time()))
    seconds = sum(float(number[:6]) * _UNITS[unit] for number, unit in _DURATION.findall(text[:32]))
    return min(WINDOW, seconds) or 1.0


class Quota:
    """What an external API allows this process: requests and tokens a minute, and requests at once.

    None is no limit. What is configured for a host is shared evenly by its workers, so each counts for itself; what the
    API says in its headers counts for everybody who uses the key, and so needs no sharing.

    Args:
        rpm: requests in any 60 seconds.
        tpm: tokens in any 60 seconds.
        concurrent: requests in flight.

    Attributes:
        limited: whether there is any limit, or lately was.
        keys: the keys between which requests are shared out, when there are several.
        former: keys that were taken away while requests ran on them, in case that they come back.
    """

    __slots__ = ("_concurrent", "_in_flight", "_said", "_sent", "_tokens", "former", "keys", "limited", "rpm", "tpm")

    def __init__(self, rpm: float | None = None, tpm: float | None = None, concurrent: float | None = None) -> None:
        self._in_flight = 0
        self._sent: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._said: dict[str, tuple[float, float]] = {}
        self.keys: tuple[UpstreamKey, ...] = ()
        self.former: tuple[UpstreamKey, ...] = ()
        self.limit(rpm, tpm, concurrent)

    def limit(self, rpm: float | None, tpm: float | None, concurrent: float | None) -> None:
        """Set the limits; what was sent before counts on, as far as there were limits then."""
        # A worker's part may be a fraction, but nobody sends half a request: what is left over is not room.
        self.rpm = None if rpm is None else float(int(rpm))
        self._concurrent = None if concurrent is None else float(int(concurrent))
        self.tpm = tpm
        self.limited = rpm is not None or tpm is not None or concurrent is not None or bool(self._said)

    def take_over(self, other: Quota) -> None:
        """Go on with the limits and the counts of ``other``, from which nothing is asked any more.

        What runs ends here, so it has to have begun here. What the API said stays behind: it is true of one key.
        """
        self._in_flight, self._sent, self._tokens = other._in_flight, other._sent, other._tokens
        self.limit(other.rpm, other.tpm, other._concurrent)

    def succeeded(self) -> Quota:
        """Return what goes on in its place when the key is another one; with several it is each key that was told."""
        if self.keys:
            return self
        found = Quota()
        found.former = self.former
        found.take_over(self)
        return found

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._in_flight > 0

    def sent(self, tokens: int, now: float) -> None:
        """Count a request of about ``tokens`` tokens, prompt and answer."""
        self._in_flight += 1
        if not self.limited:
            return
        self._sent.append((now, tokens))
        self._tokens += tokens
        self._expire(now)
        said = self._said
        for what, (left, until) in list(said.items()):
            said[what] = (left - (1 if what == "requests" else tokens), until)

    def ended(self) -> None:
        """Count the end of a request."""
        self._in_flight -= 1

    def said(self, what: str, left: float, until: float) -> None:
        """Learn that the API allows ``left`` more ``what`` (``requests`` or ``tokens``) until monotonic ``until``."""
        self._said[what] = (left, until)
        self.limited = True

    def heard(self, headers: Iterable[tuple[bytes, bytes]], now: float) -> None:
        """Learn from the headers of an answer what is left (``x-ratelimit-remaining-requests`` and ``-tokens``).

        Anthropic has names of its own, and says when a limit is full again by the clock.
        """
        left: dict[bytes, float] = {}
        until: dict[bytes, float] = {}
        for name, value in headers:
            name = _ALSO.get(name, name)  # noqa: PLW2901 - the same header under another name
            if not name.startswith(b"x-ratelimit-re"):
                continue
            _, _, what = name.rpartition(b"-")
            if what not in {b"requests", b"tokens"}:
                continue
            if name.startswith(b"x-ratelimit-remaining-") and value.isdigit() and len(value) < 16:
                left[what] = float(value)
            elif name.startswith(b"x-ratelimit-reset-"):
                until[what] = now + _duration(value)
        for what, amount in left.items():
            self.said(what.decode("ascii"), amount, until.get(what, now + 1.0))

    def most(self, now: float) -> float:  # noqa: ARG002 - see KeyedQuota
        """Return how many requests use all of it up, at once or in a minute; infinite where those are not limited."""
        return min(inf if self.rpm is None else self.rpm, inf if self._concurrent is None else self._concurrent)

    def used(self, now: float) -> float:
        """Return the share of the scarcest limit that is used, 1 or more when nothing is left."""
        if not self.limited:
            return 0.0
        self._expire(now)
        used = 0.0
        if self._concurrent is not None:
            used = self._in_flight / self._concurrent
        if self.rpm is not None:
            used = max(used, len(self._sent) / self.rpm)
        if self.tpm is not None:
            used = max(used, self._tokens / self.tpm)
        if self._said and min(left for left, _ in self._said.values()) < 1.0:
            used = max(used, 1.0)
        return used

    def refusal(self, tokens: int, now: float) -> str:
        """Return why a request of about ``tokens`` tokens has no room now, or nothing."""
        if not self.limited:
            return ""
        self._expire(now)
        if self._concurrent is not None and self._in_flight + 1 > self._concurrent:
            return f"{self._in_flight} requests in flight of {self._concurrent:g}"
        if self.rpm is not None and len(self._sent) + 1 > self.rpm:
            return f"{len(self._sent)} requests in the last minute of {self.rpm:g}"
        if self.tpm is not None and self._sent and self._tokens + tokens > self.tpm:
            return f"{self._tokens} tokens in the last minute of {self.tpm:g}"
        for what, (left, until) in self._said.items():
            need = 1 if what == "requests" else tokens
            if left < need and until > now:
                return f"it said that {max(left, 0):g} {what} are left for {until - now:.0f} s"
        return ""

    def take(self, tokens: int, now: float) -> UpstreamKey | None:  # noqa: ARG002 - see KeyedQuota
        """Return the key that a request of about ``tokens`` tokens is to be made with, when there are several."""
        return None

    def able(self, tokens: int, now: float) -> bool:  # noqa: ARG002 - see KeyedQuota
        """Whether a request can be made with one of several keys."""
        return False

    def wait(self, now: float) -> float:
        """Return the seconds after which something of the window is free again; 0 when nothing is counted."""
        return max(0.0, self._sent[0][0] + WINDOW - now) if self._sent else 0.0

    def free_in(self, tokens: int, now: float) -> float:
        """Return the seconds until a minute has room for a request of about ``tokens`` tokens; 0 when it has."""
        if not self.limited:
            return 0.0
        self._expire(now)
        free_at = now
        requests = 0.0 if self.rpm is None else len(self._sent) + 1 - self.rpm
        excess = 0.0 if self.tpm is None else self._tokens + tokens - self.tpm
        for at, took in self._sent:
            if requests <= 0.0 and excess <= 0.0:
                break
            free_at = at + WINDOW
            requests, excess = requests - 1.0, excess - took
        for what, (left, until) in self._said.items():
            if left < (1 if what == "requests" else tokens):
                free_at = max(free_at, until)
        return free_at - now

    def _expire(self, now: float) -> None:
        sent = self._sent
        while sent and sent[0][0] <= now - WINDOW:
            self._tokens -= sent.popleft()[1]
        if self._said:
            self._said = {what: said for what, said in self._said.items() if said[1] > now}
