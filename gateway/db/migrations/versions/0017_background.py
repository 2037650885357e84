"""Responses that are made in the background, and the events of their streams.

Revision ID: 0017_background
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0017_background"
down_revision = "0015_operator"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "background",
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("owner", AutoString(), nullable=False),
        sa.Column("renewed_us", sa.BigInteger(), nullable=False),
        sa.Column("begun", sa.Boolean(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_background_owner", "background", ["owner"])
    op.create_table(
        "response_event",
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "number"),
    )
    op.create_index("ix_response_event_expires_us", "response_event", ["expires_us"])


def downgrade() -> None:
    op.drop_index("ix_response_event_expires_us", "response_event")
    op.drop_table("response_event")
    op.drop_index("ix_background_owner", "background")
    op.drop_table("background")
