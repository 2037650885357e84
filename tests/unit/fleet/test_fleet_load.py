"""The live load of a replica."""

from __future__ import annotations

import pytest

from gateway.fleet.account import EWMA_WEIGHT
from gateway.fleet.booking import Booking, Work
from gateway.fleet.load import ReplicaLoad


class Answer:
    """An answer under way."""

    def __init__(self, now: float) -> None:
        self.chunks, self.last_at = 1, now

    def write(self, tokens: int, seconds: float) -> None:
        """Let so many tokens come in so many seconds."""
        self.chunks += tokens
        self.last_at += seconds


def test_books_return_to_zero() -> None:
    """Every way a request can go leaves nothing in the books."""
    load = ReplicaLoad()
    load.sent(100)
    load.sent(50)
    assert (load.in_flight, load.waiting_tokens) == (2, 150)
    load.answered(100, 0.2)
    load.ended()
    load.unanswered(50)
    load.ended()
    assert (load.in_flight, load.waiting_tokens, load.answers) == (0, 0, 1)


def test_averages_start_with_the_first_sample_and_then_move_slowly() -> None:
    """The first sample counts whole, later ones with their weight."""
    load = ReplicaLoad()
    load.sent(0)
    load.answered(0, 1.0)
    load.streamed(10, 1.0)
    assert (load.ttft, load.itl) == (1.0, 0.1)
    load.answered(0, 2.0)
    load.streamed(10, 2.0)
    assert load.ttft == pytest.approx(1.0 + EWMA_WEIGHT)
    assert load.itl == pytest.approx(0.1 + EWMA_WEIGHT * 0.1)


def test_an_answer_of_one_token_says_nothing_about_the_time_between_tokens() -> None:
    """No interval, no sample."""
    load = ReplicaLoad()
    load.streamed(0, 5.0)
    assert load.itl is None


def test_other_peoples_requests_are_what_the_engine_reports_beyond_ours() -> None:
    """Requests on the engine that we did not send are counted; ours are not counted twice."""
    load = ReplicaLoad()
    for _ in range(3):
        load.sent(0)
    load.reported(running=7, waiting=2, kv_usage=0.5, now=1.0)
    assert (load.foreign, load.depth) == (6, 9)
    load.sent(0)
    assert (load.foreign, load.depth) == (6, 10)


def test_an_engine_that_reports_fewer_than_we_sent_has_no_others() -> None:
    """A report from before our requests arrived never makes the load negative."""
    load = ReplicaLoad()
    for _ in range(5):
        load.sent(0)
    load.reported(running=1, waiting=None, kv_usage=None, now=1.0)
    assert (load.foreign, load.depth) == (0, 5)


def test_forgotten_gauges_leave_our_own_books() -> None:
    """Without gauges only our own requests count."""
    load = ReplicaLoad()
    load.sent(0)
    load.reported(running=50, waiting=50, kv_usage=1.0, now=1.0)
    load.forget_gauges()
    assert (load.depth, load.running, load.waiting, load.kv_usage, load.scraped_at) == (1, None, None, None, None)


def test_averages_of_an_idle_replica_fade() -> None:
    """A bad average does not stand for ever; without one there is nothing to fade."""
    load = ReplicaLoad()
    load.fade(0.5)
    assert (load.ttft, load.itl) == (None, None)
    load.answered(0, 8.0)
    load.streamed(1, 4.0)
    load.fade(0.5)
    assert (load.ttft, load.itl) == (4.0, 2.0)
    assert load.measured_ttft == 8.0
    for _ in range(5_000):  # two days
        load.fade(0.5)
    assert load.measured_ttft == pytest.approx(8.0)
    load.answered(0, 2.0)
    assert 2.0 < load.measured_ttft < 2.1  # what was measured long ago counts little by now


def test_a_replica_that_has_just_begun_is_not_taken_for_an_idle_one() -> None:
    """After ten seconds with four requests a second it is as busy as they keep it, and so after an idle night."""
    load = ReplicaLoad()
    for start in (0.0, 50_000.0):
        for number in range(40):
            now = start + 0.25 * number
            booking = Booking(load, Work(1_593, 1), now)
            booking.answered(now + 0.1)
            booking.ended(now + 0.2)
        busy, _, arrivals = load.usual(start + 10.0)
        assert busy == pytest.approx(4.0 * booking.reading_s, rel=0.15)
        assert arrivals == pytest.approx(4.0, rel=0.15)


def test_an_answer_that_is_slow_is_known_before_it_ends() -> None:
    """A look at answers under way raises the expected time between tokens; what came before is not counted again."""
    load = ReplicaLoad()
    answers = [Answer(1.0) for _ in range(4)]
    bookings = [Booking(load, Work(100, 500), 0.9) for _ in answers]
    for booking, answer in zip(bookings, answers, strict=True):
        booking.answered(1.0, answer)
    before = load.estimate.itl(4, 2_400)
    for second in range(1, 11):
        for answer in answers:
            answer.write(10, 1.0)
        load.watch(1.0 + second)
    assert load.estimate.itl(4, 2_400) > 1.5 * before
    learned = load.estimate.itl(4, 2_400)
    load.watch(12.0)
    assert load.estimate.itl(4, 2_400) == learned
    for booking in bookings:
        booking.ended(13.0, tokens=101)
    load.watch(14.0)
    assert not load.writing
    assert load.estimate.itl(4, 2_400) == learned


def test_answers_in_one_piece_are_not_looked_at() -> None:
    """Their first byte is their last, so there is nothing to see of their pace."""
    load = ReplicaLoad()
    Booking(load, Work(100, 500, whole=True), 0.9).answered(1.0, Answer(1.0))
    load.watch(2.0)
    assert not load.writing
    assert load.estimate.itl_error is None
