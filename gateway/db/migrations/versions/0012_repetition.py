"""Answers kept to be given again, and prompts and answers of teams that want them kept.

Revision ID: 0012_repetition
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0012_repetition"
down_revision = "0011_upstream_key"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _repetition()
    _cache()
    _content()


def _repetition() -> None:
    op.create_table(
        "repetition",
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("owner", AutoString(), nullable=False),
        sa.Column("renewed_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", "name"),
    )
    op.create_index("ix_repetition_owner", "repetition", ["owner"])
    op.create_index("ix_repetition_expires_us", "repetition", ["expires_us"])


def _cache() -> None:
    op.create_table(
        "cached_answer",
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("kept_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "digest"),
    )
    op.create_index("ix_cached_answer_expires_us", "cached_answer", ["expires_us"])
    op.create_table(
        "cache_hit",
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("source_id", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_cache_hit_at_us", "cache_hit", ["at_us"])


def _content() -> None:
    op.create_table(
        "generation_content",
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    for column in ("key_id", "team", "expires_us"):
        op.create_index(f"ix_generation_content_{column}", "generation_content", [column])
    op.create_table(
        "content_choice",
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("store", sa.Boolean(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("team", "key_id"),
    )


def downgrade() -> None:
    for table in ("content_choice", "generation_content", "cache_hit", "cached_answer", "repetition"):
        op.drop_table(table)
