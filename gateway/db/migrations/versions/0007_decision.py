"""Sampled routing decisions.

Revision ID: 0007_decision
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0007_decision"
down_revision = "0006_billing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decision",
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("model", AutoString(), nullable=False),
        sa.Column("policy", AutoString(), nullable=False),
        sa.Column("pick", AutoString(), nullable=False),
        sa.Column("served", AutoString(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_decision_at_us", "decision", ["at_us"])


def downgrade() -> None:
    op.drop_index("ix_decision_at_us", "decision")
    op.drop_table("decision")
