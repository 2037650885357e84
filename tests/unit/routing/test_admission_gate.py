"""Promises of the gate: nothing in the way while there is room, futures for those who wait, no trace of who left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from gateway.config.snapshot import AdmissionSpec, BackendLimits, Capacity
from gateway.fleet.egress import EgressGuard
from gateway.fleet.health import Health
from gateway.fleet.registry import FleetRegistry
from gateway.routing.admission.capacity import UNLIMITED, FleetCapacity
from gateway.routing.admission.gate import CallerLeft, Gate
from gateway.routing.admission.queue import AdmissionQueue
from gateway.routing.admission.ticket import State, Ticket
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.call import Call, Need, Operation
from gateway.types.errors import Overloaded
from gateway.types.priority import Priority
from gateway.types.reply import Flow
from gateway.types.tokens import Usage
from tests.fakes.admission import Slots
from tests.fakes.fleet import LOOPBACK, MODEL, backend, price_id, snapshot


def fleet_of(*backends: object, **more: object) -> FleetRegistry:
    made = snapshot(list(backends), **more)  # type: ignore[arg-type]  # the names are the caller's
    return FleetRegistry(made, price_id=price_id, guard=EgressGuard(LOOPBACK), health=Health())


def call(model: str = MODEL, **more: object) -> Call:
    made = Call(Operation.CHAT, {}, model, True, False, 1, 100, 400, 100, Need.NONE, False)
    for name, value in more.items():
        setattr(made, name, value)
    return made


class Caller:
    """A reply's steering, and its caller who may leave."""

    def __init__(self) -> None:
        self.flow: Flow | None = None

    def steer(self, flow: Flow) -> None:
        """Take who is to be told."""
        self.flow = flow

    def leave(self) -> None:
        """Leave."""
        assert self.flow is not None
        self.flow.abort()


