"""``/api/v1/analytics``: questions to the rollups in OpenRouter's shape, for management keys only.

Rollups keep hours and days, so nothing is apart by minute, and what is in no label of theirs cannot be asked for.
A word that is not known is ``BadRequest`` with those that are (``GET /api/v1/analytics/meta``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response

from gateway.access.management import ManagementKeys
from gateway.admin.analytics import schemas
from gateway.admin.analytics.schemas import DIMENSIONS, META, METRICS, QueryBody, Totals
from gateway.admin.answer import REFUSED, answered
from gateway.admin.body import documented, reader
from gateway.admin.door import management_only
from gateway.admin.keys.schemas import key_hash
from gateway.types.analytics import ANALYTICS, Condition, Question
from gateway.types.errors import BadRequest
from gateway.types.keys import KeyAdmin
from gateway.types.method import Asking

MOST_HOURS: Final = 31 * 24
MOST_DAYS: Final = 366
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_Query = Annotated[QueryBody, Depends(reader(QueryBody))]
Group = tuple[str, ...]


def build_router(books: Asking, keys: KeyAdmin, management: ManagementKeys) -> APIRouter:
    """Return the routes of analytics."""
    router = APIRouter(
        prefix="/api/v1/analytics", tags=["analytics"], dependencies=management_only(management), responses=REFUSED
    )

    @router.get("/meta", response_model=schemas.MetaAnswer, summary="Words that a question may use")
    async def meta() -> Response:
        return answered({"data": META})

    @router.post(
        "/query",
        response_model=schemas.QueryAnswer,
        summary="Ask the rollups",
        openapi_extra=documented(QueryBody),
    )
    async def query(body: _Query) -> Response:
        began = time.perf_counter()
        ids = {key_hash(each.key_id): each.key_id for each in await keys.keys()} if _names_keys(body) else {}
        cells = await books.ask(ANALYTICS, (question_of(body, ids, time.time()),))
        hashes = {key_id: hashed for hashed, key_id in ids.items()}
        sums: dict[tuple[int, Group], Totals] = {}
        for cell in cells:
            labels = tuple(_shown(name, each, hashes) for name, each in zip(body.dimensions, cell.labels, strict=True))
            sums.setdefault((_bucket(body, cell.time), labels), Totals()).add(cell)
        rows = rows_of(body, sums)
        shown = rows[: body.limit]
        metadata = {
            "query_time_ms": round(1_000 * (time.perf_counter() - began), 3),
            "row_count": len(shown),
            "truncated": len(shown) < len(rows),
        }
        return answered({"data": {"data": shown, "metadata": metadata}})

    return router


def question_of(body: QueryBody, ids: Mapping[str, str], now: float) -> Question:
    """Return what the keeper is asked. Raises ``BadRequest``.

    Args:
        body: what the caller asks.
        ids: public ids of keys by their hashes.
        now: seconds since 1970.
    """
    for name in body.metrics:
        _known(name, METRICS, "metrics")
    for name in body.dimensions:
        _known(name, DIMENSIONS, "dimensions")
    if len(set(body.dimensions)) < len(body.dimensions):
        raise BadRequest("dimensions names one twice", param="dimensions")
    hourly = body.granularity == "hour"
    unit, most = (_HOUR_S, MOST_HOURS) if hourly else (_DAY_S, MOST_DAYS)
    last = int(now) // unit
    first = last - 30 * _DAY_S // unit + 1
    if body.time_range is not None:
        first, last = (
            int((each - _EPOCH).total_seconds()) // unit for each in (body.time_range.start, body.time_range.end)
        )
    if not 0 <= first <= last or last - first >= most:
        raise BadRequest(
            f"time_range is from start to end, and at most {most} {'hours' if hourly else 'days'}", param="time_range"
        )
    return Question(
        hourly,
        first,
        last,
        body.granularity is not None,
        tuple(DIMENSIONS[name][0] for name in body.dimensions),
        tuple(_condition(each, ids) for each in body.filters),
        any(METRICS[name].speeds for name in body.metrics),
    )


def rows_of(body: QueryBody, sums: Mapping[tuple[int, Group], Totals]) -> list[dict[str, Any]]:
    """Return all rows, in the order asked for. Raises ``BadRequest`` for an order by what is not there."""
    kept = _largest(body, sums)
    made = []
    for (moment, group), totals in sums.items():
        if kept is not None and group not in kept:
            continue
        row: dict[str, Any] = {} if body.granularity is None else {_time_name(body): _moment(body, moment)}
        row |= dict(zip(body.dimensions, group, strict=True))
        values = {name: METRICS[name].value(totals) for name in body.metrics}
        made.append((row | {name: METRICS[name].shown(totals) for name in body.metrics}, row | values))
    order = body.order_by
    if order is not None:
        known = {*body.metrics, *body.dimensions, *([_time_name(body)] if body.granularity else [])}
        _known(order.field, dict.fromkeys(sorted(known)), "order_by.field")
        made.sort(key=lambda pair: _rank(pair[1][order.field]), reverse=order.direction == "desc")
    else:
        made.sort(key=lambda pair: _rank(pair[1][body.metrics[0]]), reverse=True)
        if body.granularity is not None:
            made.sort(key=lambda pair: str(pair[1][_time_name(body)]))
    return [row for row, _ in made]


def _rank(value: Any) -> tuple[bool, Any]:
    """Return a key by which values sort, nothing below everything."""
    return value is not None, 0 if value is None else value


def _largest(body: QueryBody, sums: Mapping[tuple[int, Group], Totals]) -> frozenset[Group] | None:
    """Return the groups with most of the first metric over the whole time, or None for all."""
    if body.group_limit is None:
        return None
    wholes: dict[Group, float] = {}
    for (_, group), totals in sums.items():
        wholes[group] = wholes.get(group, 0.0) + (METRICS[body.metrics[0]].value(totals) or 0.0)
    ranked = sorted(wholes, key=lambda group: (-wholes[group], group))
    return frozenset(ranked[: body.group_limit])


def _condition(said: schemas.FilterBody, ids: Mapping[str, str]) -> Condition:
    _known(said.field, DIMENSIONS, "filters.field")
    listed = said.operator in {"in", "not_in"}
    if listed is not isinstance(said.value, list):
        raise BadRequest(f"{said.operator} takes {'a list' if listed else 'one value'}", param="filters.value")
    values = said.value if isinstance(said.value, list) else [said.value]
    if not all(each.isprintable() for each in values):
        raise BadRequest("a value is printable text", param="filters.value")
    if said.field == "provider":
        raise BadRequest("provider can be a dimension, but not filtered by", param="filters.field")
    if said.field == "api_key_id":
        values = [ids.get(each, "") or "unknown" for each in values]
    return Condition(DIMENSIONS[said.field][0], tuple(values), said.operator in {"neq", "not_in"})


def _names_keys(body: QueryBody) -> bool:
    return "api_key_id" in body.dimensions or any(each.field == "api_key_id" for each in body.filters)


def _shown(dimension: str, label: str, hashes: Mapping[str, str]) -> str:
    """Return a label as callers know it."""
    if dimension == "api_key_id":
        return hashes.get(label) or key_hash(label)
    if dimension == "provider":
        return label.partition("/")[0].partition("@")[0]
    return label


def _known(name: str, words: Mapping[str, Any], param: str) -> None:
    if name not in words:
        raise BadRequest(
            f"{param}: there is no {name[:64]!r}; there are {', '.join(words)}",
            param=param,
            metadata={"available": list(words)},
        )


def _bucket(body: QueryBody, moment: int) -> int:
    """Return the first hour or day of the bucket that an hour or a day is in."""
    if body.granularity == "week":
        return moment - (moment + 3) % 7  # 1970-01-01 was a Thursday
    if body.granularity == "month":
        day = date(1970, 1, 1) + timedelta(days=moment)
        return moment - day.day + 1
    return moment


def _time_name(body: QueryBody) -> str:
    return f"date__{body.granularity}"


def _moment(body: QueryBody, moment: int) -> str:
    if body.granularity == "hour":
        return f"{_EPOCH + timedelta(hours=moment):%Y-%m-%dT%H:00:00Z}"
    return f"{_EPOCH + timedelta(days=moment):%Y-%m-%d}"
