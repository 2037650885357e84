"""Tables of budgets: what they are, what hosts have leased of them, and which alerts went out.

Amounts are nano-USD, times microseconds since 1970. What was spent is in no table of its own: it is read from the daily
rollups, so it can never differ from the ledger.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import JSON, BigInteger, text
from sqlmodel import Field

from gateway.db.tables.table import Table


class BudgetRow(Table, table=True):
    """A budget; see ``gateway.types.budgets.Budget``. ``""`` in a part of its scope stands for all."""

    __tablename__: ClassVar[str] = "budget"

    budget_id: str = Field(primary_key=True)
    key_id: str
    team: str
    model: str
    period: str
    limit_nano: int = Field(sa_type=BigInteger)
    hard: bool
    alerts: list[int] = Field(sa_type=JSON)
    source: str
    created_at: int = Field(sa_type=BigInteger)
    updated_at: int = Field(sa_type=BigInteger)


class BudgetLeaseRow(Table, table=True):
    """What a host may still spend of one window of a budget, as far as the ledger tells. Only that host writes it.

    On a server it does so again and again (``updated_at``), by which others see that it lives.
    """

    __tablename__: ClassVar[str] = "budget_lease"

    budget_id: str = Field(primary_key=True)
    window_day: int = Field(primary_key=True)
    host: str = Field(primary_key=True, index=True)
    amount: int = Field(sa_type=BigInteger)
    updated_at: int = Field(sa_type=BigInteger)


class BudgetAlertRow(Table, table=True):
    """A percentage of a budget that was reached in a window; there is one of each, whoever noticed it.

    ``claimed_until`` keeps other hosts from sending it at the same time. ``receiver`` is the host that it was last sent
    to, ``outcome`` what came of that; both are ``""`` before the first try.
    """

    __tablename__: ClassVar[str] = "budget_alert"

    budget_id: str = Field(primary_key=True)
    window_day: int = Field(primary_key=True)
    percent: int = Field(primary_key=True)
    limit_nano: int = Field(sa_type=BigInteger)
    spent_nano: int = Field(sa_type=BigInteger)
    crossed_at: int = Field(sa_type=BigInteger)
    delivered_at: int | None = Field(default=None, sa_type=BigInteger)
    claimed_until: int = Field(default=0, sa_type=BigInteger)
    tries: int = 0
    receiver: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    outcome: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
