"""A real Weir with the demo's fleet and made-up past, and a user of each role, for tests that look at pages.

It runs in a thread with an event loop of its own, so that a browser may be driven from the test's thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple
from unittest.mock import patch

import httpx
from sqlalchemy import event

from bench.loader import SERVED, models
from dashboards import site, visit
from gateway.console.question import CREATE_USER, SIGN_IN, NewUser, SignIn
from gateway.console.roles import Grant, Role
from gateway.db.bulk import bulk
from gateway.db.bulk_sqlite import SqliteBulk
from gateway.db.engine import _NUMBERS, Database
from gateway.demo import fleet, write_config
from gateway.leaderboard.question import MADE_UP
from gateway.metering import settled
from gateway.sim import SimConfig, SimServer
from gateway.sim.history.fill import fill
from gateway.types.errors import BadRequest
from tests.harness import NO_TLS, Stage, chat_body, staged

T = TypeVar("T")
_Given = TypeVarTuple("_Given")
PASSWORD = "a password of the tests"
SIM_KEY = "key-of-the-simulated-api"
"""Of the simulated API, which the configuration takes from ``WEIR_SIM_DEMO_KEY``."""
MINE, OTHERS = "demo-search", "demo-coding"
LOADED = tuple(name for name in models(100) if name not in (*SERVED, "openai/gpt-oss-120b"))
"""Models of ``bench.loader`` that are served besides the demo's; one is not any more."""
ROLES: dict[str, tuple[Grant, ...]] = {
    "owner": (Grant(Role.OWNER),),
    "admin": (Grant(Role.ADMIN),),
    "billing": (Grant(Role.BILLING),),
    "viewer": (Grant(Role.VIEWER),),
    "team_admin": (Grant(Role.TEAM_ADMIN, MINE),),
    "team_viewer": (Grant(Role.VIEWER, MINE),),
    "nobody": (),
}


