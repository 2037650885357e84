"""Promises of the admission queue: who goes, who waits, who is turned away, and that nobody leaves a trace."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.config.snapshot import BANDS, AdmissionSpec, BandSpec
from gateway.routing.admission.ticket import Reason, State, Ticket
from gateway.types.priority import Priority
from tests.fakes.admission import Slots, ticket

INTERACTIVE, STANDARD, BATCH = Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH
CALM = replace(AdmissionSpec(), bands={**BANDS, BATCH: replace(BANDS[BATCH], shed=False)})
"""The default rules, but nothing is left to chance."""


def filled(slots: int = 4, spec: AdmissionSpec = CALM, **more: float) -> tuple[Slots, list[Ticket]]:
    """Return a pool whose slots are all taken, and who took them."""
    pool = Slots(slots, spec, **more)
    running = [ticket("filler", INTERACTIVE) for _ in range(slots)]
    assert {pool.offer(each) for each in running} == {State.ADMITTED}
    return pool, running


def reason(denied: Ticket) -> Reason:
    assert denied.state is State.REFUSED
    assert denied.denial is not None
    return denied.denial.reason


def test_who_comes_while_there_is_room_goes_at_once() -> None:
    """Nobody waits without need, and the one too many does."""
    pool = Slots(3)
    assert [pool.offer(ticket()) for _ in range(4)] == [State.ADMITTED] * 3 + [State.QUEUED]
    assert pool.queue.waiting == 1


@pytest.mark.parametrize(("band", "most"), [(INTERACTIVE, 20), (STANDARD, 18), (BATCH, 14)])
def test_each_band_fills_the_pool_up_to_its_ceiling(band: Priority, most: int) -> None:
    """Of 20 slots standard leaves two and batch six for those who are more urgent."""
    pool = Slots(20, CALM)
    states = [pool.offer(ticket(band=band), now / 1000) for now in range(25)]
    assert states.count(State.ADMITTED) == most
    assert pool.offer(ticket(band=INTERACTIVE), 0.1) is (State.QUEUED if band is INTERACTIVE else State.ADMITTED)


@pytest.mark.parametrize("band", list(Priority))
def test_an_idle_pool_serves_everybody(band: Priority) -> None:
    """A pool of one slot is not too small for a band whose ceiling is below one."""
    pool = Slots(1, CALM, tokens=10.0)
    assert pool.offer(ticket(band=band, prompt=10_000)) is State.ADMITTED


def test_the_more_urgent_go_first() -> None:
    """Whatever the order in which they came; and nobody passes one of a band above."""
    pool, running = filled()
    waiting = {band: ticket(band=band) for band in (BATCH, STANDARD, INTERACTIVE)}
    assert {pool.offer(each) for each in waiting.values()} == {State.QUEUED}
    pool.end(running[0], 1.0)
    assert pool.release(1.0) == [waiting[INTERACTIVE]]
    pool.end(running[1], 1.0)
    assert pool.release(1.0) == [waiting[STANDARD]]
    pool.end(running[2], 1.0)
    assert pool.release(1.0) == []  # one free slot of four: batch may fill only 70 %
    pool.end(running[3], 1.0)
    assert pool.release(1.0) == [waiting[BATCH]]


def test_who_comes_does_not_pass_who_waits() -> None:
    """A free slot belongs to those who waited, also when nobody has looked yet."""
    pool, running = filled()
    first, second = ticket(), ticket()
    assert pool.offer(first) is State.QUEUED
    pool.end(running[0], 1.0)
    assert pool.offer(second, 1.0) is State.QUEUED
    assert pool.release(1.0) == [first]


def test_those_on_their_way_are_counted() -> None:
    """Between release and the books of a replica a slot is not given away twice."""
    pool, running = filled()
    for _ in range(3):
        pool.offer(ticket())
    pool.end(running[0], 1.0)
    (released,) = pool.queue.released(1.0)
    assert pool.queue.released(1.1) == []
    pool.running.append(released)
    pool.queue.arrived(released)
    assert pool.queue.released(1.2) == []


def test_unread_prompts_fill_a_pool_too() -> None:
    """Long prompts take the room of many short ones; a short one behind them goes as soon as there is some."""
    pool = Slots(100, CALM, tokens=1_000.0)
    assert pool.offer(ticket(prompt=900)) is State.ADMITTED
    assert pool.offer(ticket(prompt=10)) is State.QUEUED
    assert pool.offer(ticket(band=INTERACTIVE, prompt=10)) is State.ADMITTED


def test_a_long_prompt_does_not_hold_up_the_short_ones_of_its_team() -> None:
    """Among those who can still be answered in time the nearest limit goes first; limits do not move."""
    pool, running = filled()
    long, short, later = ticket(prompt=32_000), ticket(prompt=100), ticket(prompt=100)
    pool.offer(long, 0.0)
    pool.offer(short, 0.1)
    order = []
    for turn, now in enumerate((0.2, 2.5, 2.6)):
        if turn == 1:
            pool.offer(later, 2.4)
        pool.end(running[turn], now)
        order += pool.release(now)
    assert order == [short, long, later]


def test_who_is_late_yields_to_who_is_not() -> None:
    """In an overload some are answered in time instead of all too late; those that are late come next, oldest first."""
    pool, running = filled()
    late = [ticket(), ticket()]
    for each in late:
        pool.offer(each, 0.0)
    fresh = ticket()
    pool.offer(fresh, 5.0)
    order = []
    for each in running[:3]:
        pool.end(each, 5.1)
        order += pool.release(5.1)
    assert order == [fresh, *late]


def test_the_callers_goal_counts() -> None:
    """Who asked for a faster first token is served before an equal who did not."""
    pool, running = filled()
    relaxed, hurried = ticket(), ticket(goal=0.5)
    pool.offer(relaxed)
    pool.offer(hurried)
    pool.end(running[0], 0.1)
    assert pool.release(0.1) == [hurried]


@pytest.mark.parametrize(("band", "seconds"), [(INTERACTIVE, 10.0), (STANDARD, 60.0), (BATCH, 60.0)])
def test_nobody_waits_beyond_the_bands_deadline(band: Priority, seconds: float) -> None:
    """The time in the queue ends with a refusal that says so."""
    pool, _ = filled()
    waiting = ticket(band=band)
    pool.offer(waiting, 100.0)
    assert pool.queue.due() == 100.0 + seconds
    assert pool.release(100.0 + seconds - 0.01) == []
    assert pool.queue.refused() == []
    assert pool.release(100.0 + seconds + 0.01) == []
    assert pool.queue.refused() == [waiting]
    assert reason(waiting) is Reason.DEADLINE
    assert pool.queue.waiting == 0


def test_the_callers_deadline_is_kept_when_it_is_earlier() -> None:
    """Nobody waits for what nobody wants any more."""
    pool, _ = filled()
    waiting, hopeless = ticket(deadline=3.0), ticket(deadline=0.0)
    pool.offer(waiting, 0.0)
    assert pool.queue.due() == 3.0
    assert pool.offer(hopeless, 1.0) is State.REFUSED
    assert reason(hopeless) is Reason.DEADLINE


def test_a_full_queue_turns_away_the_weakest_claim() -> None:
    """Batch goes before standard, and a team with a long queue before one with a short one; else the newcomer."""
    pool, _ = filled(spec=replace(CALM, queue_requests=3))
    batch = ticket("night", BATCH)
    pool.offer(batch)
    greedy = [ticket("greedy") for _ in range(3)]
    assert [pool.offer(each) for each in greedy] == [State.QUEUED] * 3
    assert pool.queue.refused() == [batch]
    modest, another = ticket("modest"), ticket("greedy")
    assert pool.offer(modest) is State.QUEUED
    assert pool.queue.refused() == [greedy[-1]]
    assert reason(greedy[-1]) is Reason.FULL
    assert pool.offer(another) is State.REFUSED
    assert reason(another) is Reason.FULL
    assert pool.queue.waiting == 3


def test_a_queue_holds_no_more_bytes_than_it_may() -> None:
    """Memory is bounded, however large the prompts are."""
    pool, _ = filled(spec=replace(CALM, queue_bytes=100))
    assert pool.offer(ticket(size=60)) is State.QUEUED
    large = ticket(size=60)
    assert pool.offer(large) is State.REFUSED
    assert reason(large) is Reason.FULL
    assert pool.offer(ticket(size=40)) is State.QUEUED


def test_batch_is_shed_the_more_the_fuller_the_pool_is() -> None:
    """At its ceiling none, in between some, in a full pool most."""
    shares = []
    for taken in (14, 18, 20):
        pool = Slots(20)
        for _ in range(taken):
            assert pool.offer(ticket(band=INTERACTIVE)) is State.ADMITTED
        states = [pool.queue.offer(ticket(band=BATCH), 0.0) for _ in range(400)]
        shares.append(states.count(State.REFUSED) / 400)
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.1, abs=0.05)
    assert shares[2] == pytest.approx(0.73, abs=0.07)


def test_nothing_that_serves_is_told_apart_from_nothing_free() -> None:
    """Without any replica there is no point in waiting, for those who come and for those who wait already."""
    pool, _ = filled()
    waiting, coming = ticket(), ticket()
    pool.offer(waiting)
    pool.up = False
    assert pool.release(1.0) == []
    assert pool.queue.refused() == [waiting]
    assert pool.offer(coming, 1.0) is State.REFUSED
    assert {reason(waiting), reason(coming)} == {Reason.UNAVAILABLE}


def test_retry_after_is_the_queue_over_the_pace() -> None:
    """Ten a second end, fifty wait: a retry may succeed in five seconds."""
    pool, _ = filled(spec=replace(CALM, queue_requests=50))
    for count in range(50):
        pool.offer(ticket("a"), 0.0)
        pool.end(pool.running[0], count / 10)
        pool.offer(ticket("filler", INTERACTIVE), count / 10)
    denied = ticket("a")
    assert pool.offer(denied, 5.0) is State.REFUSED
    assert denied.denial is not None
    assert denied.denial.retry_after == pytest.approx(5.1, rel=0.05)
    unknown, _ = filled(spec=replace(CALM, queue_requests=0))
    refused = ticket()
    unknown.offer(refused)
    assert refused.denial is not None
    assert refused.denial.retry_after == 60.0


def test_other_rules_hold_from_the_next_decision_on() -> None:
    """A reload changes ceilings and bounds; who waits keeps the place."""
    pool, running = filled()
    waiting = ticket()
    pool.offer(waiting)
    pool.queue.configure(replace(CALM, bands={**BANDS, STANDARD: BandSpec(0.5, 5.0)}, queue_requests=1), 1.0)
    pool.end(running[0], 1.0)
    assert pool.release(1.0) == []
    assert pool.offer(ticket("filler"), 1.0) is State.REFUSED
    for each in running[1:3]:
        pool.end(each, 1.0)
    assert pool.release(1.0) == [waiting]


class Crowd(RuleBasedStateMachine):
    """Anything callers may do, in any order; the books must always balance."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pool = Slots(4, AdmissionSpec(queue_requests=6, queue_bytes=1_000))
        self.open: list[Ticket] = []

    @rule(
        team=st.sampled_from("abc"),
        band=st.sampled_from(list(Priority)),
        prompt=st.integers(0, 10_000),
        size=st.integers(0, 400),
        patience=st.none() | st.floats(0, 20),
    )
    def come(self, team: str, band: Priority, prompt: int, size: int, patience: float | None) -> None:
        """Bring a request."""
        made = ticket(team, band, prompt=prompt, size=size)
        if patience is not None:
            made.deadline = self.now + patience
        self.pool.offer(made, self.now)
        if made.state is not State.REFUSED:
            self.open.append(made)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), completion=st.integers(0, 5_000))
    def go(self, data: st.DataObject, completion: int) -> None:
        """End a request that runs, or leave while it waits."""
        chosen = data.draw(st.sampled_from(self.open))
        self.open.remove(chosen)
        if chosen in self.pool.running:
            self.pool.end(chosen, self.now, completion)
        else:
            self.pool.queue.abandon(chosen, self.now)
        self.pool.queue.abandon(chosen, self.now)  # a second time is harmless

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.look()

    @rule()
    def look(self) -> None:
        """Let go whose turn it is, and hear who is turned away."""
        self.pool.release(self.now)
        for refused in self.pool.queue.refused():
            if refused in self.open:
                self.open.remove(refused)

    @rule(up=st.booleans())
    def change(self, up: bool) -> None:
        """Take all replicas away, or bring them back."""
        self.pool.up = up

    @invariant()
    def balanced(self) -> None:
        """Nothing is lost, nothing kept; bounds hold."""
        queue = self.pool.queue
        waiting = [each for each in self.open if each.state is State.QUEUED]
        assert queue.waiting == len(waiting) == sum(queue.lengths().values())
        assert queue.waiting <= 6
        assert sum(each.size for each in waiting) <= 1_000
        assert len(self.pool.running) <= 4

    @invariant()
    def work_conserving(self) -> None:
        """After a look nobody waits whose band has room, unless somebody more urgent waits."""
        self.look()
        if self.pool.up:
            used = len(self.pool.running) / self.pool.slots
            for band in Priority:
                if self.pool.queue.lengths().get((self.open[0].pool if self.open else "", band.value)):
                    assert used >= BANDS[band].ceiling
                    break

    def teardown(self) -> None:
        """When all have gone, nothing is left but the accounts."""
        for each in list(self.open):
            self.pool.queue.abandon(each, self.now)
        assert self.pool.queue.waiting == 0
        assert self.pool.queue.due() == float("inf")
        for pool in self.pool.queue._pools.values():
            assert pool.bytes == 0
            assert pool.length == 0


Crowd.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCrowd = Crowd.TestCase
