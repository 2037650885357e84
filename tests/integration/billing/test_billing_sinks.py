"""Sinks get what they are due at least once, with ids by which they know it again; nothing waits unseen."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from gateway.billing import methods
from gateway.billing.outbox import LEASE_US, Outbox
from gateway.config.snapshot import Secret, SinkSpec
from gateway.types.errors import BadRequest, NotFound
from tests.fakes.receiver import receiver
from tests.fakes.s3 import fake_s3
from tests.integration.billing.books import DAY_US, House, close_of, day, post, some
from tests.integration.billing.test_billing_sums import exported

HOUR_US = 3_600_000_000


async def closed(home: House, *sinks: SinkSpec) -> None:
    """Close October with some usage, with sinks configured."""
    home.configure(sinks=sinks)
    await post(home.database, some(40, day("2026-10-01"), day("2026-10-05"), 4))
    await home.ask(methods.CLOSE, ("2026-10",))


async def states(home: House) -> dict[str, str]:
    """Return the states of the outbox by item, without the notice that a period was closed."""
    return {item.item: item.state for item in await home.ask(methods.OUTBOX) if item.sink}


async def test_a_folder_gets_the_files_of_a_closed_period(home: House, tmp_path: Path) -> None:
    """FOCUS and every statement are there whole, with manifests and no drafts; a second round changes nothing."""
    target = tmp_path / "archive"
    await closed(home, SinkSpec("archive", "folder", path=str(target)))
    await home.office.deliver()
    folder = target / "period=2026-10"
    assert (folder / "focus-2026-10.csv").read_bytes() == await exported(home, "focus", period="2026-10")
    names = {path.name for path in folder.iterdir()}
    assert {"statement-search-2026-10.html", "statement-ads-2026-10.json", "statement-ads-2026-10.csv"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert list((home.home / "exports").iterdir()) == []
    manifest = json.loads((folder / "focus-2026-10.csv.manifest.json").read_text())
    assert manifest["sha256"] == hashlib.sha256((folder / "focus-2026-10.csv").read_bytes()).hexdigest()
    assert Decimal(manifest["sums"]["BilledCost"]) * 10**9 == (await home.ask(methods.PERIODS))[0].charge_nano
    assert set((await states(home)).values()) == {"delivered"}
    await home.office.deliver()
    assert len(await states(home)) == 7


async def test_a_bucket_gets_signed_uploads_and_is_tried_again(embedded: House) -> None:
    """A store that is busy is tried later, with growing pauses, until it took every file; each upload is signed."""
    home = embedded
    async with fake_s3() as store:
        spec = SinkSpec(
            "bucket",
            "s3",
            exports=("focus",),
            format="parquet",
            bucket="bills",
            prefix="weir/",
            path_style=True,
            url=store.url,
            access_key=Secret(store.key_id),
            secret_key=Secret("hidden-secret"),
        )
        store.refusing = 503
        await closed(home, spec)
        await home.office.deliver()
        item = next(each for each in await home.ask(methods.OUTBOX) if each.sink == "bucket")
        assert (item.state, item.attempts) == ("pending", 1)
        assert item.error
        assert "hidden-secret" not in item.error
        await home.office.deliver()
        assert (await home.ask(methods.OUTBOX))[0].attempts <= 1
        store.refusing = 0
        home.now_us += HOUR_US
        await home.office.deliver()
        assert await states(home) == {"close-2026-10-bucket-focus": "delivered"}
        path = "/bills/weir/period%3D2026-10/focus-2026-10.parquet"
        found = store.objects.get(path) or store.objects[path.replace("%3D", "=")]
        assert found == await exported(home, "focus", "parquet", period="2026-10")
        assert store.unsigned == 0
        assert len(store.puts) == 2


async def test_a_webhook_is_signed_and_redelivered_with_the_same_id(embedded: House) -> None:
    """The receiver can check who sent it and when, and sees a repeated delivery by its id."""
    home = embedded
    async with receiver() as told:
        told.answers = [(500, b""), (302, b"")]
        await closed(home, SinkSpec("hook", "webhook", url=f"{told.url}/hook", secret=Secret("s3cret")))
        for _ in range(3):
            await home.office.deliver()
            home.now_us += 2 * HOUR_US
        assert await states(home) == {"close-2026-10-hook-notice": "delivered"}
        assert home.office.delivery.tries == {("postponed",): 2, ("delivered",): 1}
        assert home.office.delivery.items == {("pending",): 0, ("failed",): 0}
        first, _, last = told.received
        assert first.body == last.body
        assert last.headers["weir-delivery"] == first.headers["weir-delivery"] == "close-2026-10-hook-notice"
        parts = dict(part.split("=") for part in last.headers["weir-signature"].split(","))
        made = hmac.digest(b"s3cret", parts["t"].encode() + b"." + last.body, "sha256").hex()
        assert parts["v1"] == made
        assert int(parts["t"]) == (home.now_us - 2 * HOUR_US) // 1_000_000
        document = json.loads(last.body)
        assert (document["type"], document["period"]) == ("period.closed", "2026-10")
        assert set(document["teams"]) == {"search", "ads"}


async def test_stripe_gets_whole_numbers_for_known_customers_once(embedded: House) -> None:
    """An event per team with the outbox's id; what Stripe refuses is given up and can be tried again by hand."""
    home = embedded
    async with receiver() as told:
        spec = SinkSpec(
            "stripe",
            "stripe",
            url=told.url,
            api_key=Secret("sk_test_1"),
            customers={"search": "cus_1", "gone": "cus_2"},
        )
        told.answers = [(400, b'{"error": {"message": "no such meter for sk_test_1"}}')]
        await closed(home, spec)
        await home.office.deliver()
        (item,) = [each for each in await home.ask(methods.OUTBOX) if each.sink]
        assert (item.item, item.state) == ("close-2026-10-stripe-search", "failed")
        assert "no such meter" in item.error
        assert "sk_test_1" not in item.error
        await home.ask(methods.RETRY, (item.item,))
        await home.office.deliver()
        assert await states(home) == {item.item: "delivered"}
        sent = told.received[-1]
        assert sent.path == "/v1/billing/meter_events"
        assert sent.headers["authorization"] == "Bearer sk_test_1"
        assert sent.headers["idempotency-key"] == item.item
        form = {name: values[0] for name, values in parse_qs(sent.body.decode()).items()}
        due = json.loads((await home.ask(methods.STATEMENT, ("2026-10", "search", "json"))).content)
        micro = Decimal(due["totals"]["amount"]["effective"]) * 10**6
        assert form["payload[value]"] == str(round(micro))
        assert form["payload[stripe_customer_id]"] == "cus_1"
        assert (form["identifier"], form["event_name"]) == (item.item, "weir_usage")
        assert int(form["timestamp"]) == day("2026-11-01") * 86_400 - 1
        with pytest.raises(NotFound):
            await home.ask(methods.RETRY, ("no-such-item",))


