"""Budgets, their leases and their alerts.

Revision ID: 0004_budget
"""

from __future__ import annotations

revision = "0004_budget"
down_revision = "0003_tariff"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
