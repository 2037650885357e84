"""Usage in the forms that callers know: OpenAI's buckets, OpenRouter's activity, and Weir's own.

Money is a JSON number printed exactly from integers where the form has numbers, decimal text in Weir's own. What cannot
be asked for is ``BadRequest``; nothing else is raised.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec

from gateway.billing.methods import SUMS, HitGroup, UsageGroup, UsageQuery
from gateway.billing.period import day_in, day_text
from gateway.types.errors import BadRequest
from gateway.types.money import usd_json, usd_text

ACTIVITY_DAYS: Final = 30
"""Completed days that activity shows beside today."""
MOST_DAYS: Final = 366
MOST_HOURS: Final = 31 * 24
_SECONDS: Final = {"1h": 3_600, "1d": 86_400}
_LIMITS: Final = {"1h": (24, 168), "1d": (7, 180)}
"""Buckets on a page unless said, and at most."""
_USAGE_GROUPS: Final = {"project_id": "team", "api_key_id": "key_id", "model": "model", "service_tier": "tier"}
_COST_GROUPS: Final = {"project_id": "team", "line_item": "model", "api_key_id": "key_id"}
_OWN_GROUPS: Final = ("team", "key_id", "model", "endpoint", "app", "tier")
_FILTERS: Final = {"project_ids": "team", "api_key_ids": "key_id", "models": "model", "line_items": "model"}
_MOST_NAMES: Final = 1_000


def today() -> int:
    """Return the UTC day, counted from 1970."""
    return int(time.time() // 86_400)


def activity_query(first: int, last: int, *, by_team: bool) -> UsageQuery:
    """Return the query of activity."""
    return UsageQuery(False, first, last, ("model", "endpoint", *(("team",) if by_team else ())))


def activity(groups: Sequence[UsageGroup], query: UsageQuery, hits: Sequence[HitGroup] = ()) -> list[dict[str, Any]]:
    """Return activity, newest day first.

    Answers from the response cache are requests without tokens and without a price. They are counted with the endpoint
    of their model and provider; where it answered nothing else that day they have a row of their own.
    """
    cached: Counter[tuple[int, tuple[str, ...]]] = Counter()
    places = {(each.time, each.labels[0], _provider(each.labels[1]), *each.labels[2:]): each.labels for each in groups}
    for hit in hits:
        more = (hit.team,) if "team" in query.group_by else ()
        place = places.get((hit.day, hit.model, hit.provider, *more), (hit.model, hit.provider, *more))
        cached[hit.day, place] += hit.hits
    known = {(each.time, each.labels) for each in groups}
    nothing = (0,) * len(SUMS)
    groups = [*groups, *(UsageGroup(*key, nothing) for key in cached if key not in known)]
    rows = []
    for group in sorted(groups, key=lambda each: (-each.time, each.labels)):
        labels = dict(zip(query.group_by, group.labels, strict=True))
        again = cached[group.time, group.labels]
        row: dict[str, Any] = {
            "date": day_text(group.time),
            "model": labels["model"],
            "model_permaslug": labels["model"],
            "endpoint_id": sha256(f"{labels['model']} {labels['endpoint']}".encode()).hexdigest()[:32],
            "provider_name": _provider(labels["endpoint"]),
            "usage": _number(group["charge_nano"]),
            "byok_usage_inference": _number(group["byok_list_nano"]),
            "requests": group["requests"] + again,
            "prompt_tokens": group["tokens_prompt"],
            "completion_tokens": group["tokens_completion"],
            "reasoning_tokens": group["tokens_reasoning"],
            "cached_tokens": group["tokens_cache_read"],
            "response_cached_requests": again,
        }
        if "team" in labels:
            row["workspace_id"] = labels["team"]
        rows.append(row)
    return rows


def _provider(endpoint: str) -> str:
    """Return the provider of an endpoint."""
    return endpoint.partition("/")[0].partition("@")[0]


def usage_query(first: str | None, last: str | None, granularity: str, group_by: str) -> UsageQuery:
    """Return the query of Weir's own usage; without days, the last 30 and today.

    Raises:
        BadRequest: a parameter is wrong.
    """
    if granularity not in {"day", "hour"}:
        raise BadRequest("granularity is day or hour", param="granularity")
    groups = tuple(filter(None, (each.strip() for each in group_by.split(","))))
    if not set(groups) <= set(_OWN_GROUPS) or len(set(groups)) != len(groups):
        raise BadRequest(f"group_by is some of {', '.join(_OWN_GROUPS)}", param="group_by")
    hourly = granularity == "hour"
    end = day_in(last, "to") if last is not None else today()
    begin = day_in(first, "from") if first is not None else end - (1 if hourly else ACTIVITY_DAYS)
    if not 0 <= end - begin < MOST_DAYS:
        raise BadRequest(f"from and to span 1 to {MOST_DAYS} days", param="from")
    if hourly and (end - begin + 1) * 24 > MOST_HOURS:
        raise BadRequest("hours are given for at most 31 days", param="granularity")
    if hourly:
        return UsageQuery(True, begin * 24, end * 24 + 23, groups)
    return UsageQuery(False, begin, end, groups)


def usage(groups: tuple[UsageGroup, ...], query: UsageQuery) -> dict[str, Any]:
    """Return Weir's own usage."""
    rows = []
    charge = 0
    for group in groups:
        day, hour = divmod(group.time, 24) if query.hourly else (group.time, None)
        charge += group["charge_nano"]
        rows.append(
            {
                "date": day_text(day),
                **({} if hour is None else {"hour": hour}),
                **dict(zip(query.group_by, group.labels, strict=True)),
                "requests": group["requests"],
                "prompt_tokens": group["tokens_prompt"],
                "completion_tokens": group["tokens_completion"],
                "cached_tokens": group["tokens_cache_read"],
                "reasoning_tokens": group["tokens_reasoning"],
                "list": usd_text(group["charge_nano"] + group["discount_nano"]),
                "discount": usd_text(group["discount_nano"]),
                "effective": usd_text(group["charge_nano"]),
            }
        )
    return {"data": rows, "total": {"effective": usd_text(charge)}}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks of OpenAI's usage API.

    Attributes:
        query: which rollups answer it.
        seconds: width of a bucket.
        starts: beginnings of the buckets of this page, Unix seconds.
        group_by: names in OpenAI's words.
        labels: the same in ours.
        keys: only these keys, or None.
        following: token of the next page, or None.
    """

    query: UsageQuery
    seconds: int
    starts: tuple[int, ...]
    group_by: tuple[str, ...]
    keys: tuple[str, ...] | None
    following: str | None

    @classmethod
    def read(cls, parameters: Sequence[tuple[str, str]], *, costs: bool, now: float) -> Asked:
        """Return what the parameters of a request ask for.

        Raises:
            BadRequest: one is wrong.
        """
        single, many = _parameters(parameters)
        width = single.get("bucket_width", "1d")
        if width not in _SECONDS or (costs and width != "1d"):
            raise BadRequest(
                "bucket_width is 1d" + ("" if costs else " or 1h: minutes are not kept"), param="bucket_width"
            )
        seconds = _SECONDS[width]
        usual, most = _LIMITS[width]
        limit = _whole(single, "limit", usual)
        if not 1 <= limit <= most:
            raise BadRequest(f"limit is 1 to {most}", param="limit")
        if "start_time" not in single:
            raise BadRequest("start_time is needed, in Unix seconds", param="start_time")
        begin = _whole(single, "start_time", 0) // seconds * seconds
        end = _whole(single, "end_time", int(now) + 1)
        start = _page(single.get("page"), begin, seconds)
        starts = tuple(range(start, max(start, min(end, start + limit * seconds)), seconds))
        after = start + limit * seconds
        groups = tuple(dict.fromkeys(many.get("group_by", ())))
        names = _COST_GROUPS if costs else _USAGE_GROUPS
        unknown = [name for name in groups if name not in names]
        if unknown:
            raise BadRequest(f"group_by is some of {', '.join(names)}", param="group_by")
        chosen = {ours: tuple(many[theirs]) for theirs, ours in _FILTERS.items() if theirs in many}
        query = UsageQuery(
            hourly=width == "1h",
            first=start // seconds,
            last=(starts[-1] if starts else start - seconds) // seconds,
            group_by=tuple(names[name] for name in groups),
            teams=chosen.get("team"),
            keys=None,
            models=chosen.get("model"),
        )
        return cls(query, seconds, starts, groups, chosen.get("key_id"), f"page_{after}" if after < end else None)


def _parameters(parameters: Sequence[tuple[str, str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return parameters that come once, and those that may come again and again (also as ``name[]``)."""
    single: dict[str, str] = {}
    many: dict[str, list[str]] = {}
    for given, value in parameters:
        name = given.removesuffix("[]")
        if name in {"group_by", *_FILTERS}:
            some = many.setdefault(name, [])
            some += [each for each in value.split(",") if each]
            if len(some) > _MOST_NAMES:
                raise BadRequest(f"{name} has more than {_MOST_NAMES} values", param=name)
        elif name in {"start_time", "end_time", "bucket_width", "limit", "page"}:
            single[name] = value
        else:
            raise BadRequest(f"the parameter {name[:64]!r} is not known here", param=name[:64])
    return single, many


