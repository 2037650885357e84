"""Budgets, their leases and their alerts.

Revision ID: 0004_budget
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_budget"
down_revision = "0003_tariff"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budget",
        sa.Column("budget_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("team", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=False),
        sa.Column("hard", sa.Boolean(), nullable=False),
        sa.Column("alerts", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("budget_id"),
    )
    op.create_table(
        "budget_lease",
        sa.Column("budget_id", sa.String(), nullable=False),
        sa.Column("window_day", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "window_day", "host"),
    )
    op.create_index("ix_budget_lease_host", "budget_lease", ["host"])
    op.create_table(
        "budget_alert",
        sa.Column("budget_id", sa.String(), nullable=False),
        sa.Column("window_day", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("crossed_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "window_day", "percent"),
    )


def downgrade() -> None:
    op.drop_table("budget_alert")
    op.drop_table("budget_lease")
    op.drop_table("budget")
