"""Teams and inference keys."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0002_access"
down_revision = "0001_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    team = op.create_table(
        "team",
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("slug"),
    )
    op.create_table(
        "inference_key",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("previous_digest", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", sa.BigInteger(), nullable=True),
        sa.Column("team", sa.String(), nullable=False),
        sa.Column("models", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("rpm", sa.BigInteger(), nullable=True),
        sa.Column("tpm", sa.BigInteger(), nullable=True),
        sa.Column("concurrent", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["team"], ["team.slug"]),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_index("ix_inference_key_team", "inference_key", ["team"])
    op.bulk_insert(team, [{"slug": "default", "name": "Default", "created_at": time.time_ns() // 1_000}])


def downgrade() -> None:
    op.drop_table("inference_key")
    op.drop_table("team")