def _whole(single: dict[str, str], name: str, default: int) -> int:
    text = single.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 11:
        raise BadRequest(f"{name} is a whole number", param=name)
    return int(text)


def _page(token: str | None, begin: int, seconds: int) -> int:
    if token is None:
        return begin
    digits = token.removeprefix("page_")
    if digits == token or not digits.isascii() or not digits.isdigit() or len(digits) > 11:
        raise BadRequest("page is the next_page of an answer", param="page")
    start = int(digits)
    if start < begin or (start - begin) % seconds:
        raise BadRequest("page belongs to another question", param="page")
    return start


def usage_page(asked: Asked, groups: tuple[UsageGroup, ...]) -> dict[str, Any]:
    """Return a page of usage."""
    return _bucketed(asked, groups, _usage_result)


def cost_page(asked: Asked, groups: tuple[UsageGroup, ...]) -> dict[str, Any]:
    """Return a page of costs."""
    return _bucketed(asked, groups, _cost_result)


def _bucketed(asked: Asked, groups: tuple[UsageGroup, ...], result: Any) -> dict[str, Any]:
    by_time: dict[int, list[Any]] = {}
    for group in groups:
        labels = dict(zip(asked.group_by, group.labels, strict=True))
        by_time.setdefault(group.time * asked.seconds, []).append(result(labels, group))
    return {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": start,
                "end_time": start + asked.seconds,
                "results": by_time.get(start, []),
            }
            for start in asked.starts
        ],
        "has_more": asked.following is not None,
        "next_page": asked.following,
    }


def _usage_result(labels: dict[str, str], group: UsageGroup) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": group["tokens_prompt"],
        "output_tokens": group["tokens_completion"],
        "input_cached_tokens": group["tokens_cache_read"],
        "input_uncached_tokens": group["tokens_prompt"] - group["tokens_cache_read"] - group["tokens_cache_write"],
        "input_cache_write_tokens": group["tokens_cache_write"],
        "input_audio_tokens": group["tokens_audio_prompt"],
        "output_audio_tokens": group["tokens_audio_completion"],
        "num_model_requests": group["requests"],
        "project_id": labels.get("project_id"),
        "user_id": None,
        "api_key_id": labels.get("api_key_id"),
        "model": labels.get("model"),
        "batch": None,
        "service_tier": labels.get("service_tier"),
    }


def _cost_result(labels: dict[str, str], group: UsageGroup) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": _number(group["charge_nano"]), "currency": "usd"},
        "line_item": labels.get("line_item"),
        "project_id": labels.get("project_id"),
        "organization_id": None,
        "api_key_id": labels.get("api_key_id"),
        "quantity": None,
    }


def _number(nano: int) -> msgspec.Raw:
    """Return nano-USD as an exact JSON number in USD."""
    return msgspec.Raw(usd_json(nano))
