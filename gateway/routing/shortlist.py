"""The few replicas of a large fleet that are worth a close look.

A close look at a candidate costs microseconds, and with many replicas of one endpoint most are no choice: the least
loaded ones and those that have the prompt cached hold the best. Pure; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.fleet.snapshot import Candidate, Endpoint
from gateway.routing.interface import RouteRequest

LONGEST: Final = 12
"""Replicas of an endpoint beyond which only the promising ones are looked at."""
LEAST_LOADED: Final = 8
CACHED: Final = 4
"""How many of either sort are promising."""


def shortlist(request: RouteRequest, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return the promising candidates of each endpoint, in their order.

    A replica counts as having the prompt when it has four fifths of its blocks.
    """
    blocks = request.blocks
    mark = blocks[len(blocks) * 4 // 5] if blocks else 0
    endpoints: dict[str, list[tuple[int, int, int]]] = {}
    cached: dict[str, list[int]] = {}
    endpoint: Endpoint | None = None
    rows: list[tuple[int, int, int]] = []
    for index, candidate in enumerate(candidates):
        if candidate.endpoint is not endpoint:  # replicas of one endpoint stand side by side
            endpoint = candidate.endpoint
            rows = endpoints.setdefault(endpoint.slug, [])
        load = candidate.load
        rows.append((load.in_flight + load.foreign, load.waiting_tokens, index))
        if mark and mark in load.prefix.stamps:
            cached.setdefault(candidate.endpoint.slug, []).append(index)
    chosen: list[int] = []
    for slug, rows in endpoints.items():
        if len(rows) <= LONGEST:
            chosen += [row[2] for row in rows]
            continue
        rows.sort()
        chosen += {*[row[2] for row in rows[:LEAST_LOADED]], *cached.get(slug, ())[:CACHED]}
    chosen.sort()
    return [candidates[index] for index in chosen]
