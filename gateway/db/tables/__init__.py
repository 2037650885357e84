"""All tables. Importing this package fills ``SQLModel.metadata``, which the migrations are compared with."""

from __future__ import annotations

from gateway.db.tables import access, billing, board, budget, change, decision, ledger, lifetime, tariff

__all__ = ["access", "billing", "board", "budget", "change", "decision", "ledger", "lifetime", "tariff"]
