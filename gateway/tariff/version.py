"""Versions: what holds from a moment on, and the methods by which the keeper is asked for them. Pure.

A *subject* is what a version is about: a kind, a model and a place. The version of a subject that is valid is the one
with the latest moment that has come; of two with one moment, the one made later.

=========  ===========  ===================================  ==========================================
kind       model        place                                says
=========  ===========  ===================================  ==========================================
``sell``   model id     ``""`` or the slug of an endpoint    what teams are charged
``cost``   model id     backend, see ``cost_place``          what the owner pays by token
``hour``   ``""``       backend                              what the owner pays by hour
``terms``  id or ``""`` slug of a team                       the team's discount and markup, for one
                                                             model or for all
=========  ===========  ===================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from gateway.types.method import Method, method
from gateway.types.money import Rates

LEAD_US: Final = 1_000_000
"""What is to be valid now is valid from a second on, when every worker has heard of it, and all switch at once."""
FILE: Final = "file"
"""The source of versions that the configuration file made."""


class Kind(StrEnum):
    """What a version is about."""

    SELL = "sell"
    COST = "cost"
    HOUR = "hour"
    TERMS = "terms"


class Hourly(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a machine costs.

    Attributes:
        nano: nano-USD per hour.
        max_running: requests it generates side by side, or None when nobody said.
    """

    nano: int
    max_running: int | None = None


class Terms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a team pays other than the list price, in basis points: first less the discount, then plus the markup."""

    discount: int = 0
    markup: int = 0


Content = Rates | Hourly | Terms
Subject = tuple[str, str, str]
"""Kind, model, place."""


class Version(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What holds for one subject from a moment on.

    It says one of ``rates``, ``hourly`` and ``terms``, or none: then the subject has nothing of its own from there on.

    Attributes:
        version_id: grows with each version that is made.
        valid_from_us: microseconds since 1970.
        who: who made it.
        why: the reason given.
        source: ``file``, ``cli``, ``api``, or where an import came from.
        source_version: in which state the source was.
        made_us: when it was made, microseconds since 1970.
    """

    version_id: int
    kind: Kind
    model: str
    place: str
    valid_from_us: int
    rates: Rates | None = None
    hourly: Hourly | None = None
    terms: Terms | None = None
    who: str
    why: str
    source: str
    source_version: str
    made_us: int

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return (self.kind, self.model, self.place)

    @property
    def content(self) -> Content | None:
        """What it says."""
        return self.rates or self.hourly or self.terms


class Stated(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a configuration file says of one subject; nothing when it says nothing."""

    kind: Kind
    model: str
    place: str
    rates: Rates | None = None
    hourly: Hourly | None = None

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return (self.kind, self.model, self.place)


class Proposal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A version to be made; see ``Version``. ``valid_from_us`` 0 is now."""

    kind: Kind
    model: str = ""
    place: str = ""
    valid_from_us: int = 0
    rates: Rates | None = None
    hourly: Hourly | None = None
    terms: Terms | None = None
    who: str
    why: str
    source: str
    source_version: str = ""

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return (self.kind, self.model, self.place)


class Known(msgspec.Struct, frozen=True, gc=False):
    """The versions that are valid now or will be.

    Attributes:
        revision: id of the newest version there is.
        versions: by subject and moment; those that others have taken the place of may be missing.
    """

    revision: int
    versions: tuple[Version, ...]


class VersionQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which versions to list, newest first.

    Attributes:
        before: only versions with a smaller id, 0 for all: the last id of a page is what the next page asks for.
        limit: how many at most.
    """

    kind: str | None = None
    model: str | None = None
    place: str | None = None
    before: int = 0
    limit: int = 1_000


TARIFF: Final[Method[Known | None]] = method("tariff.known", tuple[int], Known | None)
"""Versions that are valid or will be; None when nothing is newer than the given revision."""
STATE: Final[Method[Known]] = method("tariff.state", tuple[tuple[Stated, ...], str], Known)
"""Tell what a configuration file (its digest) says; what changed since the last time becomes versions."""
ACCEPT: Final[Method[tuple[Version, ...]]] = method(
    "tariff.accept", tuple[tuple[Proposal, ...]], tuple[Version, ...], repeatable=False
)
"""Make versions, all or none."""
ACCEPT_AT: Final[Method[tuple[Version, ...]]] = method(
    "tariff.accept_at", tuple[tuple[Proposal, ...], int], tuple[Version, ...], repeatable=False
)
"""Make versions, all or none, unless there is any that is newer than the given revision: then it is ``Conflict``."""
VERSIONS: Final[Method[tuple[Version, ...]]] = method("tariff.versions", tuple[VersionQuery], tuple[Version, ...])
"""A page of all versions, newest first."""


@dataclass(frozen=True, slots=True)
class Valid:
    """What is valid at one moment.

    A subject whose value is None has nothing of its own; one that is missing was never said anything about.

    Attributes:
        sell: rates by model and endpoint slug (``""`` for the model).
        cost: rates by model and ``cost_place``.
        hour: hourly costs by backend.
        terms: terms by team and model (``""`` for all models).
    """

    sell: Mapping[tuple[str, str], Rates | None]
    cost: Mapping[tuple[str, str], Rates | None]
    hour: Mapping[str, Hourly | None]
    terms: Mapping[tuple[str, str], Terms]


def valid(versions: Iterable[Version], now_us: int) -> Valid:
    """Return what is valid at ``now_us``, microseconds since 1970."""
    sell: dict[tuple[str, str], Rates | None] = {}
    cost: dict[tuple[str, str], Rates | None] = {}
    hour: dict[str, Hourly | None] = {}
    terms: dict[tuple[str, str], Terms] = {}
    for version in sorted(versions, key=lambda each: (each.valid_from_us, each.version_id)):
        if version.valid_from_us > now_us:
            break
        if version.kind is Kind.SELL:
            sell[version.model, version.place] = version.rates
        elif version.kind is Kind.COST:
            cost[version.model, version.place] = version.rates
        elif version.kind is Kind.HOUR:
            hour[version.place] = version.hourly
        elif version.terms is not None:
            terms[version.place, version.model] = version.terms
        else:
            terms.pop((version.place, version.model), None)
    return Valid(sell, cost, hour, terms)


def next_change(versions: Iterable[Version], now_us: int) -> int | None:
    """Return the next moment after ``now_us`` at which a version becomes valid, or None."""
    return min((each.valid_from_us for each in versions if each.valid_from_us > now_us), default=None)


def standing(versions: Iterable[Version], now_us: int) -> tuple[Version, ...]:
    """Return those of ``versions`` that are valid at ``now_us`` or will be, by subject and moment."""
    by_subject: dict[Subject, list[Version]] = {}
    for version in sorted(versions, key=lambda each: (each.subject, each.valid_from_us, each.version_id)):
        kept = by_subject.setdefault(version.subject, [])
        if version.valid_from_us <= now_us:
            kept.clear()
        kept.append(version)
    return tuple(version for kept in by_subject.values() for version in kept)
