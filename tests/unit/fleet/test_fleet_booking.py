"""The books of a request on a replica, what is learned from it, and what the replica can take."""

from __future__ import annotations

import pytest

from gateway.fleet.booking import Booking, Work
from gateway.fleet.capacity import Ceiling, Quota
from gateway.fleet.expectation import Expectations
from gateway.fleet.load import ReplicaLoad


def test_uncached_tokens_wait_until_the_first_byte_and_context_until_the_end() -> None:
    """Everything booked is taken out again; twice is harmless."""
    load = ReplicaLoad()
    booking = Booking(load, Work(1_000, 200), 1.0)
    assert (load.in_flight, load.waiting_tokens, load.context_tokens) == (1, 1_000, 1_200)
    booking.answered(1.2)
    booking.answered(1.3)
    assert (load.waiting_tokens, load.answers, load.waiting_attention) == (0, 1, 0.0)
    booking.ended(3.2, tokens=101)
    booking.ended(4.0)
    assert (load.in_flight, load.context_tokens) == (0, 0)
    assert load.itl == pytest.approx(0.02)
    assert load.estimate.samples == 1


def test_a_request_that_is_lost_leaves_nothing() -> None:
    """One that ends before its first byte teaches nothing."""
    load = ReplicaLoad()
    Booking(load, Work(1_000, 200), 1.0).ended(2.0)
    assert (load.in_flight, load.waiting_tokens, load.context_tokens, load.estimate.samples) == (0, 0, 0, 0)
    assert load.backlog(3.0) == 0.0


def test_only_what_is_not_cached_is_charged() -> None:
    """The second prompt with the same blocks costs its last token and what is behind the blocks."""
    load = ReplicaLoad()
    work = Work(256 + 10, 10, (1, 2, 3, 4))
    Booking(load, work, 1.0).answered(1.1)
    second = Booking(load, work, 2.0)
    assert (second.cached, second.uncached) == (256, 10)


def test_the_oldest_prompt_is_read_meanwhile() -> None:
    """What the engine must still read before a new prompt shrinks as time passes, but not below the others."""
    load = ReplicaLoad()
    Booking(load, Work(10_000, 10), 1.0)
    Booking(load, Work(5_000, 10), 1.0)
    early, late = load.backlog(1.3), load.backlog(5.0)
    assert 15_000 > early > late
    assert late == pytest.approx(5_000 + 500)


def test_prompts_that_others_came_after_are_seldom_learned_from() -> None:
    """Who comes meanwhile may be read in the same step; only where that always happens one in eight is believed."""
    load = ReplicaLoad()
    for number in range(16):
        first = Booking(load, Work(1_000, 10), 1.0 + number)
        second = Booking(load, Work(1_000, 10), 1.1 + number)
        first.answered(1.4 + number)
        second.ended(1.5 + number)
    assert load.waiting_prompts == 0
    assert load.estimate.samples == 2
    Booking(load, Work(1_000, 10), 30.0).answered(30.2)
    assert load.estimate.samples == 3


def test_every_prompt_that_waits_counts() -> None:
    """Those sent from here, and what the engine's queue holds of others."""
    load = ReplicaLoad()
    assert load.prompts == 1
    waiting = [Booking(load, Work(100, 10), 1.0) for _ in range(3)]
    assert load.prompts == 4
    load.reported(3, 2, None, 1.5)
    assert load.prompts == 6
    waiting[0].answered(1.6)
    waiting[1].ended(1.7)
    assert load.prompts == 4


def test_an_answer_in_one_piece_says_nothing_of_its_first_token() -> None:
    """Whole answers are not learned from."""
    load = ReplicaLoad()
    booking = Booking(load, Work(100, 10, whole=True), 1.0)
    booking.answered(9.0)
    assert load.estimate.samples == 0


def test_the_ceiling_falls_on_refusals_and_comes_back() -> None:
    """To four fifths of what was in flight, once for a burst; then one more every half minute, up to the configured."""
    ceiling = Ceiling(100)
    ceiling.refused(50, 10.0)
    ceiling.refused(50, 10.5)
    assert ceiling.at(10.0) == pytest.approx(40.0)
    assert ceiling.at(70.0) == pytest.approx(42.0)
    assert ceiling.at(1e6) == 100


