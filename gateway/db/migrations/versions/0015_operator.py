"""What operators do in the console: outcomes of alerts, calibrations, settings, management keys with roles.

Revision ID: 0015_operator
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0015_operator"
down_revision = "0014_byok_usage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("receiver", "outcome"):
        op.add_column("budget_alert", sa.Column(name, AutoString(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "calibration",
        sa.Column("backend", AutoString(), nullable=False),
        sa.Column("run_id", AutoString(), nullable=False),
        sa.Column("who", AutoString(), nullable=False),
        sa.Column("began_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("problem", AutoString(), nullable=False),
        sa.Column("result", AutoString(), nullable=False),
        sa.PrimaryKeyConstraint("backend"),
    )
    op.create_table(
        "setting",
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("content", AutoString(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("who", AutoString(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "management_key",
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("role", AutoString(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("who", AutoString(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id"),
        sa.UniqueConstraint("digest"),
    )


def downgrade() -> None:
    for table in ("management_key", "setting", "calibration"):
        op.drop_table(table)
    for name in ("outcome", "receiver"):
        op.drop_column("budget_alert", name)
