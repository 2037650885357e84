"""The demo's past, row by row: pure, and the same for the same seed.

Volume goes by growth, launches, weekdays, the hours of the recorded clients and a little chance. A row stands for very
many requests of a kind: tokens and generation time are their sums, times to the first token and to the end are those of
one of them. That is how a small ledger holds days of more than 10**12 tokens; it is said wherever the demo is shown.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from random import Random
from typing import Final

from gateway.metering.record import Close, Dimensions, RowKind, Status
from gateway.pricing.charge import charge, rates_id
from gateway.sim.history.cast import (
    CREWS,
    OUTAGE,
    OUTAGE_HOURS,
    PROGRAMS,
    STARS,
    Crew,
    Outlet,
    Program,
    Star,
)
from gateway.types.charge import NO_CHARGE
from gateway.types.money import Rates
from gateway.types.tokens import NO_USAGE, Usage, UsageSource

MADE_UP: Final = "made-up"
"""End-user id of every row."""
CELLS: Final = {"m-large": 6, "m-mid": 3, "m-small": 3}
"""Groups of requests that a model of a tier has."""
LATELY: Final = 14
"""Days before day 0 since which boards by the hour may be asked for."""
STEP: Final = 3
"""Hours between two rows of a group, lately."""
EARLIER_STEP: Final = 6
"""The same before that."""
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Client:
    """A recorded client: requests per second, each hour's rate in percent, mean tokens by quarter of the day."""

    rate: float
    hours: Sequence[int]
    input: Sequence[int]
    output: Sequence[int]


@dataclass(frozen=True, slots=True)
class Cell:
    """Requests of one kind: a model, a team's key and an app, at the times and in the sizes of a recorded client.

    Attributes:
        number: unique.
        share: of the model's tokens, 0 to 1.
        shift: hours by which its day is moved.
        cached: share of the prompt that is read from a cache.
        labels: what the rows of each outlet of the model are counted by.
    """

    number: int
    star: Star
    crew: Crew
    client: Client
    share: float
    shift: int
    cached: float
    labels: Mapping[str, Dimensions]


def rates() -> dict[int, Rates]:
    """Return all rates of the past by their ids."""
    found = [star.price for star in STARS]
    found += [outlet.cost for star in STARS for outlet in star.outlets if outlet.cost is not None]
    return {rates_id(each): each for each in found}


def past(seed: int, anchor: int, first: int, last: int) -> Iterator[Close]:
    """Yield the rows of the days ``first`` to ``last`` in the order of time.

    Args:
        seed: of all chance.
        anchor: UTC day that counts as day 0.
        first: first UTC day, counted from 1970.
        last: last UTC day.
    """
    cells = _cells(seed)
    for day in range(first, last + 1):
        random = Random(f"{seed} {day}")  # noqa: S311 - a demo's dice
        volumes = {star.id: _volume(star, day - anchor, random) for star in STARS}
        rows: list[Close] = []
        for cell in cells:
            volume = volumes[cell.star.id] * cell.share * _weekday(cell.crew, day)
            if volume > 0:
                rows += _rows(seed, cell, volume, day, anchor, random)
        rows.sort(key=lambda row: row.request_id)
        yield from rows


@cache
def _clients() -> dict[str, list[Client]]:
    """Return the recorded clients by tier, the busiest first."""
    text = resources.files("gateway.sim.history").joinpath("clients.json").read_text("utf-8")
    found: dict[str, list[Client]] = {}
    for each in json.loads(text):
        client = Client(each["rate"], each["hours"], each["input"], each["output"])
        found.setdefault(each["model"], []).append(client)
    return found


@cache
def _cells(seed: int) -> tuple[Cell, ...]:
    """Return the groups of requests: each model's, with the recorded clients of its tier dealt out to teams."""
    random = Random(f"{seed} cells")  # noqa: S311 - a demo's dice
    cells: list[Cell] = []
    for star in STARS:
        clients = random.sample(_clients()[star.tier], CELLS[star.tier])
        weights = [math.sqrt(client.rate) * random.uniform(0.7, 1.3) for client in clients]
        crews = random.sample(CREWS, CELLS[star.tier])
        for client, weight, crew in zip(clients, weights, crews, strict=True):
            program = random.choice([each for each in PROGRAMS if each.team == crew.slug])
            key_id = random.choice(crew.keys)
            cells.append(
                Cell(
                    number=len(cells),
                    star=star,
                    crew=crew,
                    client=client,
                    labels={
                        outlet.backend: _dimensions(star, crew, key_id, program, outlet) for outlet in star.outlets
                    },
                    share=weight / sum(weights),
                    shift=random.choice((0, 0, 0, 5, 16)),
                    cached=random.choice((0.0, 0.15, 0.45)) if star.price.cache_read is not None else 0.0,
                )
            )
    return tuple(cells)


