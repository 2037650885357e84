"""Billing over HTTP: exports for the management key, usage for whoever may see it, and nothing of anybody else's."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from openai import AsyncOpenAI
from openai.types.admin.organization.usage_completions_response import (
    DataResultOrganizationUsageCompletionsResult as UsageResult,
)
from openai.types.admin.organization.usage_costs_response import DataResultOrganizationCostsResult as CostsResult

from gateway.billing.focus_check import check_file
from gateway.billing.period import day_text, period_of
from tests.harness import ADMIN_KEY, Backend, Stage, configuration, staged
from tests.integration.billing.books import CHEAPER, DAY_US, PLAIN, close_of, post
from tests.integration.billing.test_billing_sums import rows_of

R = TypeVar("R")

pytestmark = pytest.mark.usefixtures("whole_day")


def today() -> int:
    """Return the day it is, counted from 1970."""
    return int(time.time() // 86_400)


@pytest.fixture
async def stage(whole_day: None, tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway with a second team and usage of both, yesterday and today."""
    import random

    chance = random.Random(3)
    config = configuration([Backend("gpu-a", "http://127.0.0.1:9")], more="billing: {issuer: Example Ltd}")
    async with staged(tmp_path, config) as stage:
        await stage.keeper.create_team("ads", "Ads team")
        ads = await stage.new_key("ads")
        mine = stage.key[len("sk-weir-") :][:8]
        rows = []
        for day in (today() - 1, today()):
            rows += [close_of(day * DAY_US + n, chance, team="default", key=mine, rates=PLAIN) for n in range(3)]
            rows.append(close_of(day * DAY_US + 5, chance, team="ads", key=ads.record.key_id, rates=CHEAPER))
        database = stage.keeper._database
        assert database is not None
        await post(database, rows)
        stage.headers["x-other"] = ads.key
        yield stage


async def get(stage: Stage, path: str, key: str | None = None, **params: Any) -> httpx.Response:
    """Ask with a key; the management key unless said."""
    headers = {"authorization": f"Bearer {key or ADMIN_KEY}"}
    return await stage.http.get(stage.url + path, params=params, headers=headers)


async def test_an_export_streams_and_keeps_the_rules(stage: Stage, tmp_path: Path) -> None:
    """FOCUS in every format over HTTP has the sums of the ledger and breaks no rule of 1.2."""
    days = {"from": day_text(today() - 1), "to": day_text(today())}
    for form in ("csv", "json", "jsonl", "parquet"):
        answer = await get(stage, "/api/v1/exports/focus", **days, format=form)
        assert answer.status_code == 200, answer.text
        assert f"focus-{days['from']}_{days['to']}.{form}" in answer.headers["content-disposition"]
        path = tmp_path / f"f.{form}"
        path.write_bytes(answer.content)
        report = check_file(path)
        assert report.problems == []
        assert report.rows == 8
    rows = rows_of((await get(stage, "/api/v1/exports/focus", **days, team="ads")).content)
    assert {row["SubAccountId"] for row in rows} == {"ads"}
    assert sum(Decimal(row["ListCost"]) for row in rows) * 10**9 == 2 * 130_000
    assert sum(Decimal(row["BilledCost"]) for row in rows) * 10**9 == 2 * 110_500


async def test_mistakes_are_told_before_the_first_byte(stage: Stage) -> None:
    """Nothing begins to stream that cannot be made."""
    day = day_text(today())
    for path, params, status in (
        ("/api/v1/exports/focus", {}, 400),
        ("/api/v1/exports/focus", {"from": "yesterday", "to": day}, 400),
        ("/api/v1/exports/focus", {"from": day, "to": day_text(today() - 1)}, 400),
        ("/api/v1/exports/focus", {"from": day, "to": day, "format": "xls"}, 400),
        ("/api/v1/exports/focus", {"period": "2026-1"}, 400),
        ("/api/v1/exports/focus", {"period": "٢٠٢٦-10"}, 400),
        ("/api/v1/exports/focus", {"from": day, "to": day, "team": "nobody"}, 404),
        ("/api/v1/exports/usage", {"from": day, "to": day, "team": "nobody"}, 404),
        ("/api/v1/exports/statement", {"period": "2026-10"}, 400),
        ("/api/v1/exports/statement", {"from": day, "to": day, "team": "ads"}, 400),
        ("/api/v1/exports/passwords", {"from": day, "to": day}, 400),
        ("/api/v1/billing/periods/2026-10/statements/nobody", {}, 404),
    ):
        answer = await get(stage, path, **params)
        assert answer.status_code == status, (path, params, answer.text)
        assert answer.json()["error"]["message"]


