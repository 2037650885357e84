"""What the keeper answers about billing, in ``gateway.billing.office`` and ``gateway.billing.reconciliation``.

Imported by whoever asks, and by a keeper that was not asked yet, so it knows no database.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.billing.invoice import InvoiceLine
from gateway.billing.line import LineKey, LinePage
from gateway.config.snapshot import ConfigSnapshot
from gateway.types.method import Method, method

_LONG: Final = 1_800.0
"""Seconds for what may read a day of the ledger, or a month."""
ALWAYS: Final = 2**31 - 1
"""A day after all others."""
LABELS: Final = ("team", "key_id", "model", "endpoint", "app", "tier", "status")
SUMS: Final = (
    *("requests", "tokens_prompt", "tokens_completion", "tokens_cache_read", "tokens_cache_write"),
    *("tokens_reasoning", "tokens_audio_prompt", "tokens_audio_completion", "tokens_image_prompt"),
    *("tokens_image_completion", "charge_nano", "discount_nano", "byok_list_nano"),
)


class Selection(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Which lines are wanted.

    Attributes:
        team: only this team's, or None for all.
        period: all that is billed in this period; or ``""``, then all usage of some days, whenever it is billed.
        first, last: those days.
    """

    team: str | None
    period: str
    first: int = 0
    last: int = ALWAYS


