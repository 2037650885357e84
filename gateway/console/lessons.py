"""What a calibration found, learned by every worker: each has an estimate of its own for every backend.

While the keeper is away nothing is new; nothing here raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from gateway.beat import paused
from gateway.console.question import CALIBRATIONS, Calibration, Sample
from gateway.fleet.estimate import Estimate, attended
from gateway.fleet.snapshot import Replica
from gateway.types.errors import WeirError
from gateway.types.method import Asking

PASSES: Final = 12
"""Times that the samples are learned from: each is clipped, so that one alone moves an estimate a little."""
EVERY_S: Final = 3.0


def learn(estimate: Estimate, samples: Sequence[Sample]) -> None:
    """Teach ``estimate`` the samples, again and again: a few of them, measured on purpose, weigh as much as traffic."""
    for _ in range(PASSES):
        for each in samples:
            step = estimate.pace(each.batch, each.context)
            estimate.learn_ttft(each.tokens, attended(each.tokens, 0), step, each.ttft)
            if each.itl is not None:
                estimate.learn_itl(each.batch + 1, each.context + each.tokens, 0.0, each.itl)


def error_of(estimate: Estimate, samples: Sequence[Sample]) -> float:
    """Return how far ``estimate`` is off, as a share of the measured times to first token, in the median."""
    errors = sorted(abs(_predicted(estimate, each) - each.ttft) / max(each.ttft, 1e-4) for each in samples)
    return errors[len(errors) // 2]


def _predicted(estimate: Estimate, sample: Sample) -> float:
    step = estimate.pace(sample.batch, sample.context)
    return estimate.ttft(sample.tokens, attended(sample.tokens, 0), step)


class Learner:
    """Has the replicas of a process learn every calibration once; one that starts to be estimated anew learns again."""

    def __init__(self) -> None:
        self._learned: dict[str, tuple[str, Estimate]] = {}

    def take(self, calibrations: Sequence[Calibration], replicas: Mapping[str, Replica]) -> None:
        """Learn what is new."""
        for each in calibrations:
            replica = replicas.get(each.backend)
            if replica is None or each.measured is None:
                continue
            estimate = replica.load.estimate
            known = self._learned.get(each.backend)
            if known is None or known[0] != each.run_id or known[1] is not estimate:
                learn(estimate, each.measured.samples)
                replica.load.facts = None
                self._learned[each.backend] = (each.run_id, estimate)


async def follow_calibrations(books: Asking, replicas: Callable[[], Mapping[str, Replica]]) -> None:
    """Learn what was measured anywhere, again and again. Runs until cancelled; while the keeper is away nothing is new.

    Args:
        books: the keeper.
        replicas: returns the backends of now by name.
    """
    learner = Learner()
    while True:
        with suppress(WeirError):
            learner.take(await books.ask(CALIBRATIONS), replicas())
        await asyncio.sleep(paused(EVERY_S))