async def test_a_team_sees_its_own_usage_and_no_other(stage: Stage) -> None:
    """With ids swapped, another team's names are answered exactly as names that nobody has."""
    other = stage.headers["x-other"]
    ads_hash = sha256(other[len("sk-weir-") :][:8].encode()).hexdigest()
    own = await get(stage, "/api/v1/activity", stage.key)
    assert {row["requests"] for row in own.json()["data"]} == {3}
    assert {row["requests"] for row in (await get(stage, "/api/v1/activity", other)).json()["data"]} == {1}
    assert {row["requests"] for row in (await get(stage, "/api/v1/activity")).json()["data"]} == {4}
    assert (await get(stage, "/api/v1/activity", other, api_key_hash=ads_hash)).status_code == 200
    assert (await get(stage, "/api/v1/usage", other, team="ads")).status_code == 200

    async def refused(path: str, **params: str) -> Any:
        answer = await get(stage, path, stage.key, **params)
        assert answer.status_code == 404
        document = answer.json()
        document.pop("request_id", None)
        return document

    unknown = "0" * 64
    assert await refused("/api/v1/activity", api_key_hash=ads_hash) == await refused(
        "/api/v1/activity", api_key_hash=unknown
    )
    for path, name in (("/api/v1/activity", "workspace_id"), ("/api/v1/usage", "team")):
        assert await refused(path, **{name: "ads"}) == await refused(path, **{name: "nobody"})
    for path in (
        "/api/v1/exports/focus?period=2026-10",
        "/api/v1/exports/usage?period=2026-10",
        "/api/v1/billing/periods",
        "/api/v1/billing/periods/2026-10/statements/default",
        "/api/v1/billing/sinks",
        "/v1/organization/usage/completions?start_time=0",
        "/v1/organization/costs?start_time=0",
    ):
        assert (await get(stage, path, stage.key)).status_code == 403
        assert (await stage.http.get(stage.url + path)).status_code == 401
    close = f"{stage.url}/api/v1/billing/periods/2026-10/close"
    assert (await stage.http.post(close, headers={"authorization": f"Bearer {stage.key}"})).status_code == 403


async def test_activity_has_the_form_of_openrouter(stage: Stage) -> None:
    """One row per day, model and endpoint, today's too; money is an exact number."""
    answer = await get(stage, "/api/v1/activity", stage.key)
    rows = json.loads(answer.text, parse_float=Decimal)["data"]
    assert [row["date"] for row in rows] == [day_text(today()), day_text(today() - 1)]
    row = rows[0]
    assert row["usage"] * 10**9 == 3 * 130_000
    assert (row["prompt_tokens"], row["completion_tokens"], row["byok_usage_inference"]) == (3_000, 300, 0)
    assert (row["model"], row["provider_name"]) == ("qwen/qwen3-32b", "own")
    one = await get(stage, "/api/v1/activity", date=day_text(today() - 1), group_by="workspace")
    assert {row["workspace_id"]: row["requests"] for row in one.json()["data"]} == {"ads": 1, "default": 3}
    for wrong in ({"date": "today"}, {"group_by": "user"}, {"user_id": "u"}):
        assert (await get(stage, "/api/v1/activity", **wrong)).status_code == 400


def of_kind(results: Sequence[object], kind: type[R]) -> list[R]:
    """Return results that are all of one kind."""
    found = [each for each in results if isinstance(each, kind)]
    assert len(found) == len(results)
    return found


