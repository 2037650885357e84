"""Promises of fair sharing: teams that wait get equal service by weight, in tokens, and nobody saves up a claim."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.config.snapshot import AdmissionSpec
from gateway.routing.admission.fairness import REBASE_AFTER
from gateway.routing.admission.ticket import State, Ticket
from gateway.types.priority import Priority
from tests.fakes.admission import POOL, Slots, ticket


def jain(values: list[float]) -> float:
    """Return Jain's index: 1 when all are equal, 1/n when one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


class Backlog:
    """Teams that always have requests waiting, on slots that make a token per step each.

    Attributes:
        lengths: bounds of the completion's length, by team.
    """

    def __init__(self, lengths: dict[str, tuple[int, int]], seed: int, spec: AdmissionSpec, slots: int = 8) -> None:
        self.lengths = lengths
        self.rng = Random(seed)
        self.pool = Slots(slots, spec)
        self.now = 0.0
        self.left: dict[int, int] = {}
        self.truth: dict[int, int] = {}
        self.made: dict[str, float] = dict.fromkeys(lengths, 0.0)
        self.turns: dict[str, float] = dict.fromkeys(lengths, 0.0)
        self.waiting: list[Ticket] = []

    def offer(self, team: str) -> Ticket:
        """Bring another request of ``team``, whose true length nobody knows."""
        low, high = self.lengths[team]
        made = ticket(team, prompt=self.rng.randint(low, high), expected=(low + high) // 2)
        self.truth[id(made)] = self.rng.randint(low, high)
        if self.pool.offer(made, self.now) is State.ADMITTED:
            self.left[id(made)] = self.truth[id(made)]
        return made

    def step(self, backlog: int = 10) -> None:
        """Make a token on each slot; keep ``backlog`` requests of every team waiting."""
        self.now += 0.02
        for each in list(self.pool.running):
            self.left[id(each)] -= 10
            if self.left[id(each)] <= 0:
                self.pool.end(each, self.now, self.truth[id(each)])
                self.made[each.team] += each.prompt + 2 * self.truth[id(each)]
        for team in self.lengths:
            missing = backlog - sum(each.team == team for each in self.waiting)
            for _ in range(missing):
                self.waiting.append(self.offer(team))
        for each in self.pool.release(self.now):
            self.left[id(each)] = self.truth[id(each)]
            self.turns[each.team] = self.now
        self.waiting = [each for each in self.waiting if each.state is State.QUEUED]

    def run(self, seconds: float) -> dict[str, float]:
        """Run for so long and return what each team was served meanwhile."""
        before = dict(self.made)
        until = self.now + seconds
        while self.now < until:
            self.step()
        return {team: self.made[team] - before[team] for team in self.made}


LENGTHS = st.tuples(st.integers(20, 200), st.integers(0, 400)).map(lambda pair: (pair[0], pair[0] + pair[1]))
FOREVER = replace(AdmissionSpec(), half_life=60.0)


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(teams=st.lists(LENGTHS, min_size=2, max_size=5), seed=st.integers(0, 2**16))
def test_backlogged_teams_are_served_alike(teams: list[tuple[int, int]], seed: int) -> None:
    """Whatever the lengths of their requests, and though nobody knows them before: Jain's index is at least 0.95."""
    backlog = Backlog({f"team-{n}": lengths for n, lengths in enumerate(teams)}, seed, FOREVER)
    backlog.run(5.0)
    served = backlog.run(40.0)
    assert jain(list(served.values())) >= 0.95
    assert all(backlog.now - turn < 10.0 for turn in backlog.turns.values())  # nobody starves


def test_teams_are_served_by_weight() -> None:
    """A team of weight 3 gets three times as much as one of weight 1."""
    spec = replace(FOREVER, weights={"heavy": 3.0})
    backlog = Backlog({"heavy": (50, 150), "light": (50, 150)}, 1, spec)
    backlog.run(5.0)
    served = backlog.run(120.0)
    assert served["heavy"] / served["light"] == pytest.approx(3.0, rel=0.1)


def test_many_requests_do_not_buy_more_than_few() -> None:
    """A team with 500 requests waiting does not hold up one with a single request for more than a turn."""
    pool = Slots(2)
    for _ in range(502):
        pool.offer(ticket("crowd"))
    pool.offer(ticket("single"), 1.0)
    teams = []
    for turn in range(3):
        pool.end(pool.running[0], 1.0 + turn)
        teams += [each.team for each in pool.release(1.0 + turn)]
    assert "single" in teams[:2]


def test_a_team_that_comes_back_has_saved_up_nothing() -> None:
    """After an hour without a request it shares from now on, instead of catching up what it had left to others."""
    pool = Slots(2)
    now = 0.0
    for _ in range(200):
        for team in ("a", "b"):
            pool.offer(ticket(team), now)
        pool.end(pool.running[0], now)
        pool.release(now)
        now += 0.05
    for _ in range(40):
        pool.offer(ticket("late"), now)
    teams = []
    for _ in range(30):
        pool.end(pool.running[0], now)
        teams += [each.team for each in pool.release(now)]
        now += 0.05
    assert 8 <= teams.count("late") <= 12


def test_what_was_served_long_ago_is_forgotten() -> None:
    """Right after a burst a team stands behind one that had a single request; ten half-lives later before it."""
    for pause in (0.0, 600.0):
        pool = Slots(1)
        for _ in range(50):
            made = ticket("burst")
            pool.offer(made, 0.0)
            pool.end(made, 0.0)
        small = ticket("fresh", prompt=100, expected=100)
        pool.offer(small, pause)
        pool.end(small, pause)
        shares = pool.queue._pools[POOL].band(Priority.STANDARD).queue._shares
        assert (shares["burst"].served > shares["fresh"].served) is (pause == 0.0)


def test_a_team_pays_what_its_requests_took_in_truth() -> None:
    """Expected 1,000 tokens and took none: it is as if it had never come."""
    pool = Slots(1)
    cheap, dear = ticket("cheap", prompt=0, expected=1_000), ticket("dear", prompt=0, expected=10)
    for each, completion in ((cheap, 0), (dear, 500)):
        pool.offer(each)
        pool.end(each, 0.0, completion)
    shares = pool.queue._pools[POOL].band(Priority.STANDARD).queue._shares
    assert shares["cheap"].served == 0.0
    assert shares["dear"].served == pytest.approx(1_000.0 * pool.queue._fading.weight(0.0))


def test_counters_survive_years() -> None:
    """Service counts the more the later it is; before numbers run out they are scaled down, what runs included."""
    pool = Slots(4, replace(AdmissionSpec(), half_life=1.0))
    early = ticket("a", expected=1_000)
    pool.offer(early, 0.0)
    now = REBASE_AFTER - 1.0
    other = ticket("b", expected=100)
    pool.offer(other, now)
    pool.offer(ticket("c"), now + 5.0)
    shares = pool.queue._pools[POOL].band(Priority.STANDARD).queue._shares
    assert shares["b"].reserved == pytest.approx(300.0 / 2**5)
    pool.end(other, now + 6.0, 0)
    assert shares["b"].served == pytest.approx(100.0 / 2**5)
    assert shares["b"].reserved == 0.0
    pool.end(early, now + 6.0)
    for year in range(1, 4):
        later = year * 31_536_000.0
        last = ticket("a")
        assert pool.offer(last, later) is State.ADMITTED
        pool.end(last, later)
