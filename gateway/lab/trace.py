"""A workload: when requests came, how long prompt and answer were, whose they were, and which prefixes they share.

Plain values; reading them from files is ``gateway.lab.formats``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

LONGEST_DAYS: Final = 31
"""Days that a replay may last: gauges are read every second of them."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace.

    Attributes:
        at: seconds since the beginning of the trace.
        prompt_tokens: length of the prompt.
        answer_tokens: length of the answer.
        team: who asked, ``""`` when the trace does not say.
        model: which model was asked for, ``""`` when the trace does not say.
        chain: chain hashes of the prompt's blocks of ``Trace.block_tokens`` tokens, first one first; equal leading
            hashes are equal prefixes. Empty when the trace does not say.
    """

    at: float
    prompt_tokens: int
    answer_tokens: int
    team: str = ""
    model: str = ""
    chain: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of a trace that is no request: its 1-based number and what is wrong with it."""

    number: int
    reason: str


class TraceError(Exception):
    """A trace cannot be used; the message names the file and, where there is one, the line."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A workload.

    Attributes:
        name: the file it came from.
        block_tokens: tokens behind each hash of a chain.
        arrivals: requests by time; at least one.
        bad: lines that were left out.
        too_long: requests that were left out because no engine here could hold them.
    """

    name: str
    block_tokens: int
    arrivals: tuple[Arrival, ...]
    bad: tuple[BadLine, ...] = ()
    too_long: int = 0

    @property
    def span(self) -> float:
        """Seconds from the first to the last request; never 0."""
        return max(self.arrivals[-1].at - self.arrivals[0].at, 1e-9)

    @property
    def ideal_hit_ratio(self) -> float:
        """Share of prompt tokens that one cache without limits would have known."""
        known: set[int] = set()
        hit = total = 0
        for arrival in self.arrivals:
            total += arrival.prompt_tokens
            matched = 0
            for key in arrival.chain:
                if key not in known:
                    break
                matched += 1
            known.update(arrival.chain)
            # Engines share full blocks only, and always read the last token again.
            hit += min(matched, (arrival.prompt_tokens - 1) // self.block_tokens) * self.block_tokens
        return hit / total

    def scaled(self, factor: float) -> Trace:
        """Return the same requests at ``factor`` times the rate, from time 0 on.

        Raises ``TraceError`` when they take so long that no replay would end, as they do where units are mixed.
        """
        start, days = self.arrivals[0].at, self.span / factor / 86_400
        if days > LONGEST_DAYS:
            raise TraceError(
                f"{self.name} lasts {days:.0f} days at this rate, more than {LONGEST_DAYS}: look whether all of its "
                "times have the unit of its form, take a --window of it, or a higher --rate"
            )
        return replace(
            self, arrivals=tuple(replace(arrival, at=(arrival.at - start) / factor) for arrival in self.arrivals)
        )

    def repeated(self, times: int) -> Trace:
        """Return the requests ``times`` times over, one run after the other, with prefixes of its own in each run."""
        start, period = self.arrivals[0].at, self.span * (1 + 1 / len(self.arrivals))
        return replace(
            self,
            arrivals=tuple(
                replace(
                    arrival,
                    at=arrival.at - start + run * period,
                    chain=tuple(hash((run, key)) for key in arrival.chain) if run else arrival.chain,
                )
                for run in range(times)
                for arrival in self.arrivals
            ),
        )

    def window(self, start: float, end: float) -> Trace:
        """Return the requests of seconds ``start`` up to, not including, ``end``. Raises ``TraceError`` for none."""
        found = tuple(arrival for arrival in self.arrivals if start <= arrival.at < end)
        if not found:
            raise TraceError(f"{self.name} has no request between {start:g} s and {end:g} s")
        return replace(self, arrivals=found)

    def limited(self, tokens: int) -> Trace:
        """Return the requests of at most ``tokens`` tokens of prompt and answer; the others are counted."""
        kept = tuple(one for one in self.arrivals if one.prompt_tokens + one.answer_tokens <= tokens)
        if not kept:
            raise TraceError(f"{self.name} has no request of at most {tokens} tokens")
        return replace(self, arrivals=kept, too_long=self.too_long + len(self.arrivals) - len(kept))


def chained(ids: Sequence[int]) -> tuple[int, ...]:
    """Return chain hashes of block ``ids``: each stands for its block and all before it."""
    chain, parent = [], 0
    for id_ in ids:
        parent = hash((parent, id_))
        chain.append(parent)
    return tuple(chain)


def named(path: Path) -> str:
    """Return what people call the trace in ``path``."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
