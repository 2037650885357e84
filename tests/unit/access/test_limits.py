"""Limits of keys: exact windows, honest waiting times, nothing leaked."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.limits import WINDOW_NS, LocalLimits, refusal
from gateway.types.errors import RateLimited
from gateway.types.keys import Grant, KeyLimits

SECOND = 1_000_000_000


@dataclass
class Clock:
    """A monotonic clock that stands still until it is moved."""

    now: int = 5 * WINDOW_NS

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now


@dataclass
class Key:
    """One key under test, with its clock."""

    limits: KeyLimits
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.book = LocalLimits(self.clock)

    def take(self, tokens: int = 0, owner: str = "worker") -> Grant:
        """Ask for one request."""
        return self.book.take(owner, "abcd1234", self.limits, tokens)


def test_a_key_without_limits_is_never_counted() -> None:
    """Nothing is held for it, so there is nothing to settle."""
    key = Key(KeyLimits())
    assert [key.take(10**9) for _ in range(100)] == [Grant(0)] * 100
    assert key.book.running == 0


def test_requests_per_minute_slide_and_the_wait_is_exact() -> None:
    """The third of two allowed requests gets in when the first is a minute old, not a nanosecond before."""
    key = Key(KeyLimits(rpm=2))
    assert key.take().refused is None
    key.clock.now += 20 * SECOND
    assert key.take().refused is None
    key.clock.now += 10 * SECOND
    refused = key.take()
    assert (refused.hold, refused.refused, refused.retry_after) == (0, "rpm", 30.0)
    key.clock.now += 30 * SECOND - 1
    assert key.take().refused == "rpm"
    key.clock.now += 1
    assert key.take().refused is None
    assert key.take().retry_after == 20.0


def test_reserved_tokens_are_replaced_by_the_real_number() -> None:
    """What was reserved too much is given back when the request is settled, what was too little is added."""
    key = Key(KeyLimits(tpm=1000))
    hold = key.take(800).hold
    assert key.take(300).refused == "tpm"
    key.book.settle(hold, 100)
    second = key.take(900)
    assert second.refused is None
    key.book.settle(second.hold, 950)
    assert key.take(1).refused == "tpm"


def test_the_wait_for_tokens_is_until_enough_old_ones_leave() -> None:
    """A small request waits for the first to leave, a larger one for the second."""
    key = Key(KeyLimits(tpm=1000))
    key.take(400)
    key.clock.now += 10 * SECOND
    key.take(600)
    key.clock.now += 10 * SECOND
    assert key.take(400).retry_after == 40.0
    assert key.take(401).retry_after == 50.0


def test_a_request_larger_than_the_whole_token_limit_is_refused_for_good() -> None:
    """The error says that it can never fit, and gives no time to retry after."""
    key = Key(KeyLimits(tpm=1000))
    with pytest.raises(RateLimited, match="can never fit") as caught:
        key.take(1001)
    assert caught.value.retry_after is None
    assert key.take(1000).refused is None


@pytest.mark.parametrize("limits", [KeyLimits(rpm=0), KeyLimits(concurrent=0), KeyLimits(rpm=-1)])
def test_a_limit_of_nothing_lets_nothing_in(limits: KeyLimits) -> None:
    """Zero is refused for good rather than with a time at which it would be refused again."""
    with pytest.raises(RateLimited, match="may run no request"):
        Key(limits).take()


def test_concurrency_counts_running_requests() -> None:
    """A settled request makes room at once; settling twice makes no more room."""
    key = Key(KeyLimits(concurrent=2))
    first, second = key.take(), key.take()
    refused = key.take()
    assert (refused.refused, refused.retry_after) == ("concurrent", 1.0)
    key.book.settle(first.hold, 0)
    key.book.settle(first.hold, 0)
    assert key.take().refused is None
    assert key.take().refused == "concurrent"
    key.book.settle(second.hold, 0)
    assert key.take().refused is None


def test_of_several_reached_limits_the_longest_wait_is_told() -> None:
    """Coming back at the time told is never refused by a limit that was known before."""
    key = Key(KeyLimits(rpm=1, tpm=100, concurrent=1))
    key.take(100)
    refused = key.take(1)
    assert (refused.refused, refused.retry_after) == ("rpm", 60.0)


def test_a_refused_request_counts_for_nothing() -> None:
    """Hammering against a limit does not move the moment when there is room."""
    key = Key(KeyLimits(rpm=1, tpm=10))
    key.take(10)
    for _ in range(50):
        key.clock.now += SECOND
        assert key.take(10).refused is not None
    key.clock.now += 10 * SECOND
    assert key.take(10).refused is None


def test_keys_do_not_share_limits() -> None:
    """One key at its limit does not hold up another."""
    book = LocalLimits(Clock())
    assert book.take("w", "aaaa0000", KeyLimits(rpm=1), 0).refused is None
    assert book.take("w", "aaaa0000", KeyLimits(rpm=1), 0).refused == "rpm"
    assert book.take("w", "bbbb0000", KeyLimits(rpm=1), 0).refused is None


def test_a_changed_limit_applies_at_once_to_what_was_counted() -> None:
    """Lowering and raising a limit need no restart, and earlier requests count."""
    clock = Clock()
    book = LocalLimits(clock)
    for _ in range(5):
        book.take("w", "k", KeyLimits(rpm=5), 0)
        clock.now += SECOND
    lowered = book.take("w", "k", KeyLimits(rpm=2), 0)
    assert lowered.refused == "rpm"
    assert lowered.retry_after == 58.0
    assert book.take("w", "k", KeyLimits(rpm=6), 0).refused is None


def test_the_requests_of_a_dead_owner_are_released_but_their_tokens_stay() -> None:
    """A worker that died frees its slots; what it may have used still counts against the minute."""
    key = Key(KeyLimits(concurrent=2, tpm=100))
    key.take(40, "dead")
    kept = key.take(40, "alive")
    assert key.book.release_owner("dead") == 1
    assert key.book.running == 1
    assert key.take(20, "alive").refused is None
    assert key.take(1, "alive").refused is not None
    assert key.book.owned(kept.hold, "alive")
    assert not key.book.owned(kept.hold, "dead")


def test_a_worker_that_comes_back_takes_its_requests_with_it() -> None:
    """A lost connection neither frees a running request for good nor counts its tokens twice."""
    key = Key(KeyLimits(concurrent=1, tpm=100))
    hold = key.take(40, "before").hold
    key.book.release_owner("before")
    key.book.adopt("after", [(hold, "abcd1234", 40, 0)])
    assert key.take(1).refused == "concurrent"
    key.book.settle(hold, 50)
    assert key.take(50).refused is None


def test_requests_that_outlived_the_keeper_are_counted_again() -> None:
    """A fresh book learns what is running: concurrency, and tokens that are younger than a minute."""
    key = Key(KeyLimits(concurrent=3, tpm=100))
    key.book.adopt("w", [(7, "abcd1234", 40, 10 * SECOND), (8, "abcd1234", 90, WINDOW_NS)])
    assert key.book.running == 2
    assert key.take(61).retry_after == 50.0
    assert key.take(60).refused is None
    assert key.take(0).refused == "concurrent"
    key.book.settle(8, 90)
    assert key.take(0).refused is None


def test_adopting_what_is_already_held_only_changes_the_owner() -> None:
    """A new connection that is faster than the end of the old one does not count twice."""
    key = Key(KeyLimits(concurrent=2))
    hold = key.take(0, "old").hold
    key.book.adopt("new", [(hold, "abcd1234", 0, 0)])
    assert key.book.release_owner("old") == 0
    assert key.book.running == 1


def test_idle_keys_are_forgotten_and_running_ones_are_not() -> None:
    """The book does not grow with the number of keys ever seen."""
    clock = Clock()
    book = LocalLimits(clock)
    for number in range(100):
        book.settle(book.take("w", f"key{number:05}", KeyLimits(rpm=1), 0).hold, 0)
    running = book.take("w", "running0", KeyLimits(concurrent=1), 0)
    book.sweep()
    assert len(book._keys) == 101
    clock.now += WINDOW_NS
    book.sweep()
    assert set(book._keys) == {"running0"}
    book.settle(running.hold, 5)
    book.release_owner("w")


def test_the_refusal_names_the_limit_and_when_to_come_back() -> None:
    """The caller's error has the limit, its value and Retry-After."""
    error = refusal(Grant(0, "tpm", 12.5), KeyLimits(tpm=900), 0)
    assert error.code == 429
    assert "900 tokens per minute" in error.message
    assert error.retry_after == 12.5
    assert error.metadata == {"limit": "tpm", "value": 900, "headers": {"X-RateLimit-Limit": "900"}}


