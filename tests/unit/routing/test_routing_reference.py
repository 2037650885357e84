"""The quick decision comes to what the plain formulas come to, whatever has happened on the fleet before."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.snapshot import BackendSpec, Capacity
from gateway.fleet.booking import Booking
from gateway.fleet.build import build
from gateway.fleet.snapshot import Candidate
from gateway.routing.interface import RouteRequest
from gateway.routing.outlook import outlook
from gateway.routing.pipeline import Policy, decide
from gateway.routing.registry import PolicyRegistry
from gateway.types.money import Rates
from policies import BUILTIN
from tests.fakes.fleet import MODEL, backend, endpoint, model, price_id, route_request, snapshot
from tests.unit.routing import reference

PRESET = b"""
description: What the reference knows.
filters: [{name: capability}, {name: context}, {name: health}]
tiers: [{name: slo}, {name: affinity}]
scorers: [{name: time}, {name: cost}]
picker: {name: best, params: {near: 0.02, explore: 0.01}}
"""
POLICY: Policy = PolicyRegistry(BUILTIN).build("plain", PRESET, "plain.yaml")
EVENTS = 40
CLOSE = 1e-9


def some_fleet(random: Random) -> tuple[Candidate, ...]:
    """Return up to twelve replicas: own ones with and without a price, small ones, external APIs."""
    backends, endpoints = [], []
    hourly = random.choice([None, 4_600_000_000, 0])
    for number in range(random.randint(1, 12)):
        if random.random() < 0.15:
            spec = backend(f"api-{number}", kind="openai", provider="api")
            made = endpoint(spec, cost=Rates(150_000, 500_000, cache_read=random.choice([None, 15_000])))
        else:
            price = hourly if random.random() < 0.8 else 2_000_000_000
            spec = backend(f"gpu-{number}", usd_per_hour=price, capacity=some_capacity(random))
            made = endpoint(spec)
        backends.append(spec)
        endpoints.append(made)
    return build(snapshot(backends, [model(endpoints)]), None, price_id).models[MODEL].candidates


def some_capacity(random: Random) -> Capacity:
    """Return what an owner may say of a replica, or nothing."""
    if random.random() < 0.5:
        return BackendSpec("x", "vllm", "http://x", "own").capacity
    return Capacity(max_running=random.choice([4, 256]), kv_tokens=random.choice([None, 20_000, 300_000]))


class Traffic:
    """Requests that come, begin to be answered and end at random on replicas of a fleet."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.candidates = some_fleet(random)
        self.now = 1_000.0
        self.open: list[Booking] = []
        self.families = [random.sample(range(1, 2**60), 40) for _ in range(3)]

    def request(self) -> RouteRequest:
        """Return a request that shares a prefix with others, or none."""
        random = self.random
        length = random.choice([0, 0, 1, 5, 40])
        blocks = tuple(random.choice(self.families)[:length]) + ((random.getrandbits(60),) if length else ())
        return route_request(
            now=self.now,
            prompt_tokens=random.choice([0, 1, 63 * length, 64 * length + 37, random.randint(1, 30_000)]),
            expected_tokens=random.randint(1, 2_000),
            choices=random.choice([1, 1, 2]),
            blocks=blocks,
            slo_ttft=random.choice([None, None, 0.3, 3.0]),
            slo_itl=random.choice([None, None, 0.02]),
        )

    def step(self) -> None:
        """Let one thing happen."""
        random = self.random
        self.now += random.random() * 0.03
        chance = random.random()
        load = random.choice(self.candidates).load
        if chance < 0.5 or not self.open:
            booking = Booking(load, self.request().work(), self.now, whole=random.random() < 0.3)
            if random.random() < 0.3:
                booking.departs(self.now + 0.001)
            self.open.append(booking)
        elif chance < 0.7:
            random.choice(self.open).answered(self.now)
        elif chance < 0.85:
            self.open.pop(random.randrange(len(self.open))).ended(self.now, random.choice([0, 1, 50]))
        elif chance < 0.97:
            running, waiting = random.choice([(None, None), (random.randint(0, 40), random.choice([None, 0, 4]))])
            load.reported(running, waiting, random.choice([None, random.random()]), self.now)
        else:
            random.choice(self.open).cached_in_truth(random.randint(0, 2_000))


def agrees(request: RouteRequest, candidates: Sequence[Candidate], seed: int) -> None:
    """Check one decision: what is predicted, the scores, and the order of the plan."""
    view = outlook(request, candidates)
    met = [reference.expected(request, candidate) for candidate in candidates]
    assert view.cached == pytest.approx([each.cached for each in met], rel=CLOSE)
    assert view.ttft == pytest.approx([each.ttft for each in met], rel=CLOSE)
    assert view.itl == pytest.approx([each.itl for each in met], rel=CLOSE)
    assert view.full(request) == pytest.approx([each.full for each in met], rel=CLOSE)
    assert view.engine(request) == pytest.approx([each.engine for each in met], rel=CLOSE)
    request.outlook = None
    plan = decide(request, candidates, POLICY, Random(seed))
    assert plan.scores == pytest.approx(reference.scores(request, candidates), rel=CLOSE)
    order = [candidates.index(step) for step in plan.steps]
    assert order == reference.order(request, candidates, Random(seed))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_quick_decision_is_the_plain_one(seed: int) -> None:
    """After every single thing that happens predictions, scores and picks are those of the reference."""
    traffic = Traffic(Random(seed))
    for number in range(EVENTS):
        traffic.step()
        agrees(traffic.request(), traffic.candidates, seed + number)
    traffic.now += 7.0  # averages age
    agrees(traffic.request(), traffic.candidates, seed)