async def test_openai_s_own_client_reads_usage_and_costs(stage: Stage) -> None:
    """The official client's admin API, with the management key: buckets, groups, filters, pages."""
    client = AsyncOpenAI(
        api_key="-",
        admin_api_key=ADMIN_KEY,
        base_url=stage.url + "/v1",
        http_client=stage.http,  # type: ignore[arg-type] # declared for another library of the same shape
        max_retries=0,
    )
    organization = client.admin.organization
    start = (today() - 3) * 86_400
    page = await organization.usage.completions(
        start_time=start, end_time=(today() + 1) * 86_400, group_by=["project_id", "model"], limit=3
    )
    assert [bucket.start_time for bucket in page.data] == [start, start + 86_400, start + 2 * 86_400]
    assert page.has_more
    found = {each.project_id: each for each in of_kind(page.data[2].results, UsageResult)}
    assert (found["default"].input_tokens, found["default"].num_model_requests) == (3_000, 3)
    assert found["ads"].model == "qwen/qwen3-32b"
    last = await organization.usage.completions(
        start_time=start, end_time=(today() + 1) * 86_400, group_by=["project_id"], limit=3, page=page.next_page or ""
    )
    assert [bucket.start_time for bucket in last.data] == [today() * 86_400]
    assert not last.has_more
    hourly = await organization.usage.completions(start_time=today() * 86_400, bucket_width="1h", project_ids=["ads"])
    counted = [each for bucket in hourly.data for each in bucket.results]
    assert [each.num_model_requests for each in of_kind(counted, UsageResult)] == [1]
    costs = await organization.usage.costs(start_time=start, group_by=["line_item"], limit=30)
    amounts = of_kind([each for bucket in costs.data for each in bucket.results], CostsResult)
    assert [Decimal(str(each.amount and each.amount.value)) * 10**9 for each in amounts] == [500_500, 500_500]
    assert {each.line_item for each in amounts} == {"qwen/qwen3-32b"}
    for wrong in ("bucket_width=1m", "group_by=user_id", "limit=0", "limit=999", "page=x", "page=page_1", "batch=true"):
        answer = await get(stage, f"/v1/organization/usage/completions?start_time={start}&{wrong}")
        assert answer.status_code == 400, wrong
    assert (await get(stage, "/v1/organization/costs")).status_code == 400


async def test_usage_by_day_and_hour(stage: Stage) -> None:
    """Weir's own form: groups at will, list price and discount beside the charge, as decimal text."""
    other = stage.headers["x-other"]
    found = (await get(stage, "/api/v1/usage", other, group_by="key_id,model")).json()
    assert found["total"] == {"effective": "0.000221"}
    assert [row["discount"] for row in found["data"]] == ["0.0000195", "0.0000195"]
    assert {row["key_id"] for row in found["data"]} == {other[len("sk-weir-") :][:8]}
    hours = (await get(stage, "/api/v1/usage", other, granularity="hour")).json()["data"]
    assert [(row["date"], row["hour"]) for row in hours] == [(day_text(today() - 1), 0), (day_text(today()), 0)]
    for wrong in (
        {"granularity": "minute"},
        {"group_by": "secret"},
        {"group_by": "model,model"},
        {"from": "2020-01-01", "to": "2026-01-01"},
        {"from": day_text(today() - 60), "granularity": "hour"},
    ):
        assert (await get(stage, "/api/v1/usage", **wrong)).status_code == 400, wrong


async def test_periods_and_statements(stage: Stage) -> None:
    """Periods are listed with what is to pay; a statement comes in each form, and one that runs cannot be closed."""
    periods = (await get(stage, "/api/v1/billing/periods")).json()["data"]
    assert sum(Decimal(each["effective"]) for each in periods) * 10**9 == 2 * (3 * 130_000 + 110_500)
    period = period_of(today())
    for form, kind in (("json", "application/json"), ("csv", "text/csv"), ("html", "text/html")):
        answer = await get(stage, f"/api/v1/billing/periods/{period}/statements/ads", format=form)
        assert answer.headers["content-type"].startswith(kind)
        assert "Ads team" in answer.text or form == "csv"
    close = f"{stage.url}/api/v1/billing/periods/{datetime.now(UTC) + timedelta(days=40):%Y-%m}/close"
    answer = await stage.http.post(close, headers=stage.admin)
    assert answer.status_code == 400
    assert (await get(stage, "/api/v1/billing/sinks")).json() == {"data": []}