class Stand:
    """A gate over slots that the test fills and empties."""

    def __init__(self, slots: int = 1, spec: AdmissionSpec | None = None) -> None:
        self.pool = Slots(slots, spec)
        self.metrics = GatewayMetrics("1")
        registry = fleet_of(backend("gpu-a"), aliases={"house": ((MODEL, 1),)})
        loop = asyncio.get_running_loop()
        self.gate = Gate(loop, self.pool.queue, registry, self.metrics)

    def enter(self, **more: object) -> Ticket:
        """Let a call in, or into the queue."""
        ticket = self.gate.enter(call(**more), "search", 100)  # type: ignore[arg-type]  # the names are the caller's
        assert ticket is not None
        if ticket.state is State.ADMITTED:
            self.pool.running.append(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """End a call."""
        if ticket in self.pool.running:
            self.pool.running.remove(ticket)
        self.gate.leave(ticket, Usage(100, 50))

    async def served(self, ticket: Ticket, caller: Caller | None = None) -> None:
        """Wait for the turn of a queued call and take a slot."""
        await self.gate.turn(ticket, caller or Caller())
        self.pool.running.append(ticket)


async def test_while_there_is_room_nobody_waits_and_no_future_is_made() -> None:
    """The usual request passes in one synchronous call."""
    stand = Stand(2)
    made: list[object] = []
    stand.gate._loop = replace_futures(made)
    first, second = stand.enter(), stand.enter(model="house")
    assert (first.state, second.state) == (State.ADMITTED, State.ADMITTED)
    stand.leave(first)
    stand.leave(second)
    stand.gate.leave(None, None)
    assert not made


def replace_futures(made: list[object]) -> asyncio.AbstractEventLoop:
    """Return a loop that notes everything that is asked of it."""

    class Noting:
        def __getattr__(self, name: str) -> object:
            made.append(name)
            raise AssertionError(name)

    return Noting()  # type: ignore[return-value]  # nothing of it may be used


async def test_the_end_of_a_request_lets_the_next_one_in() -> None:
    """Whoever waits goes in the loop step after room was made."""
    stand = Stand()
    running, waiting = stand.enter(), stand.enter()
    assert waiting.state is State.QUEUED
    turn = asyncio.create_task(stand.served(waiting))
    await asyncio.sleep(0)
    assert not turn.done()
    stand.leave(running)
    async with asyncio.timeout(20):
        await turn
    assert stand.pool.running == [waiting]
    stand.leave(waiting)
    assert stand.pool.queue.waiting == 0


async def test_room_that_nobody_announces_is_found() -> None:
    """A first token or fresh gauges make room too; nobody waits for a request to end."""
    stand = Stand()
    stand.enter()
    waiting = stand.enter()
    turn = asyncio.create_task(stand.served(waiting))
    await asyncio.sleep(0)
    stand.pool.slots = 2
    async with asyncio.timeout(20):
        await turn


async def test_who_waits_too_long_is_told_when_to_come_back() -> None:
    """429 with Retry-After, counted by model, band and reason."""
    stand = Stand()
    stand.enter()
    waiting = stand.enter(deadline=0.05, priority=Priority.INTERACTIVE)
    with pytest.raises(Overloaded) as caught:
        await stand.gate.turn(waiting, Caller())
    assert caught.value.code == 429
    assert caught.value.retry_after is not None
    assert caught.value.metadata == {"reason": "deadline", "band": "interactive"}
    stand.gate.leave(waiting, None)
    counted = stand.metrics.admission_refusals.samples()
    assert counted == {(MODEL, "interactive", "deadline"): [1]}
    assert sum(stand.metrics.admission_wait.samples()[MODEL, "interactive"][1:]) == 1


async def test_a_full_queue_refuses_at_once() -> None:
    """Nobody is kept waiting for a refusal that is certain."""
    stand = Stand(spec=replace(AdmissionSpec(), queue_requests=0))
    stand.enter()
    with pytest.raises(Overloaded) as caught:
        stand.enter()
    assert caught.value.metadata["reason"] == "queue_full"


async def test_a_caller_who_leaves_while_waiting_leaves_no_trace() -> None:
    """The wait ends at once, the place is free, and nothing is charged or counted as running."""
    stand = Stand()
    running, waiting, behind = stand.enter(), stand.enter(), stand.enter()
    caller = Caller()
    turn = asyncio.create_task(stand.gate.turn(waiting, caller))
    following = asyncio.create_task(stand.served(behind))
    await asyncio.sleep(0)
    caller.leave()
    with pytest.raises(CallerLeft):
        await turn
    stand.leave(waiting)
    assert stand.pool.queue.waiting == 1
    stand.leave(running)
    async with asyncio.timeout(20):
        await following
    assert stand.gate._turns == {}


async def test_a_caller_who_leaves_in_the_step_of_the_release_gives_the_slot_back() -> None:
    """Released and gone at the same time: the next one gets the slot."""
    stand = Stand()
    running, waiting, behind = stand.enter(), stand.enter(), stand.enter()
    turn = asyncio.create_task(stand.gate.turn(waiting, Caller()))
    following = asyncio.create_task(stand.served(behind))
    await asyncio.sleep(0)
    stand.leave(running)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    stand.leave(waiting)
    async with asyncio.timeout(20):
        await following


async def test_when_nothing_serves_routing_speaks() -> None:
    """No 429 hides that every replica is down; those who wait go on to hear it, too."""
    stand = Stand()
    stand.enter()
    waiting = stand.enter()
    stand.pool.up = False
    async with asyncio.timeout(20):
        await stand.gate.turn(waiting, Caller())
    ticket = stand.gate.enter(call(), "search", 100)
    assert ticket is not None
    assert ticket.state is State.REFUSED
    assert stand.metrics.admission_refusals.samples() == {}
    assert stand.gate.enter(call("no/such"), "search", 100) is None


async def test_switched_off_nobody_waits() -> None:
    """A reload that switches admission off lets everybody go on at once."""
    stand = Stand()
    stand.enter()
    waiting = stand.enter()
    turn = asyncio.create_task(stand.gate.turn(waiting, Caller()))
    await asyncio.sleep(0)
    stand.gate.configure(replace(AdmissionSpec(), enabled=False))
    async with asyncio.timeout(20):
        await turn
    stand.leave(waiting)
    assert stand.pool.queue.waiting == 0
    assert stand.gate.enter(call(), "search", 100) is None


# The room of a fleet


def test_a_fleet_is_as_full_as_its_emptiest_replica() -> None:
    """One replica of two that reads a long prompt leaves the other one's room; the fleet is full when both do."""
    registry = fleet_of(backend("gpu-a"), backend("gpu-b"))
    room = FleetCapacity(registry)
    assert room("no/such", 1.0) is None
    idle = room(MODEL, 1.0)
    assert idle is not None
    assert (idle.saturation, idle.requests) == (0.0, 512.0)
    found = []
    for name in ("gpu-a", "gpu-b"):
        registry.fleet.replicas[name].load.sent(100_000)
        room_now = room(MODEL, 1.0)
        assert room_now is not None
        found.append(room_now.saturation)
    assert found[0] < 0.01
    assert found[1] == 1.0


def test_a_fleet_whose_engines_hold_a_crowd_is_full() -> None:
    """What would wait in engines waits at the gateway, though one replica has room; an external API's room counts."""
    small, api = Capacity(max_running=4), backend("api", kind="openai", provider="api", limits=BackendLimits(rpm=60))
    own = (backend("gpu-a", capacity=small), backend("gpu-b", capacity=small))
    for backends, expected in ((own, [number / 8 for number in range(1, 9)]), ((*own, api), [0.0] * 8)):
        registry = fleet_of(*backends)
        room, found = FleetCapacity(registry), []
        for _ in range(8):
            registry.fleet.replicas["gpu-a"].load.sent(10)
            room_now = room(MODEL, 1.0)
            assert room_now is not None
            found.append(room_now.saturation)
        assert found == expected


def test_what_cannot_be_sent_anything_is_no_room() -> None:
    """Replicas that are down do not count; with none left there is no pool; one that was full a moment ago is full."""
    registry = fleet_of(backend("gpu-a"), backend("gpu-b"))
    room, loads = FleetCapacity(registry), [each.load for each in registry.fleet.replicas.values()]
    loads[0].ready = False
    idle = room(MODEL, 1.0)
    assert idle is not None
    assert idle.saturation == 0.0
    loads[1].cooling_until = 2.0
    full = room(MODEL, 1.0)
    assert full is not None
    assert full.saturation == 1.0
    loads[1].cooling_asked = True
    assert room(MODEL, 1.0) is None
    assert room(MODEL, 3.0) is not None


def test_answers_below_the_pace_fill_a_replica() -> None:
    """Few requests that slow each other down too much are as full as many; a model that is slow everywhere is not."""
    registry = fleet_of(backend("gpu-a"), backend("gpu-b"))
    loads = [each.load for each in registry.fleet.replicas.values()]
    room = FleetCapacity(registry, pace=0.06)
    for load in loads:
        for _ in range(20):
            load.sent(10)

    def full(*steps: tuple[float, float]) -> bool:
        """Whether the fleet is full when its steps take so long, alone and for each request more."""
        for load, (step, per_request) in zip(loads, steps, strict=True):
            load.estimate.step, load.estimate.per_request = step, per_request
            load.facts = None
        found = room(MODEL, 1.0)
        assert found is not None
        return found.saturation == 1.0

    assert not full((0.02, 0.0), (0.02, 0.0))
    assert full((0.02, 0.01), (0.02, 0.01))
    assert full((0.2, 0.0), (0.02, 0.01))  # room where every answer is too slow is of no use
    assert not full((0.2, 0.0), (0.2, 0.0))


def test_an_endpoint_without_limits_is_never_full() -> None:
    """An external API has room for everybody, unless its limits say otherwise."""
    own, outside = backend("gpu-a", capacity=Capacity(max_running=1)), {"provider": "api", "kind": "openai"}
    registry = fleet_of(own, backend("api", **outside))
    registry.fleet.replicas["gpu-a"].load.sent(10)
    assert FleetCapacity(registry)(MODEL, 1.0) == UNLIMITED
    queue = AdmissionQueue(AdmissionSpec(), FleetCapacity(registry), Random(1))
    assert {queue.offer(Ticket(MODEL, "a", Priority.BATCH, 10, 10), 1.0) for _ in range(100)} == {State.ADMITTED}
    limited = fleet_of(own, backend("api", limits=BackendLimits(concurrent=1), **outside))
    found = FleetCapacity(limited)(MODEL, 1.0)
    assert found is not None
    assert found != UNLIMITED
