"""Versions of prices in a real database, and how a worker and a request meet them. On SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from gateway.access.store import AccessStore
from gateway.access.workspaces import WorkspaceStore
from gateway.config.snapshot import ConfigSnapshot
from gateway.db.engine import Database
from gateway.db.office import Premises
from gateway.db.unit_of_work import writing
from gateway.fleet.build import build
from gateway.pricing.charge import rates_id
from gateway.tariff.follow import Follower
from gateway.tariff.office import Tariff, open_office
from gateway.tariff.overlay import priced, stated
from gateway.tariff.store import TariffStore
from gateway.tariff.version import (
    ACCEPT,
    LEAD_US,
    STATE,
    TARIFF,
    VERSIONS,
    Hourly,
    Kind,
    Known,
    Proposal,
    Terms,
    VersionQuery,
    valid,
)
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.method import Method
from gateway.types.money import Rates
from tests.unit.tariff.files import BIG, snapshot_of

NOW = time.time_ns() // 1000
LATER = NOW + 10**15
"""A moment, in microseconds, long after any version that a test here makes, however late in a long run it is made."""
DEARER = Rates(900_000, 900_000)


def soon() -> int:
    """Return a moment at which what was made just now is valid, microseconds since 1970."""
    return time.time_ns() // 1000 + 2 * LEAD_US


class Books:
    """An office that is asked as workers ask the keeper; ``away`` makes it unreachable."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.office = open_office(Premises(database, Path(), b"", lambda: None))
        self.away = False

    async def ask(self, method: Method[Any], arguments: Any = ()) -> Any:
        """Return what the office answers."""
        if self.away:
            raise Unavailable("away")
        return await self.office.handlers[method](*arguments)


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    """The office of the tariff over a fresh database."""
    database = Database(database_url)
    yield Books(database)
    await database.close()


def sell(rates: Rates | None, place: str = "", valid_from_us: int = 0, **more: Any) -> Proposal:
    """Return a proposal for the price of the big model."""
    proposal = Proposal(
        kind=Kind.SELL,
        model=BIG,
        place=place,
        rates=rates,
        valid_from_us=valid_from_us,
        who="ada",
        why="test",
        source="cli",
    )
    changed: Proposal = msgspec.structs.replace(proposal, **more)
    return changed


async def test_a_changed_file_makes_versions_of_what_changed(books: Books) -> None:
    """The first file is version 1 of everything, the same file again is nothing, a change is one version more.

    What another source has said between is undone by a change of the file alone.
    """
    first = snapshot_of()
    known: Known = await books.ask(STATE, (stated(first), first.digest))
    subjects = {version.subject for version in known.versions}
    assert (Kind.SELL, BIG, "") in subjects
    assert (Kind.COST, BIG, "acme") in subjects
    assert (Kind.HOUR, "", "gpu-a") in subjects
    assert all(version.source == "file" for version in known.versions)
    count = known.revision
    assert (await books.ask(STATE, (stated(first), first.digest))).revision == count

    await books.ask(ACCEPT, ((sell(DEARER),),))
    again: Known = await books.ask(STATE, (stated(first), first.digest))
    assert valid(again.versions, LATER).sell[BIG, ""] == DEARER, "an unchanged file undoes nothing"

    changed = snapshot_of(price='{prompt: "0.50", completion: "0.70"}')
    last: Known = await books.ask(STATE, (stated(changed), changed.digest))
    assert last.revision == again.revision + 1
    newest = (await books.ask(VERSIONS, (VersionQuery(limit=1),)))[0]
    assert (newest.source, newest.why) == ("file", "the configuration file changed")
    assert newest.rates == Rates(500_000, 700_000)
    assert newest.source_version == changed.digest[:16]


