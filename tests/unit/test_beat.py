"""Pauses that end together, on a loop whose time is set by hand."""

from __future__ import annotations

import asyncio

import pytest

from gateway.beat import BEAT_S, paused


class Loop:
    """What there is of an event loop here: its time."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def time(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The running loop."""
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_pauses_that_begin_at_different_moments_end_together(loop: Loop) -> None:
    """Loops of different pace wake the process at the beats only, none further from its time than half a beat."""
    first = loop.now + paused(1.0)
    for step in range(1, 40):
        loop.now = 1_000.0 + step * 0.037
        for seconds in (0.3, 0.5, 1.0, 1.17, 60.0):
            pause = paused(seconds)
            assert abs(pause - seconds) <= BEAT_S / 2 + 1e-9
            beats = (loop.now + pause - first) / BEAT_S
            assert beats == pytest.approx(round(beats), abs=1e-6)


def test_a_loop_keeps_its_pace(loop: Loop) -> None:
    """A look every half second is one every half second, also when each look takes a while."""
    loop.now += paused(0.5)
    begun = loop.now
    for _ in range(10):
        loop.now += 0.02
        loop.now += paused(0.5)
    assert loop.now - begun == pytest.approx(5.0)


def test_a_short_pause_stays_as_it_is(loop: Loop) -> None:
    """Who wants to wake sooner than the next beat does."""
    loop.now += 0.1
    assert paused(0.2) == 0.2
    assert paused(0.0) == 0.0
