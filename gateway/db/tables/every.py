"""All tables: importing this fills ``SQLModel.metadata``, which the migrations are compared with.

A keeper imports the tables of the parts that it has opened; 41 tables and their mappers take 7 MB.
"""

from __future__ import annotations

from gateway.db.tables import (
    access,
    background,
    billing,
    board,
    budget,
    change,
    console,
    decision,
    ledger,
    lifetime,
    operator,
    repetition,
    response,
    secret,
    tally,
    tariff,
    upstream_key,
    workspace,
)

__all__ = [
    "access",
    "background",
    "billing",
    "board",
    "budget",
    "change",
    "console",
    "decision",
    "ledger",
    "lifetime",
    "operator",
    "repetition",
    "response",
    "secret",
    "tally",
    "tariff",
    "upstream_key",
    "workspace",
]