async def test_what_was_read_before_a_version_was_made_is_not_known_after_it(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker asks while somebody makes a version: whatever was read by then, the next worker gets the new one."""
    first = snapshot_of()
    await books.ask(STATE, (stated(first), first.digest))
    await books.ask(ACCEPT, ((sell(Rates(1, 1)),),))
    read, go_on = asyncio.Event(), asyncio.Event()
    known = TariffStore.known

    async def late(self: TariffStore, now_us: int) -> Known:
        found = await known(self, now_us)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(TariffStore, "known", late)
    asking = asyncio.create_task(books.ask(TARIFF, (0,)))
    await read.wait()
    await books.ask(ACCEPT, ((sell(DEARER),),))
    go_on.set()
    await asking
    assert valid((await books.ask(TARIFF, (0,))).versions, LATER).sell[BIG, ""] == DEARER


async def test_a_look_for_what_others_said_minds_what_is_forgotten_meanwhile(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker states its file while the database is asked for its newest version."""
    first = snapshot_of()
    await books.ask(STATE, (stated(first), first.digest))
    tariff = Tariff(TariffStore(books.database))
    await tariff.known(0)
    revision = TariffStore.revision

    async def late(self: TariffStore) -> int:
        tariff.drop()
        return await revision(self)

    monkeypatch.setattr(TariffStore, "revision", late)
    await tariff.look()
    assert await tariff.known(0) is not None


async def test_a_price_of_its_own_that_goes_from_the_file_is_withdrawn(books: Books) -> None:
    """An endpoint that loses its own price has the model's from then on."""
    own = snapshot_of(endpoint='price: {prompt: "5", completion: "5"}')
    await books.ask(STATE, (stated(own), own.digest))
    none = snapshot_of()
    known = await books.ask(STATE, (stated(none), none.digest))
    found = valid(known.versions, LATER)
    assert found.sell[BIG, "acme"] is None
    endpoint = next(spec for spec in priced(own, found).models[BIG].endpoints if spec.provider == "acme")
    assert endpoint.price == Rates(100_000, 300_000)


async def test_a_machine_that_goes_from_the_file_costs_nothing(books: Books) -> None:
    """From then on, whoever set its price last; the file says so once, and back in the file it costs again.

    What is sold and what it costs by token stays: nobody is charged for it, and it holds when the model comes back.
    """
    both = snapshot_of(more_models=True)
    one = without(both, "gpu-b", "qwen/new")
    await books.ask(STATE, (stated(both), both.digest))
    await books.ask(ACCEPT, ((machine("gpu-b", Hourly(7)),),))
    before = (await books.ask(TARIFF, (0,))).revision
    with capture_logs() as logs:
        known: Known = await books.ask(STATE, (stated(one), "without"))
    assert [line["machines"] for line in logs if line["log_level"] == "warning"] == [("gpu-b",)]
    assert known.revision == before + 1
    assert valid(known.versions, LATER).hour == {"gpu-a": Hourly(4_600_000_000, 4), "gpu-b": None}
    assert valid(known.versions, LATER).sell["qwen/new", ""] == Rates(7_000_000, 8_000_000)
    newest = (await books.ask(VERSIONS, (VersionQuery(limit=1),)))[0]
    assert (newest.source, newest.source_version, newest.place) == ("file", "without", "gpu-b")
    assert newest.valid_from_us == newest.made_us + LEAD_US, "at once, when all workers have heard of it"

    with capture_logs() as logs:
        assert (await books.ask(STATE, (stated(one), "without"))).revision == known.revision, "said once"
    assert logs == []
    back = await books.ask(STATE, (stated(both), both.digest))
    assert back.revision == known.revision + 1
    assert valid(back.versions, LATER).hour["gpu-b"] == Hourly(2_000_000_000)


async def test_what_is_not_in_the_file_can_be_withdrawn(books: Books) -> None:
    """Whatever has a version can be withdrawn for good; set anew is only what the file has."""
    both = snapshot_of(more_models=True)
    await books.ask(ACCEPT, ((machine("gpu-c", Hourly(7)),),))  # nobody has said yet what the file has
    await books.ask(STATE, (stated(both), both.digest))
    one = without(both, "gpu-b", "qwen/new")
    known: Known = await books.ask(STATE, (stated(one), "without"))
    assert valid(known.versions, LATER).hour["gpu-c"] == Hourly(7), "the file has never said anything of it"
    gone = sell(None, model="qwen/new")
    await books.ask(ACCEPT, ((machine("gpu-c", None), gone),))
    found = valid((await books.ask(TARIFF, (known.revision,))).versions, LATER)
    assert (found.hour["gpu-c"], found.sell["qwen/new", ""]) == (None, None)
    await books.ask(ACCEPT, ((machine("gpu-b", None),),))  # once more does no harm
    for refused in (machine("gpu-b", Hourly(7)), machine("gpu-x", None), sell(DEARER, model="qwen/new")):
        with pytest.raises(BadRequest, match="has no such model, endpoint or backend"):
            await books.ask(ACCEPT, ((refused,),))


def machine(name: str, hourly: Hourly | None) -> Proposal:
    """Return a proposal for what a machine costs."""
    return Proposal(kind=Kind.HOUR, place=name, hourly=hourly, who="ada", why="test", source="cli")


def without(snapshot: ConfigSnapshot, machine: str, model: str) -> ConfigSnapshot:
    """Return what a file says that has neither that machine nor that model."""
    models = {
        id_: replace(spec, endpoints=tuple(each for each in spec.endpoints if each.backend != machine))
        for id_, spec in snapshot.models.items()
        if id_ != model
    }
    return replace(
        snapshot,
        backends={name: spec for name, spec in snapshot.backends.items() if name != machine},
        models={id_: spec for id_, spec in models.items() if spec.endpoints},
    )


async def test_versions_are_never_changed(books: Books, database_url: str) -> None:
    """The database itself refuses."""
    await books.ask(ACCEPT, ((sell(DEARER),),))
    database = Database(database_url)
    for statement in ("UPDATE price_version SET who = 'mallory'", "DELETE FROM price_version"):
        with pytest.raises(DBAPIError, match="never changed"):
            async with database.writer.begin() as connection:
                await connection.execute(text(statement))
    await database.close()
    assert (await books.ask(VERSIONS, (VersionQuery(),)))[0].who == "ada"


REFUSED = [
    (sell(DEARER, valid_from_us=NOW - 3_600_000_000), "in the past"),
    (sell(DEARER, kind=Kind.TERMS), "something else"),
    (sell(None, terms=Terms(10_001, 0), kind=Kind.TERMS), "basis points"),
    (sell(None, terms=Terms(500, 0), kind=Kind.TERMS), "say whose"),
    (sell(None, terms=Terms(500, 0), kind=Kind.TERMS, place="search", model="qwen/unknown"), "has no such model"),
    (sell(None, hourly=Hourly(5)), "something else"),
    (sell(DEARER, model="qwen/unknown"), "has no such model"),
    (sell(DEARER, why="a\nb"), "one line"),
]


async def test_what_cannot_be_is_refused(books: Books) -> None:
    """With a reason, and nothing of the batch is made."""
    first = snapshot_of()
    known = await books.ask(STATE, (stated(first), first.digest))
    for proposal, said in REFUSED:
        with pytest.raises(BadRequest, match=said):
            await books.ask(ACCEPT, ((sell(DEARER), proposal),))
    assert await books.ask(TARIFF, (known.revision,)) is None


async def test_pages_of_history(books: Books) -> None:
    """Newest first, each page from where the last ended."""
    made = await books.ask(ACCEPT, (tuple(sell(Rates(number, 1)) for number in range(5)),))
    seen, before = [], 0
    while page := await books.ask(VERSIONS, (VersionQuery(kind="sell", before=before, limit=2),)):
        seen += [version.version_id for version in page]
        before = seen[-1]
    assert seen == [version.version_id for version in reversed(made)]


async def test_another_host_is_heard_of(books: Books, database_url: str) -> None:
    """Versions that another keeper made in the same database are known after the duty has looked."""
    known = await books.ask(STATE, (stated(snapshot_of()), "digest"))
    database = Database(database_url)
    await Books(database).ask(ACCEPT, ((sell(DEARER),),))
    await database.close()
    assert await books.ask(TARIFF, (known.revision,)) is None
    for duty in books.office.duties:
        if "prices" in duty.name:
            await duty.run()
    if database_url.startswith("postgresql"):
        assert (await books.ask(TARIFF, (known.revision,))).revision == known.revision + 1


class Clock:
    """A wall clock that is set by hand, nanoseconds since 1970."""

    def __init__(self) -> None:
        self.now = time.time_ns()

    def __call__(self) -> int:
        """Return the time it was set to."""
        return self.now


async def test_a_worker_follows(books: Books) -> None:
    """A new version is there within a second; one with a date at its moment, also while the keeper is away."""
    applied: list[ConfigSnapshot] = []
    clock = Clock()
    follower = Follower(books, snapshot_of(), applied.append, clock=clock)
    await follower.start()
    assert applied[-1].models[BIG].price == Rates(100_000, 300_000)
    running = asyncio.get_running_loop().create_task(follower.run())
    later = clock.now // 1000 + 60_000_000
    await books.ask(ACCEPT, ((sell(DEARER), sell(Rates(1, 1), valid_from_us=later)),))
    clock.now = time.time_ns() + 2_000 * LEAD_US
    await until(lambda: applied[-1].models[BIG].price == DEARER)
    books.away = True
    clock.now = later * 1000
    await until(lambda: applied[-1].models[BIG].price == Rates(1, 1))
    await ended(running)


async def test_a_new_file_goes_on_while_the_keeper_is_away(books: Books) -> None:
    """The last known prices stay, a new model has the file's; when the keeper is back, the file's change counts."""
    applied: list[ConfigSnapshot] = []
    follower = Follower(books, snapshot_of(), applied.append)
    await follower.start()
    running = asyncio.get_running_loop().create_task(follower.run())
    books.away = True
    changed = snapshot_of(price='{prompt: "0.50", completion: "0.70"}', more_models=True)
    follower.configured(changed)
    assert applied[-1].models[BIG].price == Rates(100_000, 300_000), "the last known one"
    assert applied[-1].models["qwen/new"].price == Rates(7_000_000, 8_000_000), "the file's, for nobody knows another"
    books.away = False
    await until(lambda: applied[-1].models[BIG].price == Rates(500_000, 700_000))
    await ended(running)


async def ended(running: asyncio.Task[None]) -> None:
    """End a task."""
    running.cancel()
    await asyncio.wait([running])


async def until(holds: Any) -> None:
    """Wait until ``holds()``."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_what_runs_keeps_its_price(books: Books) -> None:
    """The endpoint of a fleet is what a request is opened with: a later version makes another one beside it."""
    first = snapshot_of()
    before = build(first, None, rates_id)
    known = await books.ask(STATE, (stated(first), first.digest))
    await books.ask(ACCEPT, ((sell(DEARER, place="acme"),),))
    known = await books.ask(TARIFF, (known.revision,))
    after = build(priced(first, valid(known.versions, soon())), before, rates_id)
    old, new = (next(each for each in fleet.models[BIG].endpoints if each.slug == "acme") for fleet in (before, after))
    assert (old.price, old.price_id) == (Rates(100_000, 300_000).resolved(), rates_id(Rates(100_000, 300_000)))
    assert (new.price, new.price_id) == (DEARER.resolved(), rates_id(DEARER))
    assert new.track is old.track


async def test_terms_of_teams(books: Books) -> None:
    """A team's terms are part of its rates; those for a model go before those for all; others pay the list price."""
    first = snapshot_of()
    team: dict[str, Any] = {"kind": Kind.TERMS, "who": "ada", "why": "", "source": "cli", "place": "search"}
    await AccessStore(books.database, b"pepper").create_team("search", "Search")
    await books.ask(
        ACCEPT,
        ((Proposal(**team, terms=Terms(1_000, 0)), Proposal(**team, model=BIG, terms=Terms(0, 250))),),
    )
    known = await books.ask(TARIFF, (0,))
    models = build(priced(first, valid(known.versions, soon())), None, rates_id).models
    big, small = (models[name].endpoints[0] for name in (BIG, "qwen/small"))
    assert (big.sold_to("search")[0].discount, big.sold_to("search")[0].markup) == (0, 250)
    assert (small.sold_to("search")[0].discount, small.sold_to("search")[0].markup) == (1_000, 0)
    assert small.sold_to("search")[1] == rates_id(small.sold_to("search")[0]) != small.price_id
    assert small.sold_to("other") == (small.price, small.price_id)
    await books.ask(ACCEPT, ((Proposal(**team),),))
    known = await books.ask(TARIFF, (known.revision,))
    again = priced(first, valid(known.versions, soon()))
    assert not again.models["qwen/small"].endpoints[0].team_prices


async def test_terms_are_of_a_team_that_there_is(books: Books) -> None:
    """Others are refused with the team that was perhaps meant; of a team that is gone they can still be withdrawn."""
    store = AccessStore(books.database, b"pepper")
    await store.create_team("search", "Search")
    terms = sell(None, model="", place="serach", kind=Kind.TERMS, terms=Terms(500, 0))
    with pytest.raises(BadRequest, match=r'terms serach: there is no team .serach.: did you mean "search"\?'):
        await books.ask(ACCEPT, ((sell(DEARER), terms),))
    assert await books.ask(VERSIONS, (VersionQuery(),)) == (), "none of them was made"
    await books.ask(ACCEPT, ((msgspec.structs.replace(terms, place="search"),),))
    await WorkspaceStore(books.database).delete("search")
    await books.ask(ACCEPT, ((msgspec.structs.replace(terms, place="search", terms=None),),))


async def test_the_clock_of_a_machine(books: Books) -> None:
    """What a machine costs by the hour follows the versions too."""
    first = snapshot_of()
    await books.ask(STATE, (stated(first), first.digest))
    hour = Proposal(kind=Kind.HOUR, place="gpu-a", hourly=Hourly(7), who="ada", why="", source="cli")
    await books.ask(ACCEPT, ((hour,),))
    known = await books.ask(TARIFF, (0,))
    assert priced(first, valid(known.versions, soon())).backends["gpu-a"].usd_per_hour == 7


def test_without_any_version_the_file_counts() -> None:
    """Nothing known changes nothing."""
    first = snapshot_of()
    same = priced(first, valid((), NOW))
    assert replace(same, version=first.version) == first


async def test_a_write_that_fails_makes_nothing(database_url: str) -> None:
    """Versions of one call are made in one transaction."""
    database = Database(database_url)
    books = Books(database)
    await books.ask(ACCEPT, ((sell(DEARER),),))
    async with writing(database) as session:
        count = await session.scalar(text("SELECT COUNT(*) FROM price_version"))
    assert count == 1
    await database.close()