def _volume(star: Star, day: int, random: Random) -> float:
    """Return a model's tokens on a plain weekday, ``day`` days after day 0."""
    noise = random.lognormvariate(0.0, 0.035)
    if day < star.launched:
        return 0.0
    ramp = 1 - math.exp(-(day - star.launched + 1) / 9)
    return star.tokens * math.exp(star.growth * day / 90) * ramp * noise


def _weekday(crew: Crew, day: int) -> float:
    weekday = (day + 3) % 7  # 1970-01-01 was a Thursday
    return crew.weekend if weekday >= 5 else (0.98, 1.04, 1.06, 1.03, 0.93)[weekday]


def _rows(seed: int, cell: Cell, volume: float, day: int, anchor: int, random: Random) -> Iterator[Close]:
    """Yield the rows of a group on one day: one for every few hours, with the volume of them all."""
    step = STEP if day - anchor >= -LATELY else EARLIER_STEP
    hours = [cell.client.hours[(hour - cell.shift) % 24] for hour in range(24)]
    whole = sum(hours)
    for hour in range(cell.number % step, 24, step):
        part = sum(hours[(hour + more) % 24] for more in range(step)) / whole
        tokens = volume * part * random.uniform(0.93, 1.07)
        away = day - anchor == OUTAGE and hour in OUTAGE_HOURS
        outlet = random.choices(cell.star.outlets, [each.share for each in cell.star.outlets])[0]
        start_ms = (day * 24 + hour) * _HOUR_MS + random.randrange(_HOUR_MS)
        request_id = _request_id(seed, start_ms, cell.number, day * 24 + hour)
        if away and outlet.cost is None:
            # The own GPUs are away: most of it fails, the rest goes elsewhere where there is elsewhere.
            yield _failed(cell, outlet, request_id, start_ms)
            others = [each for each in cell.star.outlets if each.cost is not None]
            if others and random.random() < 0.6:
                yield _answered(cell, others[0], request_id, start_ms, tokens * 0.35, hour, random, attempt=2, slow=3.0)
        else:
            yield _answered(cell, outlet, request_id, start_ms, tokens, hour, random, slow=2.0 if away else 1.0)


def _answered(
    cell: Cell,
    outlet: Outlet,
    request_id: bytes,
    start_ms: int,
    tokens: float,
    hour: int,
    random: Random,
    *,
    attempt: int = 1,
    slow: float = 1.0,
) -> Close:
    """Return a row of requests that were answered, or left by their callers now and then."""
    quarter = (hour - cell.shift) % 24 // 6
    given, made = cell.client.input[quarter], cell.client.output[quarter]
    prompt = round(tokens * given / (given + made))
    completion = max(1, round(tokens) - prompt)
    usage = Usage(prompt, completion, cache_read=round(prompt * cell.cached))
    pace = cell.star.pace * random.uniform(0.85, 1.1) / slow
    wait = cell.star.wait * random.lognormvariate(0.0, 0.3) * slow
    return Close(
        request_id,
        attempt,
        RowKind.USAGE,
        cell.labels[outlet.backend],
        start_ms * 1000,
        Status.CLIENT_CANCEL if random.random() < 0.015 else Status.OK,
        "stop",
        200,
        usage,
        UsageSource.ESTIMATED,
        charge(usage, cell.star.price),
        NO_CHARGE if outlet.cost is None else charge(usage, outlet.cost),
        round(wait * 1e6),
        round((wait + made / pace) * 1e6),
        round(completion / pace * 1e6),
    )


def _failed(cell: Cell, outlet: Outlet, request_id: bytes, start_ms: int) -> Close:
    """Return the row of an attempt that found no engine."""
    return Close(
        request_id,
        1,
        RowKind.USAGE,
        cell.labels[outlet.backend],
        start_ms * 1000,
        Status.FAILED,
        http_status=503,
        usage=NO_USAGE,
        duration_us=5_000_000,
        error="provider_unavailable",
    )


def _dimensions(star: Star, crew: Crew, key_id: str, program: Program, outlet: Outlet) -> Dimensions:
    return Dimensions(
        team=crew.slug,
        key_id=key_id,
        model=star.id,
        endpoint=outlet.slug,
        backend=outlet.backend,
        provider=outlet.provider,
        app=program.host,
        tier="default",
        operation="chat",
        requested_model=star.id,
        upstream_model=star.id.partition("/")[2],
        user=MADE_UP,
        streamed=True,
        price_id=rates_id(star.price),
        cost_id=0 if outlet.cost is None else rates_id(outlet.cost),
    )


def _request_id(seed: int, start_ms: int, cell: int, hour: int) -> bytes:
    """Return a UUIDv7 that begins at ``start_ms`` and is otherwise made of the seed, the group and the hour."""
    digest = hashlib.blake2b(f"{seed} {cell} {hour}".encode(), digest_size=10, person=b"weir demo").digest()
    return (
        start_ms.to_bytes(6, "big") + bytes((0x70 | digest[0] & 0x0F, digest[1], 0x80 | digest[2] & 0x3F)) + digest[3:]
    )
