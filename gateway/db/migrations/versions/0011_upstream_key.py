"""Teams' own keys for upstreams.

Revision ID: 0011_upstream_key
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0011_upstream_key"
down_revision = "0010_workspace"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "upstream_key",
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("provider", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("label", AutoString(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("keys", sa.JSON(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("fallback", sa.Boolean(), nullable=False),
        sa.Column("required", sa.Boolean(), nullable=False),
        sa.Column("only", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["team"], ["team.slug"]),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_index("ix_upstream_key_team", "upstream_key", ["team"])


def downgrade() -> None:
    op.drop_index("ix_upstream_key_team", "upstream_key")
    op.drop_table("upstream_key")
