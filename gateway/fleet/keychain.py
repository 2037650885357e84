"""Several keys for one external API: who of them is used next, and which one is spared for a while.

Keys take turns by weight (smooth weighted round robin, so that a heavy key does not come in runs). Each has its own
quota, from the configuration and from what the API says in the headers of its answers. One that was refused (401, 402,
403, 429) rests: for as long as the API asks (``Retry-After``), else for a time that doubles with every refusal in a
row; the others go on. While all of them rest or are used up the backend counts as full. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.config.snapshot import KeySpec, Secret
from gateway.fleet.capacity import Quota
from gateway.types.failure import Cause, Failure

REFUSALS: Final = frozenset({401, 402, 403, 429})
"""Statuses that concern the key a request was made with."""
LIMITED_S: Final = 1.0
"""Seconds of rest after a first 429 without ``Retry-After``."""
UNWANTED_S: Final = 30.0
"""Seconds of rest after a first 401, 402 or 403."""
LONGEST_S: Final = 600.0
"""Seconds of the longest rest."""


class UpstreamKey:
    """One key.

    Attributes:
        name: what people call it; never the key.
        secret: the key itself.
        weight: its share of requests.
        quota: what it allows.
        resting_until: monotonic seconds until which it is spared.
        refusals: in a row.
        used: requests made with it, by how they ended: ``ok``, ``refused`` or ``failed``.
    """

    __slots__ = ("credit", "name", "quota", "refusals", "resting_until", "secret", "used", "weight")

    def __init__(self, name: str, secret: Secret | None, weight: int = 1, quota: Quota | None = None) -> None:
        self.name = name
        self.secret = secret
        self.weight = weight
        self.quota = quota or Quota()
        self.credit = 0
        self.resting_until = 0.0
        self.refusals = 0
        self.used = {"ok": 0, "refused": 0, "failed": 0}

    def ended(self, failure: Failure | None, now: float) -> bool:
        """Book how a request made with it ended; return whether the key was refused, which is nobody else's fault."""
        if failure is None:
            self.refusals = 0
            self.used["ok"] += 1
            return False
        if failure.status not in REFUSALS or failure.cause is Cause.REFUSED or not failure.retryable:
            self.used["failed"] += 1
            return False
        self.used["refused"] += 1
        base = LIMITED_S if failure.status == 429 else UNWANTED_S
        rest = failure.retry_after or base * 2 ** min(self.refusals, 10)
        self.refusals += 1
        self.resting_until = max(self.resting_until, now + min(rest, LONGEST_S))
        return True

    def refusal(self, tokens: int, now: float) -> str:
        """Return why a request of about ``tokens`` tokens cannot be made with it now, or nothing."""
        if self.resting_until > now:
            return f"key {self.name} rests for another {self.resting_until - now:.0f} s"
        reason = self.quota.refusal(tokens, now)
        return f"key {self.name}: {reason}" if reason else ""


class KeyedQuota(Quota):
    """What a backend with several keys allows: its own limits, and those of each key.

    Attributes:
        keys: in the order of the configuration.
    """

    __slots__ = ()

    def __init__(self, keys: Sequence[UpstreamKey]) -> None:
        super().__init__()
        self.keys = tuple(keys)
        self.limited = True

    def limit(self, rpm: float | None, tpm: float | None, concurrent: float | None) -> None:
        """Set the limits of the backend as a whole."""
        super().limit(rpm, tpm, concurrent)
        self.limited = True

    def heard(self, headers: Iterable[tuple[bytes, bytes]], now: float) -> None:
        """Learn nothing: it is said of one key, that of a request from when there was only one."""

    def take(self, tokens: int, now: float) -> UpstreamKey:
        """Return the key for a request of about ``tokens`` tokens; when none has room, the one that soonest will."""
        free = [key for key in self.keys if not key.refusal(tokens, now)]
        if not free:
            return min(self.keys, key=lambda key: max(key.resting_until, now + key.quota.wait(now)))
        total = 0
        best = free[0]
        for key in free:
            key.credit += key.weight
            total += key.weight
            if key.credit > best.credit:
                best = key
        best.credit -= total
        return best

    def able(self, tokens: int, now: float) -> bool:
        """Whether a request can be made with any of the keys."""
        return any(not key.refusal(tokens, now) for key in self.keys)

    def refusal(self, tokens: int, now: float) -> str:
        """Return why a request has no room now, or nothing."""
        reason = super().refusal(tokens, now)
        if reason:
            return reason
        reasons = []
        for key in self.keys:
            reason = key.refusal(tokens, now)
            if not reason:
                return ""
            reasons.append(reason)
        return "; ".join(reasons)

    def most(self, now: float) -> float:
        """Return how many requests would use all of it up if what is left lasted as long as it does from ``used`` on.

        ``used`` is that of the least used key, so what the others have left counts, and not what they have in all.
        """
        shares = [(key.quota.used(now), key.quota.most(now)) for key in self.keys if key.resting_until <= now]
        least = min((used for used, _ in shares), default=1.0)
        if least >= 1.0:
            return 1.0
        return min(super().most(now), sum(most * (1.0 - used) for used, most in shares if used < 1.0) / (1.0 - least))

    def used(self, now: float) -> float:
        """Return the share of the scarcest limit that is used, of the keys the least used one's; 1 when all rest."""
        free = [key.quota.used(now) for key in self.keys if key.resting_until <= now]
        return max(super().used(now), min(free, default=1.0))

    def wait(self, now: float) -> float:
        """Return the seconds after which something is free again."""
        soonest = min(max(key.resting_until - now, key.quota.wait(now), 0.0) for key in self.keys)
        return max(super().wait(now), soonest)

    def free_in(self, tokens: int, now: float) -> float:
        """Return the seconds until the backend and one of the keys have room; 0 when they have."""
        soonest = min(max(key.resting_until - now, key.quota.free_in(tokens, now), 0.0) for key in self.keys)
        return max(super().free_in(tokens, now), soonest)


def keyed(quota: Quota, specs: Sequence[KeySpec], workers: int) -> Quota:
    """Return the quota of a backend with the keys ``specs``; what ``quota`` knows of the backend and of keys goes on.

    Limits are shared evenly by the ``workers`` processes of this host.
    """
    if not specs and not quota.keys:
        return quota
    known = {key.secret: key for key in (*quota.former, *quota.keys)}
    keys = []
    for spec in specs:
        key = known.get(spec.secret) or UpstreamKey(spec.name, spec.secret)
        key.name, key.weight = spec.name, spec.weight
        limits = (spec.limits.rpm, spec.limits.tpm, spec.limits.concurrent)
        key.quota.limit(*(None if limit is None else max(1.0, limit / workers) for limit in limits))
        keys.append(key)
    found = KeyedQuota(keys) if keys else Quota()
    found.take_over(quota)
    found.former = tuple(key for key in known.values() if key.quota.busy and key not in keys)
    return found