@dataclass(slots=True)
class House:
    """A running gateway.

    Attributes:
        stage: the gateway, to be touched through ``do`` only.
        loaded: whether ``bench.loader`` filled it.
        tokens: of a session for each role.
        visits: statements that the keeper's database was sent, by the visit of a page that asked for them.
    """

    stage: Stage
    loop: asyncio.AbstractEventLoop
    loaded: bool
    tokens: dict[str, str] = field(default_factory=dict)
    visits: list[list[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its root."""
        return self.stage.url

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, done on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def forget(self) -> None:
        """Make void what the console keeps of settled time, as late rows do."""
        database = self.stage.keeper._database
        assert database is not None

        async def announce() -> None:
            async with bulk(database) as connection:
                await settled.announce(connection, [0])
            database.bulletin.outdate()

        self.do(announce())

    def client(self, role: str = "") -> httpx.Client:
        """Return a client that is signed in as ``role``."""
        cookies = {"weir_session": self.tokens[role]} if role else {}
        return httpx.Client(base_url=self.url, cookies=cookies, verify=NO_TLS, timeout=30.0)


class _Loop(asyncio.SelectorEventLoop):
    """A loop for a thread that is not the main one, where signals do not arrive."""

    def add_signal_handler(self, sig: int, callback: Callable[[*_Given], object], *args: *_Given) -> None:
        """Do without."""

    def remove_signal_handler(self, sig: int) -> bool:
        """Do without."""
        return False


@contextmanager
def opened(home: Path, *, days: int = 90) -> Iterator[House]:
    """Run a house in ``home`` for the block: with the demo's past, or with what ``bench.loader`` wrote there."""
    loop, ready, done = _Loop(), Future[House](), asyncio.Event()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(_live(home, days, ready, done))
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ready.result(1_200)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(60)


def _more_models(text: str) -> str:
    """Return a configuration with the models of ``bench.loader`` beside the demo's."""
    made = [
        f"  - {{id: {name}, name: {name.partition('/')[2]}, context_length: 40960, "
        f'price: {{prompt: "0.10", completion: "0.40", cache_read: "0.02"}}, endpoints: ['
        f"{{backend: {('gpu-a', 'gpu-b', 'gpu-c')[number % 3]}, model: {name}, quantization: fp8}}, "
        f'{{backend: cloud, model: {name}, cost: {{prompt: "0.09", completion: "0.25"}}}}]}}'
        for number, name in enumerate(LOADED)
    ]
    return text.replace("aliases: {", "\n".join(made) + "\naliases: {", 1)


def simulated(*, loaded: bool) -> list[SimConfig]:
    """Return the backends of a house: the demo's, which serve more models where ``bench.loader`` was."""
    more = LOADED if loaded else ()
    return [replace(each, models=(*each.models, *more)) for each in fleet(SIM_KEY)]


def configuration(home: Path, urls: Mapping[str, str], *, loaded: bool) -> str:
    """Return the configuration of a house over backends at ``urls``: the demo's, all decisions kept, and a sink."""
    text = write_config(home, dict(urls)).read_text(encoding="utf-8")
    text = text.replace("routing: {default: balanced}", "routing: {default: balanced, decisions: {share: 1}}")
    text = text.replace("boards: {keyless: true}", "boards: {keyless: true, per_minute: 10000, per_day: 100000}")
    text += f"billing: {{sinks: [{{name: books, kind: folder, path: {json.dumps(str(home / 'sink'))}}}]}}\n"
    return _more_models(text) if loaded else text


async def _live(home: Path, days: int, ready: Future[House], done: asyncio.Event) -> None:
    os.environ["WEIR_SIM_DEMO_KEY"] = SIM_KEY
    try:
        async with AsyncExitStack() as stack:
            loaded = (home / MADE_UP).exists()
            sims = [await stack.enter_async_context(SimServer(each)) for each in simulated(loaded=loaded)]
            text = configuration(home, {sim.config.name: sim.url for sim in sims}, loaded=loaded)
            stage = await stack.enter_async_context(staged(home, text, following=True))
            house = House(stage, asyncio.get_running_loop(), loaded)
            await _furnish(house, 0 if loaded else days, stack)
            ready.set_result(house)
            await done.wait()
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        raise


async def _furnish(house: House, days: int, stack: AsyncExitStack) -> None:
    keeper = house.stage.keeper
    own = [record.key_id for record in await keeper.keys()]
    if days:
        await fill(keeper, house.stage.home, days, own_keys=own)
        await keeper.shipper.ship()
    else:
        for slug in (MINE, OTHERS):
            await keeper.ensure_team(slug, slug)
    for role, grants in ROLES.items():
        with suppress(BadRequest):  # of an earlier look at the same house
            await keeper.ask(CREATE_USER, (NewUser(role, role, grants, PASSWORD, must_change=False),))
        found = await keeper.ask(SIGN_IN, (SignIn(role, PASSWORD, "127.0.0.1", "tests"),))
        house.tokens[role] = found.token
    await asyncio.gather(*(house.stage.chat(chat_body(), max_tokens=5) for _ in range(6)))
    await keeper.shipper.ship()  # the past ends yesterday, and pages remember a day without requests for minutes
    database = keeper._database
    assert database is not None
    _count(house, database, stack)


def _count(house: House, database: Database, stack: AsyncExitStack) -> None:
    """Note the statements of visits, not those of the keeper's own duties beside them.

    What a visit leaves behind to be done later stays its own, even while the next one is served. The numbers of changes
    count once: whoever looks next reads them again because a duty has written, as many do when an hour turns.
    """
    visiting: ContextVar[list[str] | None] = ContextVar("visiting", default=None)
    read, serve = SqliteBulk.read, visit.serve

    def note(sql: str) -> None:
        asked = visiting.get()
        if asked is not None and sql != "BEGIN" and not (sql == _NUMBERS.text and sql in asked):
            asked.append(sql)

    async def counted(bulk: SqliteBulk, sql: str, values: Sequence[Any]) -> list[Any]:
        note(sql)  # it goes past the toolkit and its events
        return await read(bulk, sql, values)

    async def visited(*request: Any) -> Any:
        asked: list[str] = []
        house.visits.append(asked)
        visiting.set(asked)
        return await serve(*request)

    stack.enter_context(patch.object(SqliteBulk, "read", counted))
    stack.enter_context(patch.object(site, "serve", visited))
    for engine in (database.reader, database.writer):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *seen: note(seen[2]))
