"""Stored answers of the Responses API and stored prompts and answers.

Revision ID: 0009_response
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0009_response"
down_revision = "0008_lifetime"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_responses()


def downgrade() -> None:
    _drop_responses()


def _make_responses() -> None:
    op.create_table(
        "response",
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=True),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("ix_response_key_id", "response", ["key_id"])
    op.create_index("ix_response_expires_us", "response", ["expires_us"])


def _drop_responses() -> None:
    op.drop_index("ix_response_expires_us", "response")
    op.drop_index("ix_response_key_id", "response")
    op.drop_table("response")
