"""What the keeper answers and does about budgets: setting, listing, deleting, and keeping house."""

from __future__ import annotations

from gateway.access.alerts import TURN_S, Alerts
from gateway.access.treasury import ROUND_S, Treasury
from gateway.db.office import Duty, Office
from gateway.types.budgets import (
    ALERTS,
    BUDGETS,
    DELETE_BUDGET,
    ENDED_BUDGETS,
    FILE_BUDGETS,
    LEASES,
    RELEASE,
    SET_BUDGET,
)
from gateway.types.errors import BadRequest


def open_office(treasury: Treasury, alerts: Alerts) -> Office:
    """Return the office of budgets."""

    async def release(host: str) -> int:
        if host == treasury.host:
            raise BadRequest("this host is here: it gives its leases back by itself", param="host")
        return await treasury.store.release(host)

    return Office(
        handlers={
            SET_BUDGET: treasury.set,
            BUDGETS: treasury.states,
            ENDED_BUDGETS: treasury.ended,
            DELETE_BUDGET: treasury.delete,
            FILE_BUDGETS: treasury.follow_file,
            LEASES: treasury.store.leases,
            RELEASE: release,
            ALERTS: alerts.history,
        },
        duties=(Duty("budgets", ROUND_S, treasury.keep_house), Duty("alerts", TURN_S, alerts.turn)),
    )