class Sheet(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A part of the lines.

    Attributes:
        kind: ``billed`` (lines of a closed period), ``open`` (a day that is not billed) or ``late`` (what a billed day
            got since).
        period: where they are, or will be, billed.
        first, last: days of their usage.
        sums: sums of the daily rollup of a day that is not billed: whoever has read it at these need not again.
    """

    kind: str
    period: str
    first: int
    last: int
    sums: tuple[int, ...] = ()


class Plan(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a selection is made of.

    Attributes:
        sheets: the parts, in order.
        closed: whether all of it is final.
        issuers: who charges, by closed period.
    """

    sheets: tuple[Sheet, ...]
    closed: bool
    issuers: dict[str, str]


class UsageQuery(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Which usage is wanted, and by what it is grouped.

    Attributes:
        hourly: whether ``first`` and ``last`` are hours, else days, both counted from 1970.
        first, last: both included.
        group_by: some of ``LABELS``.
        teams, keys, models: only these; None for all.
    """

    hourly: bool
    first: int
    last: int
    group_by: tuple[str, ...]
    teams: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None


class UsageGroup(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Sums of one hour or day and one group.

    Attributes:
        time: the hour or day.
        labels: values of ``group_by``, in its order.
        sums: in the order of ``SUMS``; ``requests`` counts answered ones, tokens are those that a team may pay for.
    """

    time: int
    labels: tuple[str, ...]
    sums: tuple[int, ...]

    def __getitem__(self, name: str) -> int:
        return self.sums[SUMS.index(name)]


class HitGroup(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Requests of one day that were answered from the response cache, which are in no ledger: they cost nothing.

    Attributes:
        day: UTC day, counted from 1970.
        provider: who had given the answer.
    """

    day: int
    team: str
    model: str
    provider: str
    hits: int


class UsageRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row of the daily rollup: day, ``LABELS``, ``SUMS`` of all attempts, whoever pays."""

    day: int
    labels: tuple[str, ...]
    sums: tuple[int, ...]


class OutboxItem(msgspec.Struct, array_like=True, frozen=True):
    """An item of the outbox; see ``gateway.db.tables.billing.OutboxRow``."""

    item: str
    sink: str
    state: str
    attempts: int
    created_us: int
    next_us: int
    done_us: int | None
    error: str
    payload: str = ""


class PeriodState(msgspec.Struct, array_like=True, frozen=True):
    """A period.

    Attributes:
        period: the month.
        state: ``open`` or ``closed``.
        closed_us: when it was closed, microseconds since 1970.
        lines: lines billed in it, 0 while it is open.
        charge_nano, discount_nano: what is, or so far would be, charged in it, and how much below the list price.
        digest: SHA-256 over the digests of its statements, ``""`` while it is open.
    """

    period: str
    state: str
    closed_us: int | None
    lines: int
    charge_nano: int
    discount_nano: int
    digest: str


class Document(msgspec.Struct, array_like=True, frozen=True):
    """A statement as it is given out.

    Attributes:
        content: its bytes.
        digest: their SHA-256 as hexadecimal digits.
        closed: whether it is final.
    """

    content: bytes
    digest: str
    closed: bool


class TeamName(msgspec.Struct, array_like=True, frozen=True):
    """A team: slug and name."""

    slug: str
    name: str


class Caller(msgspec.Struct, array_like=True, frozen=True):
    """What a caller wants to see, by names of its own making.

    Attributes:
        team: the only team it may see, or None for all.
        teams: teams it asks for, None for all it may see.
        key_hash: hash of the key it asks for, or ``""``.
        key_ids: public ids of keys it asks for, None for all.
    """

    team: str | None
    teams: tuple[str, ...] | None = None
    key_hash: str = ""
    key_ids: tuple[str, ...] | None = None


class Reconciled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One day and model of an invoice, money in nano-USD.

    Attributes:
        day: UTC, counted from 1970.
        model: our id, or the invoice's name when the provider never served it here.
        invoiced: what the provider wants; None when the invoice does not have it.
        recorded: the cost in the ledger before, earlier corrections included.
        invoiced_tokens, recorded_tokens: to compare; never corrected. None when the invoice does not say.
        outcome: ``equal``, ``corrected``, ``differs`` (a dry run), ``unknown`` (the provider never served this model
            here), ``not invoiced``, or ``overtaken`` (another reconciliation corrected it at the same time).
    """

    day: int
    model: str
    invoiced: int | None
    recorded: int
    invoiced_tokens: int | None
    recorded_tokens: int
    outcome: str


CLOSE: Final[Method[PeriodState]] = method("billing.close", tuple[str], PeriodState, repeatable=True, seconds=_LONG)
PERIODS: Final[Method[tuple[PeriodState, ...]]] = method(
    "billing.periods", tuple[()], tuple[PeriodState, ...], seconds=_LONG
)
STATEMENT: Final[Method[Document]] = method("billing.statement", tuple[str, str, str], Document, seconds=_LONG)
"""Period, team and form to the document."""
TEAMS: Final[Method[tuple[TeamName, ...]]] = method("billing.teams", tuple[str], tuple[TeamName, ...], seconds=60.0)
"""Teams as they are, or as they were called when a period was closed."""
PLAN: Final[Method[Plan]] = method("billing.plan", tuple[Selection], Plan, seconds=60.0)
LINES: Final[Method[LinePage]] = method(
    "billing.lines", tuple[Sheet, str | None, LineKey | None], LinePage, seconds=_LONG
)
"""Sheet, team (None for all) and cursor to a page."""
USAGE: Final[Method[tuple[UsageGroup, ...]]] = method(
    "billing.usage", tuple[UsageQuery, Caller], tuple[UsageGroup, ...], seconds=60.0
)
CACHE_HITS: Final[Method[tuple[HitGroup, ...]]] = method(
    "billing.cache_hits", tuple[UsageQuery, Caller], tuple[HitGroup, ...]
)
"""Answers from the response cache by day, team, model and provider, of days that have their hours."""
USAGE_ROWS: Final[Method[tuple[UsageRow, ...]]] = method(
    "billing.usage_rows",
    tuple[str | None, int, int, tuple[int, str, str, str, str, str, str, str] | None],
    tuple[UsageRow, ...],
    seconds=60.0,
)
"""Team, first and last day, and cursor to the next rows of the daily rollup."""
OUTBOX: Final[Method[tuple[OutboxItem, ...]]] = method("billing.outbox", tuple[()], tuple[OutboxItem, ...])
RETRY: Final[Method[OutboxItem]] = method("billing.retry", tuple[str], OutboxItem)
ORDER: Final[Method[OutboxItem]] = method(
    "billing.order", tuple[str, str, Selection, str], OutboxItem, repeatable=False
)
"""Sink, dataset, selection and format: have an export made and delivered."""
RECONCILE: Final[Method[tuple[Reconciled, ...]]] = method(
    "billing.reconcile", tuple[str, tuple[InvoiceLine, ...], str, bool], tuple[Reconciled, ...], seconds=600.0
)
"""Compare an invoice of a provider (its lines and the digest of its file) and, unless it is a dry run, correct."""

OFFICE: Final[tuple[Method[Any], ...]] = (
    *(CLOSE, PERIODS, STATEMENT, TEAMS, PLAN, LINES),
    *(USAGE, CACHE_HITS, USAGE_ROWS, OUTBOX, RETRY, ORDER),
)
"""What ``gateway.billing.office`` answers."""


def due(config: ConfigSnapshot | None) -> bool:
    """Return whether billing has something to do unasked: periods to close, or sinks to deliver to."""
    return config is not None and (config.billing.close_after_s is not None or bool(config.billing.sinks))
