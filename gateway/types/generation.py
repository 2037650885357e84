"""What can be looked up about one answered request, and by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from gateway.types.tokens import Usage


class AttemptRecord(msgspec.Struct, frozen=True):
    """One upstream try of a request, as the ledger has it.

    Attributes:
        attempt: 1-based number.
        status: see ``gateway.metering.record.Status``.
        charge_nano: what the team paid, nano-USD.
        cost_nano: what the owner paid, nano-USD.
        replayed: see ``gateway.metering.record.Close``.
        byok: whether it went with a key of the team's own.
        discount_nano: what the charge is below the list price.
        cache_nano: what the charge is below that without a cache, negative where writing to it cost more than was
            saved; None where no cache took part or nothing was charged.
        ttft_us, duration_us, generation_us: microseconds, see ``gateway.metering.record.Close``.
    """

    attempt: int
    status: str
    team: str
    key_id: str
    model: str
    endpoint: str
    backend: str
    provider: str
    app: str
    tier: str
    operation: str
    requested_model: str
    upstream_model: str
    user: str
    streamed: bool
    finish_reason: str
    http_status: int
    usage: Usage
    source: str
    charge_nano: int
    cost_nano: int
    ttft_us: int
    duration_us: int
    generation_us: int
    upstream_id: str
    error: str
    replayed: int = 0
    byok: bool = False
    discount_nano: int = 0
    cache_nano: int | None = None


class GenerationRecord(msgspec.Struct, frozen=True):
    """A request and all its attempts, first to last.

    Attributes:
        created_us: microseconds since 1970, from the request id.
    """

    request_id: bytes
    created_us: int
    attempts: tuple[AttemptRecord, ...]


class MeterReport(msgspec.Struct, frozen=True):
    """The outcome of ``weir meter audit``.

    Attributes:
        ok: whether all books agree.
        journal: counts of the segments on disk.
        ledger: counts and sums of the ledger.
        rollups: sums of the rollups.
        mismatches: one sentence per disagreement; empty when ``ok``.
    """

    ok: bool
    journal: dict[str, int]
    ledger: dict[str, int]
    rollups: dict[str, int]
    mismatches: tuple[str, ...]


class KeyUsage(msgspec.Struct, frozen=True, gc=False):
    """What a key was charged, in nano-USD: ever, and in the running UTC day, week (from Monday) and month.

    ``byok_*`` is the list price of what went with keys of the team's own, which it paid to the providers.
    """

    total: int = 0
    day: int = 0
    week: int = 0
    month: int = 0
    byok_total: int = 0
    byok_day: int = 0
    byok_week: int = 0
    byok_month: int = 0


class LedgerReader(Protocol):
    """Reading what was metered."""

    async def generation(self, request_id: bytes) -> GenerationRecord | None:
        """Return a request by id, also one that ended a moment ago; None when it is unknown."""

    async def recent(self, limit: int) -> Sequence[GenerationRecord]:
        """Return the newest requests, newest first."""

    async def audit(self) -> MeterReport:
        """Compare journal, ledger and rollups."""

    async def key_usage(self, key_ids: Sequence[str]) -> Mapping[str, KeyUsage]:
        """Return what each of the keys was charged, by key id; zeros for a key that was never used."""
