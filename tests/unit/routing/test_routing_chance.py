"""The randomness of decisions: one number is its whole state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.chance import Chance


@given(state=st.integers(0, 2**64 - 1), skipped=st.integers(0, 20))
def test_the_same_state_gives_the_same_draws(state: int, skipped: int) -> None:
    """Numbers, shuffles and choices go on from a state that was written down as they did."""
    first = Chance(state)
    for _ in range(skipped):
        first.random()
    again = Chance(first.state)
    one, other = list(range(8)), list(range(8))
    first.shuffle(one)
    again.shuffle(other)
    assert one == other
    assert [first.random() for _ in range(3)] == [again.random() for _ in range(3)]
    assert first.choice("abc") == again.choice("abc")


def test_draws_are_spread_evenly() -> None:
    """Ten thousand draws fill ten equal parts of 0 to 1 with a thousand each, give or take 15 percent."""
    chance = Chance(7)
    counts = [0] * 10
    for _ in range(10_000):
        drawn = chance.random()
        assert 0.0 <= drawn < 1.0
        counts[int(drawn * 10)] += 1
    assert all(850 < count < 1_150 for count in counts)