async def test_stripe_is_not_told_of_what_it_no_longer_takes(embedded: House) -> None:
    """A period that ended more than 35 days ago is given up with that reason, without asking."""
    home = embedded
    async with receiver() as told:
        home.now_us = day("2026-12-20") * DAY_US
        spec = SinkSpec("stripe", "stripe", url=told.url, api_key=Secret("k"), customers={"search": "cus_1"})
        await closed(home, spec)
        await home.office.deliver()
        assert told.received == []
        (item,) = [each for each in await home.ask(methods.OUTBOX) if each.sink]
        assert (item.state, "35 days" in item.error) == ("failed", True)


async def test_a_close_without_configuration_reaches_the_sinks_later(embedded: House) -> None:
    """A command that closes does not know the sinks; the keeper that does addresses what was closed, once."""
    home = embedded
    await closed(home)
    (notice,) = await home.ask(methods.OUTBOX)
    assert (notice.sink, notice.state) == ("", "pending")
    home.configure(sinks=(SinkSpec("archive", "folder", exports=("usage",), path=str(home.home / "a")),))
    await home.office.deliver()
    assert await states(home) == {"close-2026-10-archive-usage": "delivered"}
    assert {item.state for item in await home.ask(methods.OUTBOX)} == {"delivered"}


async def test_an_item_is_leased_by_one_keeper_and_falls_due_again_when_it_dies(home: House) -> None:
    """Two keepers do not deliver the same item at the same time; a dead one's lease ends."""
    home.configure(sinks=(SinkSpec("archive", "folder", path="/nowhere"),))
    await post(home.database, [close_of(day("2026-10-02") * DAY_US, random.Random(1))])
    await home.ask(methods.ORDER, ("archive", "focus", methods.Selection(None, "2026-10"), "csv"))
    one, other = Outbox(home.database), Outbox(home.database)
    leased = await one.lease(["archive"], home.now_us)
    assert leased is not None
    assert await other.lease(["archive"], home.now_us) is None
    again = await other.lease(["archive"], home.now_us + LEASE_US)
    assert again is not None
    assert (again.item, again.attempts) == (leased.item, 2)


async def test_an_ordered_export_is_delivered_to_a_sink(embedded: House) -> None:
    """`weir export … --sink` puts the order into the outbox; what cannot be ordered is refused at once."""
    home = embedded
    hook = SinkSpec("hook", "webhook", url="http://127.0.0.1:9", secret=Secret("x"))
    home.configure(sinks=(SinkSpec("archive", "folder", path=str(home.home / "a")), hook))
    await post(home.database, some(20, day("2026-10-01"), day("2026-10-05"), 4))
    wanted: Any = methods.Selection("search", "", day("2026-10-01"), day("2026-10-03"))
    item = await home.ask(methods.ORDER, ("archive", "focus", wanted, "jsonl"))
    await home.office.deliver()
    file = home.home / "a" / "orders" / item.item / "focus-search-2026-10-01_2026-10-03.jsonl"
    due = await exported(home, "focus", "jsonl", team="search", first="2026-10-01", last="2026-10-03")
    assert file.read_bytes() == due
    with pytest.raises(NotFound, match="there is no sink"):
        await home.ask(methods.ORDER, ("elsewhere", "focus", wanted, "csv"))
    with pytest.raises(BadRequest, match="takes no files"):
        await home.ask(methods.ORDER, ("hook", "focus", wanted, "csv"))
    with pytest.raises(BadRequest):
        await home.ask(methods.ORDER, ("archive", "focus", wanted, "html"))