def test_a_quota_counts_requests_tokens_and_what_the_api_says() -> None:
    """Each limit refuses with its reason; the window moves on; headers bind until their reset."""
    quota = Quota(rpm=2, tpm=1_000, concurrent=2)
    quota.sent(100, 0.0)
    assert quota.refusal(100, 1.0) == ""
    assert "tokens" in quota.refusal(2_000, 1.0)
    quota.sent(100, 1.0)
    assert "in flight" in quota.refusal(1, 2.0)
    quota.ended()
    assert "requests" in quota.refusal(1, 2.0)
    assert [quota.free_in(tokens, 2.0) for tokens in (1, 850, 950)] == [58.0, 58.0, 59.0]
    assert quota.refusal(1, 60.5) == ""
    assert quota.free_in(1, 60.5) == 0.0
    part = Quota(concurrent=2.5)
    part.sent(100, 0.0)
    part.sent(100, 0.0)
    assert part.refusal(100, 1.0)
    assert part.used(1.0) == 1.0
    told = Quota()
    told.heard([(b"x-ratelimit-remaining-requests", b"0"), (b"x-ratelimit-reset-requests", b"1m30s")], 5.0)
    assert "it said" in told.refusal(1, 6.0)
    assert told.used(6.0) == 1.0
    assert told.free_in(1, 6.0) == 59.0
    assert told.refusal(1, 70.0) == ""


@pytest.mark.parametrize(
    "reset", [b"2026-01-01T00:00:00Z", b"2099-01-01T00:00:00.5+00:00", b"2026-13-45T99:00:00Z", b"soon"]
)
def test_anthropic_says_what_is_left_under_its_own_names(reset: bytes) -> None:
    """Its headers count as the usual ones do, for a second at least and a minute at most, whatever the clock says."""
    told = Quota()
    left = [(b"anthropic-ratelimit-requests-remaining", b"0"), (b"anthropic-ratelimit-requests-reset", reset)]
    told.heard(left, 5.0)
    assert "it said" in told.refusal(1, 5.5)
    assert told.refusal(1, 65.5) == ""


def test_the_length_of_answers_is_learned_by_model_and_client() -> None:
    """A client's own mean, else its model's, else the assumption; never more than the limit."""
    known = Expectations()
    assert known.tokens("m", "a", None) == 256
    for _ in range(80):
        known.answered("m", "a", 40)
    assert known.tokens("m", "a", None) == 40
    assert known.tokens("m", "other", None) == 40
    assert known.tokens("m", "a", 16) == 16


@pytest.mark.parametrize("gauges", [(300, 0, 0.5), (0, 100, None), (0, 0, 1.0)])
def test_gauges_that_keep_everybody_away_are_forgotten_when_they_never_change(
    gauges: tuple[int, int, float | None],
) -> None:
    """To a replica that says it is full nobody is sent, so waiting for traffic to tell would last for ever."""
    load = ReplicaLoad()
    for second in range(10):
        load.reported(*gauges, float(second))
        assert load.saturation(float(second)) >= 1.0
    load.reported(*gauges, 10.0)
    assert load.saturation(10.0) == 0.0
    booking = Booking(load, Work(10, 10), 10.5)
    load.reported(*gauges, 11.0)
    assert load.scraped_at is None, "neither while what was sent on trial runs"
    booking.ended(11.5)
    load.reported(gauges[0] + 1, *gauges[1:], 12.0)
    assert load.scraped_at == 12.0


def test_frozen_gauges_are_forgotten_while_traffic_goes_on() -> None:
    """A page that never changes while requests come and go says nothing of foreign load."""
    load = ReplicaLoad()
    for second in range(6):
        load.reported(20, 0, 0.5, float(second))
        Booking(load, Work(10, 10), second + 0.5).ended(second + 0.9)
    assert load.foreign == 0
    assert load.scraped_at is None
