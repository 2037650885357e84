"""Limits of keys on one host: requests and tokens in any 60 seconds, and requests in flight.

Windows are exact and slide: a request counts from the nanosecond it is admitted until 60 seconds later,
never by calendar minutes. Its tokens are reserved when it is admitted and replaced by the real number when
it is settled. Time is a monotonic clock that is handed in. A refusal is a ``Grant`` that says when there
will be room; a request that is larger than the key's whole token limit is ``RateLimited`` at once, because
no waiting would help. State is lost with the process; ``adopt`` takes over requests that outlived it.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Final

from gateway.types.errors import RateLimited
from gateway.types.keys import Grant, KeyLimits

WINDOW_NS: Final = 60_000_000_000
CONCURRENCY_RETRY_S: Final = 1.0
"""Nobody knows when a running request will end; a second is a polite guess."""

_WORDS: Final = {
    "rpm": "requests per minute",
    "tpm": "tokens per minute",
    "concurrent": "requests at the same time",
}


def refusal(grant: Grant, limits: KeyLimits, now_ms: float) -> RateLimited:
    """Return the error a caller gets for a refused ``grant`` under ``limits``.

    It has OpenRouter's headers of the limit that was hit, as far as its numbers are known: nobody knows when a running
    request ends, nor how much of a limit that several hosts share is left.

    Args:
        grant: refused.
        limits: of the key.
        now_ms: wall clock, milliseconds since 1970.
    """
    limit = grant.refused or "rpm"
    value = getattr(limits, limit)
    headers = {"X-RateLimit-Limit": str(value)}
    if grant.left is not None:
        headers["X-RateLimit-Remaining"] = str(grant.left)
    if grant.exact:
        headers["X-RateLimit-Reset"] = str(math.ceil(now_ms + grant.retry_after * 1000))
    return RateLimited(
        f"the key's limit of {value} {_WORDS[limit]} is reached",
        metadata={"limit": limit, "value": value, "headers": headers},
        retry_after=grant.retry_after,
    )


class _Admission:
    """One admitted request while it counts.

    Attributes:
        at: monotonic nanoseconds of the admission.
        tokens: reserved, later real.
        counted: whether it is still in its key's window.
    """

    __slots__ = ("at", "counted", "tokens")

    def __init__(self, at: int, tokens: int) -> None:
        self.at = at
        self.tokens = tokens
        self.counted = True


class _Key:
    """The window and the running requests of one key."""

    __slots__ = ("running", "tokens", "window")

    def __init__(self) -> None:
        self.window: deque[_Admission] = deque()
        self.tokens = 0
        self.running = 0

    def expire(self, now: int) -> None:
        """Let what is 60 seconds old at ``now`` leave the window."""
        window = self.window
        oldest = now - WINDOW_NS
        while window and window[0].at <= oldest:
            gone = window.popleft()
            gone.counted = False
            self.tokens -= gone.tokens

    def admit(self, admission: _Admission) -> None:
        """Count ``admission`` from now on."""
        self.window.append(admission)
        self.tokens += admission.tokens

    def insert(self, admission: _Admission) -> None:
        """Count ``admission``, which may be older than the newest one."""
        newer: list[_Admission] = []
        while self.window and self.window[-1].at > admission.at:
            newer.append(self.window.pop())
        self.window.append(admission)
        self.window.extend(reversed(newer))
        self.tokens += admission.tokens

    def wait_for_request(self, rpm: int, now: int) -> int:
        """Return nanoseconds until one more request fits ``rpm``, 0 when it does now."""
        excess = len(self.window) - rpm
        return self.window[excess].at + WINDOW_NS - now if excess >= 0 else 0

    def wait_for_tokens(self, tokens: int, tpm: int, now: int) -> int:
        """Return nanoseconds until ``tokens`` more, which alone fit ``tpm``, do; 0 when they do now."""
        excess = self.tokens + tokens - tpm
        if excess <= 0:
            return 0
        for admission in self.window:
            excess -= admission.tokens
            if excess <= 0:
                return admission.at + WINDOW_NS - now
        return WINDOW_NS  # pragma: no cover - an empty window leaves room for what fits alone


class _Hold:
    """One running request: whose it is and what it counts."""

    __slots__ = ("admission", "key_id", "owner", "released_at")

    def __init__(self, owner: Hashable, key_id: str, admission: _Admission) -> None:
        self.owner = owner
        self.key_id = key_id
        self.admission = admission
        self.released_at = 0


class LocalLimits:
    """The limits of all keys of one host. Not safe for several threads.

    Args:
        clock: monotonic nanoseconds.
    """

    __slots__ = ("_clock", "_holds", "_keys", "_last_hold", "_released")

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        self._holds: dict[int, _Hold] = {}
        self._released: dict[int, _Hold] = {}
        # Ids never meet those of an earlier process, whose requests may still be running; 53 bits suit any
        # reader.
        self._last_hold = secrets.randbits(52)

    @property
    def running(self) -> int:
        """How many requests of limited keys are in flight."""
        return len(self._holds)

    async def admit(self, key_id: str, limits: KeyLimits, tokens: int) -> Grant:
        """Ask to run a request of this very process; see ``take``."""
        return self.take(None, key_id, limits, tokens)

    def take(self, owner: Hashable, key_id: str, limits: KeyLimits, tokens: int) -> Grant:
        """Ask to run a request of about ``tokens`` tokens under ``limits`` for ``owner``.

        A refused request counts for nothing. When several limits are reached, the one with the longest wait
        is named.

        Raises:
            RateLimited: the request alone is larger than the limit, so it can never fit (no ``retry_after``).
        """
        if limits.unlimited:
            return Grant(0)
        _must_fit(limits, tokens)
        now = self._clock()
        key = self._keys.get(key_id)
        if key is None:
            key = self._keys[key_id] = _Key()
        key.expire(now)
        refused = self._refused(key, limits, tokens, now)
        if refused is not None:
            return refused
        admission = _Admission(now, max(tokens, 0))
        key.admit(admission)
        key.running += 1
        self._last_hold += 1
        self._holds[self._last_hold] = _Hold(owner, key_id, admission)
        return Grant(self._last_hold)

    def new_hold(self) -> int:
        """Return an id for a request that counts against no limit here; it meets none of ours."""
        self._last_hold += 1
        return self._last_hold

    def cancel(self, hold: int) -> None:
        """Undo the admission of ``hold``, as if it had never been asked for. Unknown holds are ignored."""
        found = self._holds.pop(hold, None)
        if found is None:
            return
        key, admission = self._keys[found.key_id], found.admission
        key.running -= 1
        if admission.counted:
            key.window.remove(admission)
            key.tokens -= admission.tokens

    def counts(self, key_id: str) -> tuple[int, int, int]:
        """Return the requests and tokens of the last 60 seconds and the requests in flight of a key."""
        key = self._keys.get(key_id)
        if key is None:
            return 0, 0, 0
        key.expire(self._clock())
        return len(key.window), key.tokens, key.running

    @property
    def counted(self) -> Iterable[str]:
        """Keys with anything in their window or in flight, as of the last sweep."""
        return tuple(self._keys)

    def settle(self, hold: int, tokens: int) -> str:
        """End the request of ``hold``, which took ``tokens`` tokens; return its key.

        Unknown and ended holds are ignored, and have no key (``""``).
        """
        found = self._holds.pop(hold, None)
        if found is None:
            return ""
        key = self._keys[found.key_id]
        key.running -= 1
        admission = found.admission
        if admission.counted:
            real = max(tokens, 0)
            key.tokens += real - admission.tokens
            admission.tokens = real
        return found.key_id

    def owned(self, hold: int, owner: Hashable) -> bool:
        """Return whether ``hold`` is running and belongs to ``owner``."""
        found = self._holds.get(hold)
        return found is not None and found.owner == owner

    def release_owner(self, owner: Hashable) -> int:
        """End all requests of an ``owner`` that is gone, return how many; reserved tokens stay counted."""
        now = self._clock()
        gone = [hold for hold, found in self._holds.items() if found.owner == owner]
        for hold in gone:
            found = self._holds.pop(hold)
            self._keys[found.key_id].running -= 1
            found.released_at = now
            self._released[hold] = found
        return len(gone)

    def adopt(self, owner: Hashable, holds: Iterable[tuple[int, str, int, int]]) -> None:
        """Take over requests that run at ``owner`` but were granted before it lost touch.

        Args:
            owner: who runs them now.
            holds: (hold, key id, reserved tokens, age in nanoseconds) of each.
        """
        now = self._clock()
        for hold, key_id, tokens, age in holds:
            running = self._holds.get(hold)
            if running is not None:
                running.owner = owner
                continue
            key = self._keys.setdefault(key_id, _Key())
            key.expire(now)
            known = self._released.pop(hold, None)
            if known is None:
                known = _Hold(owner, key_id, _Admission(now - max(age, 0), max(tokens, 0)))
                if age < WINDOW_NS:
                    key.insert(known.admission)
                else:
                    known.admission.counted = False
            known.owner = owner
            key.running += 1
            self._holds[hold] = known

    def sweep(self) -> None:
        """Forget keys that were idle for a window, and released requests nobody came back for."""
        now = self._clock()
        oldest = now - WINDOW_NS
        self._released = {hold: found for hold, found in self._released.items() if found.released_at > oldest}
        for key_id, key in list(self._keys.items()):
            key.expire(now)
            if not key.window and not key.running:
                del self._keys[key_id]

    def _refused(self, key: _Key, limits: KeyLimits, tokens: int, now: int) -> Grant | None:
        longest, name = 0.0, ""
        if limits.concurrent is not None and key.running >= limits.concurrent:
            longest, name = CONCURRENCY_RETRY_S, "concurrent"
        if limits.rpm is not None:
            wait = key.wait_for_request(limits.rpm, now) / 1e9
            if wait > longest:
                longest, name = wait, "rpm"
        if limits.tpm is not None:
            wait = key.wait_for_tokens(tokens, limits.tpm, now) / 1e9
            if wait > longest:
                longest, name = wait, "tpm"
        if not name:
            return None
        left = max(0, limits.tpm - key.tokens) if name == "tpm" and limits.tpm is not None else 0
        return Grant(0, name, longest, exact=name != "concurrent", left=left)


def _must_fit(limits: KeyLimits, tokens: int) -> None:
    if limits.tpm is not None and tokens > limits.tpm:
        raise RateLimited(
            f"the request needs about {tokens} tokens and can never fit the key's limit of "
            f"{limits.tpm} tokens per minute: shorten the prompt or ask for fewer tokens",
            metadata={"limit": "tpm", "value": limits.tpm, "requested": tokens},
        )
    for name in ("rpm", "concurrent"):
        limit = getattr(limits, name)
        if limit is not None and limit < 1:
            raise RateLimited(f"the key may run no request: its limit of {_WORDS[name]} is {limit}")
