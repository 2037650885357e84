"""The lab replays a trace through the gateway's own routing, books, breaker and admission, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from gateway.app import load_policies
from gateway.lab.figures import Figures, figures
from gateway.lab.job import Fate
from gateway.lab.setting import External, Setting
from gateway.lab.trace import Arrival, Trace, chained
from gateway.lab.world import Replay, replay
from gateway.stepmodel import PROFILES

FAST = Setting(PROFILES["fast"], replicas=2)


def workload(count: int = 400, rate: float = 4.0, prompt: int = 600, *, teams: int = 1, chats: int = 0) -> Trace:
    """Return requests at random moments; ``chats`` prefixes of half a prompt are shared by all."""
    draw, at, made = Random(7), 0.0, []
    for number in range(count):
        at += draw.expovariate(rate)
        size = max(32, int(draw.lognormvariate(0.0, 0.5) * prompt))
        ids = [draw.randrange(chats) if chats else number, *[number * 1_000 + place for place in range(size // 512)]]
        shared = [ids[0] * 7 + place for place in range(prompt // 1_024)] if chats else []
        made.append(
            Arrival(at, size, draw.randrange(1, 200), f"team-{number % teams}", chain=chained([*shared, *ids[1:]]))
        )
    return Trace("made", 512, tuple(made))


def run(trace: Trace, setting: Setting = FAST, policy: str = "balanced", seed: int = 1) -> tuple[Replay, Figures]:
    """Replay ``trace`` and judge it."""
    result = replay(trace, setting, lambda: load_policies()[policy], seed=seed)
    return result, figures(policy, seed, trace, result)


def test_every_request_is_served_when_there_is_room() -> None:
    """Nobody is lost, tokens come in order, and times are those of the engines."""
    result, found = run(workload())
    assert (found.requests, found.rejected) == (400, 0)
    assert found.slo_attainment > 0.99
    for job in result.jobs:
        assert job.first_at is not None
        assert job.ended_at is not None
        assert job.at < job.first_at <= job.ended_at
    assert len(result.sent) == 400
    assert found.ttft_p50_s is not None
    assert 0.03 < found.ttft_p50_s < 1.0
    assert found.usd_per_1k_requests == pytest.approx(2 * 4.6 * result.span / 3_600 / 400 * 1_000)


def test_equal_seeds_give_equal_worlds_and_others_do_not() -> None:
    """A result can be had again: everything random comes from the seed."""
    trace = workload(150)
    assert run(trace, seed=5)[1] == run(trace, seed=5)[1]
    assert run(trace, seed=5)[1] != run(trace, seed=6)[1]


@pytest.mark.parametrize("policy", ["round_robin", "least_request", "p2c", "cache_aware"])
def test_the_peers_policies_run_in_the_same_world(policy: str) -> None:
    """Other routers' rules are presets like ours."""
    _, found = run(workload(120), policy=policy)
    assert (found.policy, found.rejected) == (policy, 0)


def test_an_overload_costs_what_it_would_in_life() -> None:
    """Beyond capacity queues grow and the SLO is lost; with admission some are turned away and others kept."""
    trace = workload(1_500, rate=60.0, prompt=4_000)
    _, open_ = run(trace)
    _, guarded = run(trace, replace(FAST, admission=True))
    assert open_.rejected == 0
    assert open_.slo_attainment < 0.5
    assert open_.ttft_p99_s is not None
    assert open_.ttft_p99_s > 5
    assert guarded.ttft_error is not None
    assert guarded.requests == 1_500


def test_a_dead_replica_costs_no_request() -> None:
    """What it had is asked again elsewhere, streams go on, and it serves again when it is back."""
    trace = workload(300, rate=4.0)
    result, found = run(trace, replace(FAST, faults=("death",)))
    assert found.rejected == 0
    assert len(result.sent) > 300
    start, end = result.span / 3, 2 * result.span / 3
    homes = {job.candidate.replica.name for job in result.jobs if job.candidate and job.at > end + 5}
    dead = {job.candidate.replica.name for job in result.jobs if job.candidate and start + 5 < job.at < end - 5}
    assert homes == {"gpu-0", "gpu-1"}
    assert dead == {"gpu-1"}


def test_an_outage_is_not_made_worse_by_retries() -> None:
    """When everything is down requests fail quickly, and the tries stay within the retry budget."""
    trace = workload(1_000, rate=8.0)
    result, found = run(trace, replace(FAST, faults=("outage",)))
    start = result.span / 3
    arrived = sum(start <= job.at < start + 30 for job in result.jobs)
    tried = sum(start <= at < start + 30 for at in result.sent)
    assert arrived > 100
    assert tried <= 10 + 1.1 * arrived
    assert 0 < found.rejected < 400
    assert {job.fate for job in result.jobs} <= {Fate.SERVED, Fate.REJECTED, Fate.FAILED}


@pytest.mark.parametrize("fault", ["slow", "frozen", "silent"])
def test_traffic_goes_on_whatever_the_metrics_say(fault: str) -> None:
    """Late, frozen or missing gauges and a slow replica are no reason to refuse anybody."""
    _, found = run(workload(), replace(FAST, faults=(fault,)))
    assert found.rejected == 0


def test_gateways_that_do_not_talk_share_the_fleet() -> None:
    """Requests come to each in turn, each keeps its own books, and all are served."""
    result, found = run(workload(), replace(FAST, gateways=3))
    assert found.rejected == 0
    assert {job.gateway for job in result.jobs} == {0, 1, 2}


def test_an_external_api_has_a_price_and_limits() -> None:
    """Alone it serves what its limits allow, at its price; what goes beyond is told and rejected."""
    trace = workload(300, rate=10.0)
    api = External(rpm=100)
    result, found = run(trace, replace(FAST, replicas=0, external=api))
    served = [job for job in result.jobs if job.fate is Fate.SERVED]
    assert 90 <= len(served) <= 110
    assert found.rejected == 300 - len(served)
    due = sum(one.arrival.prompt_tokens * 0.16 + one.arrival.answer_tokens * 0.64 for one in served) / 1e6
    assert result.usd == pytest.approx(due)


def test_a_shared_prefix_is_found_again() -> None:
    """The engines' caches hit what the trace shares, no more than one endless cache would."""
    trace = workload(400, prompt=8_192, rate=1.0, chats=2)
    _, found = run(trace)
    assert found.hit_ratio is not None
    assert 0.05 < found.hit_ratio <= found.ideal_hit_ratio


def test_a_setting_that_makes_no_sense_is_refused() -> None:
    """A fleet of nothing, no gateway, an unknown fault."""
    for change in ({"replicas": 0}, {"gateways": 0}, {"faults": ("earthquake",)}):
        with pytest.raises(ValueError, match="there"):
            replace(FAST, **change)
