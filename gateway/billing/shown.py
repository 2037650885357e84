"""Periods and items of the outbox as the API and the command line show them. Nothing here raises."""

from __future__ import annotations

from typing import Any

from gateway.billing.methods import OutboxItem, PeriodState
from gateway.billing.period import iso
from gateway.types.money import usd_text


def period_data(state: PeriodState) -> dict[str, Any]:
    """Return a period as it is shown."""
    return {
        "period": state.period,
        "state": state.state,
        "closed_at": None if state.closed_us is None else iso(state.closed_us),
        "lines": state.lines if state.closed_us is not None else None,
        "list": usd_text(state.charge_nano + state.discount_nano),
        "discount": usd_text(state.discount_nano),
        "effective": usd_text(state.charge_nano),
        "digest": state.digest or None,
    }


def item_data(item: OutboxItem) -> dict[str, Any]:
    """Return an item of the outbox as it is shown."""
    return {
        "id": item.item,
        "sink": item.sink or None,
        "state": item.state,
        "attempts": item.attempts,
        "created_at": iso(item.created_us),
        "next_at": iso(item.next_us) if item.state == "pending" else None,
        "done_at": None if item.done_us is None else iso(item.done_us),
        "error": item.error or None,
    }
