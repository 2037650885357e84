"""Live load of one replica, as this process knows it.

Written by the event loop only (the relay's books, the probe, the breaker) and read by policies. Because decisions are
synchronous and the loop is the single writer, one decision sees one consistent moment without copying anything.
"""

from __future__ import annotations

from typing import Final

EWMA_WEIGHT: Final = 0.1
"""Weight of a new sample in the moving averages."""


class ReplicaLoad:
    """What is in flight on a replica, what it last reported, and whether it may be used.

    Attributes:
        in_flight: requests sent from here and not ended.
        waiting_tokens: estimated prompt tokens sent from here whose first token has not come.
        answers: requests whose first token came; grows only.
        running: requests running on the engine at the last scrape, or None when it does not say.
        waiting: requests queued on the engine at the last scrape, or None.
        kv_usage: share of the KV cache in use, 0 to 1, at the last scrape, or None.
        foreign: requests on the engine that did not come from here, as of the last scrape.
        scraped_at: monotonic seconds of the last good scrape, or None when there is none or it is too old.
        ttft: moving average of the time to first token in seconds, or None before the first sample.
        itl: moving average of the inter-token latency in seconds, or None.
        ready: whether the readiness probe passed; True until the first probes say otherwise.
        draining: an operator wants no new requests on it.
        failures: failed requests in a row.
        ejected_until: monotonic seconds until which the breaker keeps the replica out; 0 when it is in.
        ejections: ejections in a row, less those that good behaviour has made good.
        forgiven_at: monotonic seconds at which a success makes one ejection good.
        cooling_until: monotonic seconds until which the replica is spared because it said that it is full.
        cooling_asked: the backend itself asked for that wait, so it binds; if not, others are merely preferred.
    """

    __slots__ = (
        "answers",
        "cooling_asked",
        "cooling_until",
        "draining",
        "ejected_until",
        "ejections",
        "failures",
        "foreign",
        "forgiven_at",
        "in_flight",
        "itl",
        "kv_usage",
        "ready",
        "running",
        "scraped_at",
        "ttft",
        "waiting",
        "waiting_tokens",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.waiting_tokens = 0
        self.answers = 0
        self.running: int | None = None
        self.waiting: int | None = None
        self.kv_usage: float | None = None
        self.foreign = 0
        self.scraped_at: float | None = None
        self.ttft: float | None = None
        self.itl: float | None = None
        self.ready = True
        self.draining = False
        self.failures = 0
        self.ejected_until = 0.0
        self.ejections = 0
        self.forgiven_at = 0.0
        self.cooling_until = 0.0
        self.cooling_asked = False

    @property
    def depth(self) -> int:
        """Requests on the engine now: our own exactly, others' as of the last scrape."""
        return self.in_flight + self.foreign

    def sent(self, prompt_tokens: int) -> None:
        """Book a request of about ``prompt_tokens`` that goes to the engine now."""
        self.in_flight += 1
        self.waiting_tokens += prompt_tokens

    def answered(self, prompt_tokens: int, ttft: float) -> None:
        """Book the first token, ``ttft`` seconds after the request was sent."""
        self.waiting_tokens -= prompt_tokens
        self.answers += 1
        self.ttft = ttft if self.ttft is None else self.ttft + EWMA_WEIGHT * (ttft - self.ttft)

    def unanswered(self, prompt_tokens: int) -> None:
        """Book a request that ended before its first token."""
        self.waiting_tokens -= prompt_tokens

    def ended(self) -> None:
        """Book the end of a request."""
        self.in_flight -= 1

    def streamed(self, tokens: int, seconds: float) -> None:
        """Book an answer that sent ``tokens`` tokens after its first one in ``seconds``."""
        if tokens > 0:
            itl = seconds / tokens
            self.itl = itl if self.itl is None else self.itl + EWMA_WEIGHT * (itl - self.itl)

    def reported(self, running: int | None, waiting: int | None, kv_usage: float | None, now: float) -> None:
        """Book the gauges the engine reported at monotonic time ``now``."""
        self.running, self.waiting, self.kv_usage = running, waiting, kv_usage
        self.foreign = max(0, running + (waiting or 0) - self.in_flight) if running is not None else 0
        self.scraped_at = now

    def forget_gauges(self) -> None:
        """Forget what the engine reported: it is too old to say anything."""
        self.running = self.waiting = self.kv_usage = self.scraped_at = None
        self.foreign = 0

    def fade(self, factor: float) -> None:
        """Scale the moving averages of an idle replica by ``factor``, below 1.

        Without samples a bad average would stand for ever and keep the replica from ever being tried again.
        """
        if self.ttft is not None:
            self.ttft *= factor
        if self.itl is not None:
            self.itl *= factor