@pytest.mark.parametrize(
    ("limits", "taken", "left", "reset"),
    [
        (KeyLimits(rpm=1), 0, "0", "1030001"),
        (KeyLimits(tpm=100), 70, "30", "1030001"),
        (KeyLimits(concurrent=1), 0, "0", None),
    ],
)
def test_the_numbers_of_a_limit_are_those_that_are_known(
    limits: KeyLimits, taken: int, left: str, reset: str | None
) -> None:
    """What is left, and the millisecond from which there is room; nobody knows when a running request ends."""
    key = Key(limits)
    key.take(taken)
    key.clock.now += 30 * SECOND
    error = refusal(key.take(40), limits, 1_000_000.5)
    most = {"X-RateLimit-Limit": str(error.metadata["value"]), "X-RateLimit-Remaining": left}
    assert error.headers == most | ({} if reset is None else {"X-RateLimit-Reset": reset})


async def test_the_book_serves_the_process_it_lives_in() -> None:
    """The asynchronous form is the same as the one for owners."""
    book = LocalLimits(Clock())
    assert (await book.admit("k", KeyLimits(rpm=1), 0)).refused is None
    assert (await book.admit("k", KeyLimits(rpm=1), 0)).refused == "rpm"


_STEP = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 40 * SECOND)),
    st.tuples(st.just("take"), st.integers(0, 60)),
    st.tuples(st.just("settle"), st.integers(0, 60)),
    st.tuples(st.just("release"), st.integers(0, 2)),
    st.tuples(st.just("sweep"), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        KeyLimits,
        rpm=st.one_of(st.none(), st.integers(1, 4)),
        tpm=st.one_of(st.none(), st.integers(60, 120)),
        concurrent=st.one_of(st.none(), st.integers(1, 3)),
    ),
    st.lists(_STEP, max_size=60),
)
def test_no_interleaving_gets_over_a_limit_and_every_wait_is_true(
    limits: KeyLimits, steps: list[tuple[str, int]]
) -> None:
    """In any 60 seconds at most rpm requests and tpm tokens, never more than the allowed number at once."""
    clock = Clock()
    book = LocalLimits(clock)
    admitted: list[list[int]] = []  # time, tokens
    running: dict[int, list[int]] = {}
    owners: dict[int, int] = {}
    for word, value in steps:
        if word == "wait":
            clock.now += value
        elif word == "take":
            owner = value % 3
            grant = book.take(owner, "k", limits, value)
            if grant.refused is None:
                admitted.append([clock.now, value])
                if grant.hold:
                    running[grant.hold], owners[grant.hold] = admitted[-1], owner
            elif grant.refused != "concurrent":
                _check_wait(book, limits, value, grant)
        elif word == "settle" and running:
            hold = next(iter(running))
            used = running.pop(hold)
            used[1] = min(value, used[1])
            book.settle(hold, used[1])
        elif word == "release":
            book.release_owner(value)
            running = {hold: used for hold, used in running.items() if owners[hold] != value}
        elif word == "sweep":
            book.sweep()
        _check_windows(limits, admitted)
        if limits.concurrent is not None:
            assert len(running) <= limits.concurrent
            assert book.running == len(running)


def _check_windows(limits: KeyLimits, admitted: list[list[int]]) -> None:
    for start, _ in admitted:
        inside = [tokens for at, tokens in admitted if start <= at < start + WINDOW_NS]
        assert limits.rpm is None or len(inside) <= limits.rpm
        assert limits.tpm is None or sum(inside) <= limits.tpm


def _check_wait(book: LocalLimits, limits: KeyLimits, tokens: int, grant: Grant) -> None:
    """Let a copy of the book live on: no room a moment before the time told, room at it."""
    windows = KeyLimits(rpm=limits.rpm, tpm=limits.tpm)
    for moment, fits in ((-2, False), (0, True)):
        later = copy.deepcopy(book)
        clock = later._clock
        assert isinstance(clock, Clock)
        clock.now += math.ceil(grant.retry_after * 1e9) + moment
        assert (later.take("w", "k", windows, tokens).refused is None) == fits
