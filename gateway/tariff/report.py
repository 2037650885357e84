"""Margins and machine hours as programs read them: money as decimal strings in USD, days as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from gateway.tariff.allocation import SHARES
from gateway.tariff.form import EPOCH, day_text
from gateway.tariff.margin import AllocationLine, MarginLine, total
from gateway.types.money import NANO_PER_USD, usd_text


def margin_form(lines: Sequence[MarginLine]) -> dict[str, Any]:
    """Return lines and their total."""
    return {"data": [_line(line) for line in lines], "total": _line(total(lines))}


def _line(line: MarginLine) -> dict[str, Any]:
    return {
        "day": None if line.day is None else day_text(line.day),
        "model": line.model or None,
        "endpoint": line.endpoint or None,
        "idle": line.idle,
        "requests": line.requests,
        "tokens": str(line.tokens),
        "list_usd": usd_text(line.charge + line.discount),
        "discount_usd": usd_text(line.discount),
        "charged_usd": usd_text(line.charge),
        "token_cost_usd": usd_text(line.token_cost),
        "hour_cost_usd": usd_text(line.hour_cost),
        "cost_usd": usd_text(line.cost),
        "margin_usd": usd_text(line.margin),
        "tokens_per_usd_charged": _number(line.tokens_per_usd_charged),
        "tokens_per_usd_of_cost": _number(line.tokens_per_usd_of_cost),
    }


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def allocation_form(lines: Sequence[AllocationLine]) -> list[dict[str, Any]]:
    """Return lines of machine hours; the idle rest of an hour has no model."""
    return [
        {
            "hour": (EPOCH + timedelta(hours=line.hour)).isoformat().replace("+00:00", "Z"),
            "backend": line.backend,
            "model": line.model or None,
            "endpoint": line.endpoint or None,
            "idle": not line.model,
            "usd_per_hour": usd_text(line.usd_per_hour_nano),
            "cost_usd": usd_text(line.cost_nano),
            "share": usd_text(line.share * (NANO_PER_USD // SHARES)),
            "tokens": str(line.tokens),
            "busy_seconds": usd_text(line.busy_us * (NANO_PER_USD // SHARES)),
            "measure": line.measure,
            "final": line.final,
        }
        for line in lines
    ]
