"""The office of the tariff: versions of prices, what own machines cost by the hour, margins.

Workers ask for versions twice a second, so they are answered from memory. Other hosts may make versions in a database
that is shared: there a duty looks for them every second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Final

import msgspec

from gateway.db.office import Duty, Lasting, Office, Premises
from gateway.tariff.allocation import Allocator
from gateway.tariff.margin import ALLOCATION, MARGIN, Margins
from gateway.tariff.store import TariffStore
from gateway.tariff.version import (
    ACCEPT,
    ACCEPT_AT,
    LEAD_US,
    STATE,
    TARIFF,
    VERSIONS,
    Kind,
    Known,
    Proposal,
    Stated,
    Subject,
    Version,
    VersionQuery,
)
from gateway.telemetry import logs
from gateway.types.errors import BadRequest
from gateway.types.money import BASIS_POINTS

GRACE_US: Final = 5_000_000
"""How far behind the clock of the keeper a moment may lie to count as now."""
MOST_MARKUP: Final = 100 * BASIS_POINTS
LONGEST_TEXT: Final = 500
_log: Final = logs.logger(__name__)
_SHARED_EVERY_S: Final = 1.0
_ALLOCATE_EVERY_S: Final = 60.0


def open_office(premises: Premises) -> Office:
    """Return the office of the tariff."""
    tariff = Tariff(TariffStore(premises.database))
    margins = Margins(premises.database)
    allocator = Allocator(premises.database)
    duties = [Duty("allocate machine hours", _ALLOCATE_EVERY_S, allocator.turn)]
    if premises.database.writer.dialect.name != "sqlite":
        duties.append(Duty("look for prices of other hosts", _SHARED_EVERY_S, tariff.look))
    return Office(
        handlers={
            TARIFF: tariff.known,
            STATE: tariff.state,
            ACCEPT: tariff.accept,
            ACCEPT_AT: tariff.accept,
            VERSIONS: tariff.versions,
            MARGIN: margins.margin,
            ALLOCATION: margins.allocation,
        },
        duties=tuple(duties),
        lasting=(Lasting("prices", (TARIFF,), lambda: tariff.revision, tariff.read, tariff.take, tariff.drop),),
    )


class Tariff:
    """Answers what is asked about versions."""

    def __init__(self, store: TariffStore) -> None:
        self._store = store
        self._known: Known | None = None
        self._changes = 0
        self._subjects: set[Subject] = set()

    @property
    def revision(self) -> int | None:
        """Id of the newest version that is known here."""
        return None if self._known is None else self._known.revision

    def read(self) -> bytes:
        """Return what is known, for ``take``."""
        return msgspec.msgpack.encode(self._known)

    def take(self, known: bytes) -> None:
        """Go on with what was known once, until the database says otherwise. Raises ``msgspec.DecodeError``."""
        self._known = msgspec.msgpack.decode(known, type=Known)

    def drop(self) -> None:
        """Ask the database anew; what is being read now may be older already."""
        self._known = None
        self._changes += 1

    async def known(self, revision: int) -> Known | None:
        """Return what is valid or will be, None when there is nothing newer than ``revision``."""
        known = await self._current()
        return known if known.revision != revision else None

    async def look(self) -> None:
        """Forget what is known when there is something newer."""
        known = self._known
        if known is not None and await self._store.revision() != known.revision:
            self.drop()

    async def state(self, said: Sequence[Stated], digest: str) -> Known:
        """Take in what a configuration file says."""
        return await _whole(self._state(said, digest))

    async def _state(self, said: Sequence[Stated], digest: str) -> Known:
        self._subjects = {each.subject for each in said}
        now_us = _now_us()
        withdrawn = await self._store.state(said, digest, now_us, now_us + LEAD_US)
        if withdrawn:
            # Hosts with files that differ take each other's machines out at every start, and nothing else shows it.
            _log.warning("machines that are not in this host's file cost nothing any more", machines=withdrawn)
        self.drop()
        return await self._current()

    async def _current(self) -> Known:
        while self._known is None:
            changes = self._changes
            found = await _whole(self._store.known(_now_us()))
            if changes == self._changes:
                self._known = found
        return self._known

    async def accept(self, proposals: Sequence[Proposal], revision: int | None = None) -> tuple[Version, ...]:
        """Make versions, all or none. Raises ``BadRequest`` for one that cannot be, and ``Conflict``."""
        now_us = _now_us()
        spoken = await self._spoken_of()
        for proposal in proposals:
            self._check(proposal, now_us, spoken)
        versions = await self._store.accept(proposals, now_us, now_us + LEAD_US, revision)
        self.drop()
        return versions

    async def versions(self, query: VersionQuery) -> tuple[Version, ...]:
        """Return a page of all versions."""
        return await self._store.page(query)

    async def _spoken_of(self) -> set[Subject]:
        """Return the subjects that have a version."""
        known = await self._current()
        return {version.subject for version in known.versions}

    def _check(self, proposal: Proposal, now_us: int, spoken: Collection[Subject]) -> None:
        """Raise ``BadRequest`` when ``proposal`` cannot become a version.

        Args:
            proposal: what is wanted.
            now_us: microseconds since 1970.
            spoken: the subjects that have a version.
        """
        about = " ".join(word for word in (proposal.kind.value, proposal.model, proposal.place) if word)
        said = [each for each in (proposal.rates, proposal.hourly, proposal.terms) if each is not None]
        allowed = {Kind.HOUR: proposal.hourly, Kind.TERMS: proposal.terms}.get(proposal.kind, proposal.rates)
        if said and (len(said) > 1 or allowed is None):
            raise BadRequest(f"{about}: says something else than its kind does")
        if proposal.valid_from_us and proposal.valid_from_us < now_us - GRACE_US:
            raise BadRequest(f"{about}: valid_from is in the past; requests of the past keep the price they had")
        texts = (proposal.model, proposal.place, proposal.who, proposal.why, proposal.source, proposal.source_version)
        if any(len(text) > LONGEST_TEXT or not (text.isprintable() or not text) for text in texts):
            raise BadRequest(f"{about}: a text is over {LONGEST_TEXT} characters or more than one line")
        if not proposal.who or not proposal.source:
            raise BadRequest(f"{about}: say who makes it, and its source")
        terms = proposal.terms
        if terms is not None and not (0 <= terms.discount <= BASIS_POINTS and 0 <= terms.markup <= MOST_MARKUP):
            raise BadRequest(f"{about}: a discount is 0 to 10000 basis points, a markup 0 to {MOST_MARKUP}")
        if terms is not None and not proposal.place:
            raise BadRequest(f"{about}: terms are a team's: say whose, as its place")
        # What there is can be withdrawn also when it is not in the file any more, or nothing would ever end it.
        there = self._subjects if said else {*self._subjects, *spoken}
        if proposal.kind is not Kind.TERMS:
            known = proposal.subject in there
        else:
            known = not said or not proposal.model or any(model == proposal.model for _, model, _ in self._subjects)
        if self._subjects and not known:
            raise BadRequest(f"{about}: the configuration file has no such model, endpoint or backend")


async def _whole(work: Coroutine[Any, Any, Known]) -> Known:
    """Return what ``work`` gives; it is done whole, whoever stops waiting for it: a worker that ends in this process.

    A task that is cancelled inside a call of the database leaves a broken connection.
    """
    return await asyncio.shield(asyncio.get_running_loop().create_task(work))


def _now_us() -> int:
    return time.time_ns() // 1000
