"""What retention needs, and numbers of changes for hosts that share a database.

Revision ID: 0008_lifetime
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0008_lifetime"
down_revision = "0007_decision"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "change_number",
        sa.Column("topic", AutoString(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic"),
    )
    op.add_column("inference_key", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_inference_key_revision", "inference_key", ["revision"])
    lifetime = op.create_table(
        "lifetime",
        sa.Column("subject", AutoString(), nullable=False),
        sa.Column("first_day", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )
    op.bulk_insert(lifetime, [{"subject": name, "first_day": 0} for name in ("ledger", "usage_hour")])


def downgrade() -> None:
    op.drop_table("lifetime")
    op.drop_index("ix_inference_key_revision", table_name="inference_key")
    op.drop_column("inference_key", "revision")
    op.drop_table("change_number")
