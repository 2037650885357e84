"""What a gateway books of a try: the one place of the lab that speaks to the fleet's books, as the gateway does.

Nothing here raises.
"""

from __future__ import annotations

from gateway.fleet.booking import Booking, Stream
from gateway.fleet.expectation import Expectations
from gateway.fleet.load import ReplicaLoad
from gateway.fleet.snapshot import Candidate
from gateway.lab.job import Job
from gateway.lab.servers import Page
from gateway.lab.setting import MODEL


class Books:
    """The books of one gateway.

    Args:
        kv_tokens: what the engines say of the size of their KV caches.
        expectations: how long answers usually are.
    """

    def __init__(self, kv_tokens: int, expectations: Expectations) -> None:
        self._kv_tokens = kv_tokens
        self._expectations = expectations

    def expected_tokens(self, team: str) -> int:
        """Return the answer length to expect of ``team``."""
        return self._expectations.tokens(MODEL, team, None)

    def sent(self, job: Job, candidate: Candidate, now: float) -> None:
        """Book a try that is sent now."""
        request = job.request
        assert request is not None
        job.booking = Booking(candidate.replica.load, request.work(), now)
        if job.attempts == 1:
            job.predicted_ttft = job.booking.predicted_ttft

    def answered(self, job: Job, now: float, stream: Stream | None) -> None:
        """Book the first token of a try; ``stream`` tells of the others, where they can be seen."""
        if job.booking is not None:
            job.booking.answered(now, stream)

    def ended(self, job: Job, now: float) -> None:
        """Book the end of a try that went well, with what the engine's usage says."""
        if job.booking is not None:
            if job.sequence is not None:
                job.booking.cached_in_truth(job.sequence.cached_tokens)
            job.booking.ended(now, job.arrival.answer_tokens - job.answered)
        self._expectations.answered(MODEL, job.arrival.team, job.arrival.answer_tokens)

    def lost(self, job: Job, now: float) -> None:
        """Book the end of a try that failed."""
        if job.booking is not None:
            job.booking.ended(now)

    def reported(self, load: ReplicaLoad, page: Page, now: float) -> None:
        """Book a metrics page."""
        load.reported(
            page.running, page.waiting, page.kv_usage, now, kv_tokens=self._kv_tokens, preemptions=page.preemptions
        )
