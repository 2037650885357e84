"""All tables. Importing this package fills ``SQLModel.metadata``, which the migrations are compared with."""

from __future__ import annotations

from gateway.db.tables import access, ledger

__all__ = ["access", "ledger"]
