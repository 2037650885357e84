"""What a routing decision costs in CPU: by preset and number of replicas, and for a long prompt.

``python -m bench.routing`` prints a table, writes ``docs/bench/routing.json`` and exits 1 when a bar is missed. Figures
are CPU seconds of this process (``time.process_time``), the best of several rounds, so that other load on the machine
counts as little as possible.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

from gateway.app import load_policies
from gateway.config.snapshot import BackendSpec, Capabilities, Capacity
from gateway.engines.catalogue import ENGINES
from gateway.fleet.booking import Booking
from gateway.fleet.prefix import chain
from gateway.fleet.snapshot import Candidate, Endpoint, Replica
from gateway.routing.interface import RouteRequest
from gateway.routing.pipeline import Policy, decide
from gateway.routing.prompt import text
from gateway.types.call import Need
from gateway.types.money import Rates

OUT = Path(__file__).parents[1] / "docs" / "bench" / "routing.json"
ROUNDS = 40
BARS_US = {"8 replicas": 40.0, "64 replicas": 150.0, "prompt of 32k tokens": 1_000.0, "8, with its books": 60.0}
PRICE = Rates(100_000, 300_000).resolved()
BUSY = 12
"""Requests in flight on every replica."""


def fleet(count: int) -> tuple[Candidate, ...]:
    """Return candidates on ``count`` busy replicas."""
    endpoint = Endpoint(
        slug="own",
        model_id="m",
        provider="own",
        quantization=None,
        region=None,
        price=PRICE,
        price_id=1,
        context_length=131_072,
        max_output=None,
        capabilities=Capabilities(),
    )
    made = []
    for number in range(count):
        spec = BackendSpec(
            f"gpu-{number}",
            "vllm",
            "http://127.0.0.1",
            "own",
            usd_per_hour=4_600_000_000,
            capacity=Capacity(256, 312_000),
        )
        replica = Replica(spec.name, spec, ENGINES["vllm"])
        replica.load.kv_tokens = 312_000
        made.append(Candidate(endpoint, replica, "m", None, 0, f"own/gpu-{number}"))
    for number, candidate in enumerate(made):
        for each in range(BUSY):
            blocks = chain(b"%d %d " % (number, each) * 2_000)
            booking = Booking(candidate.replica.load, request(blocks=blocks).work(), 999.0 + each / 100)
            if each < BUSY - 1:
                booking.answered(999.5 + each / 100)
    return tuple(made)


def request(**changes: Any) -> RouteRequest:
    """Return a plain chat request."""
    fields: dict[str, Any] = {
        "model_id": "m",
        "needs": Need.NONE,
        "prompt_tokens": 1_000,
        "prompt_tokens_exact": False,
        "max_tokens": None,
        "choices": 1,
        "expected_tokens": 256,
        "stream": True,
        "team": "bench",
        "preset": None,
        "now": 1_000.0,
    }
    return RouteRequest(**(fields | changes))


def best_us(work: Callable[[], object], count: int) -> float:
    """Return the CPU microseconds of one ``work``, in the best of several rounds of ``count``."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = process_time()
        for _ in range(count):
            work()
        best = min(best, (process_time() - started) / count)
    return best * 1e6


def body(size: int) -> dict[str, Any]:
    """Return a chat request of ``size`` bytes of text that differ from block to block."""
    words = " ".join(str(number * 7_919) for number in range(size // 6))
    return {"messages": [{"role": "user", "content": words[:size]}]}


def decision(policy: Policy, candidates: tuple[Candidate, ...], asked: dict[str, Any]) -> Callable[[], object]:
    """Return the whole of a decision: the request, its blocks where the policy reads prompts, the plan."""
    rng, size = Random(1), len(asked["messages"][0]["content"])

    def decided() -> object:
        blocks = chain(text(asked)) if policy.reads_prompts else ()
        return decide(request(prompt_tokens=size // 4, blocks=blocks), candidates, policy, rng)

    return decided


def traffic(policy: Policy, count: int, asked: dict[str, Any]) -> Callable[[], object]:
    """Return one request more on a busy fleet: the decision, and in the replicas' books its beginning and end.

    A thousand requests come a second. Each is answered when half of those in flight came after it, and ends when all of
    them did, with what is learned from it; its prompt shares nothing with the others'.
    """
    rng, candidates, size = Random(1), fleet(count), len(asked["messages"][0]["content"])
    open_: deque[Booking] = deque()
    clock, content = [1_000.0], asked["messages"][0]["content"]
    most = BUSY * count

    def one() -> object:
        now = clock[0] = clock[0] + 0.001
        asked["messages"][0]["content"] = f"{now:.3f}{content}"
        blocks = chain(text(asked)) if policy.reads_prompts else ()
        asks = request(prompt_tokens=size // 4, blocks=blocks, now=now)
        plan = decide(asks, candidates, policy, rng)
        open_.append(Booking(plan.steps[0].load, asks.work(), now))
        if len(open_) > most:
            open_.popleft().ended(now, 64)
            open_[-most // 2].answered(now)
        return plan

    return one


def main() -> int:
    """Measure, print, write; return 1 when a bar is missed."""
    policies = load_policies()
    few, many, short, long = fleet(8), fleet(64), body(800), body(131_072)
    rows: list[dict[str, Any]] = []
    for name, policy in policies.items():
        found = {
            "8 replicas": best_us(decision(policy, few, short), 100),
            "64 replicas": best_us(decision(policy, many, short), 30),
            "prompt of 32k tokens": best_us(decision(policy, few, long), 8),
            "8, with its books": best_us(traffic(policy, 8, body(800)), 100),
        }
        rows.append({"policy": name} | {what: round(value, 1) for what, value in found.items()})
    sys.stdout.write(f"{'policy':20}" + "".join(f"{what:>24}" for what in BARS_US) + "   (CPU us)\n")
    for row in rows:
        sys.stdout.write(f"{row['policy']:20}" + "".join(f"{row[what]:24.1f}" for what in BARS_US) + "\n")
    sys.stdout.write(f"{'bar':20}" + "".join(f"{bar:24.0f}" for bar in BARS_US.values()) + "\n")
    OUT.write_text(json.dumps({"unit": "CPU microseconds", "bars": BARS_US, "rows": rows}, indent=2) + "\n")
    missed = [(row["policy"], what) for row in rows for what, bar in BARS_US.items() if row[what] > bar]
    for name, what in missed:
        sys.stdout.write(f"missed: {name}, {what}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
