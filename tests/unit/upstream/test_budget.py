"""The retry budget: retries never add more than a tenth, and a quiet gateway can still fail over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.budget import FLOOR, SHARE, WINDOW, RetryBudget

STEPS = st.lists(st.tuples(st.floats(0, 4), st.sampled_from(["request", "retry", "storm", "rush"])), max_size=60)


@given(st.floats(0, 1e6), STEPS)
def test_retries_of_any_window_are_a_tenth_of_its_requests_or_the_floor(
    start: float, steps: list[tuple[float, str]]
) -> None:
    """Whatever the order and the gaps, each granted retry fits the window that ends with it, and none is withheld."""
    budget, now = RetryBudget(), start
    requests: list[int] = []
    retries: list[int] = []
    for gap, what in steps:
        now += gap
        second = int(now)
        for _ in range({"request": 1, "retry": 1, "storm": 15, "rush": 120}[what]):
            if what in {"request", "rush"}:
                budget.request(now)
                requests.append(second)
                continue
            recent = sum(second - each < WINDOW for each in requests)
            used = sum(second - each < WINDOW for each in retries)
            left = max(int(SHARE * recent), FLOOR) - used
            assert budget.remaining(now) == max(0, left)
            allowed = left > 0
            assert budget.take(now) is allowed
            if allowed:
                retries.append(second)


def test_a_quiet_gateway_may_retry_and_gets_its_budget_back() -> None:
    """The floor holds without any request, and is whole again after the window."""
    budget = RetryBudget()
    assert [budget.take(100.0) for _ in range(FLOOR + 2)] == [True] * FLOOR + [False, False]
    assert not budget.take(100.0 + WINDOW - 1)
    assert budget.take(100.0 + WINDOW)
    assert budget.remaining(100.0 + WINDOW) == FLOOR - 1


def test_who_only_looks_sees_the_budget_come_back() -> None:
    """A gateway that nobody asks any more has not used up its budget for ever, and none is ever less than used up."""
    budget = RetryBudget()
    for _ in range(1_000):
        budget.request(100.0)
    while budget.take(109.0):
        pass
    assert [budget.remaining(now) for now in (109.0, 110.0, 118.9, 119.0)] == [0, 0, 0, FLOOR]
    assert not budget.take(110.0)


def test_a_long_silence_forgets_everything() -> None:
    """Neither old requests nor old retries count after a day."""
    budget = RetryBudget()
    for _ in range(10_000):
        budget.request(5.0)
    assert budget.take(5.0)
    assert budget.remaining(5.0) == 999
    assert budget.take(86_400.0)
    assert budget.remaining(86_400.0) == FLOOR - 1
