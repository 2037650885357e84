"""Members, guardrails and presets of teams.

Revision ID: 0010_workspace
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0010_workspace"
down_revision = "0009_response"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("inference_key", sa.Column("creator", AutoString(), nullable=False, server_default=""))
    op.create_table(
        "workspace",
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("description", AutoString(), nullable=False),
        sa.Column("default_model", AutoString(), nullable=False),
        sa.Column("default_sort", AutoString(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team"),
    )
    op.create_table(
        "workspace_member",
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("user_id", AutoString(), nullable=False),
        sa.Column("role", AutoString(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["team"], ["team.slug"]),
        sa.PrimaryKeyConstraint("team", "user_id"),
    )
    op.create_index("ix_workspace_member_user_id", "workspace_member", ["user_id"])
    _guardrails()
    _presets()


def _guardrails() -> None:
    op.create_table(
        "guardrail",
        sa.Column("guardrail_id", AutoString(), nullable=False),
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("description", AutoString(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=True),
        sa.Column("period", AutoString(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["team"], ["team.slug"]),
        sa.PrimaryKeyConstraint("guardrail_id"),
    )
    op.create_index("ix_guardrail_team", "guardrail", ["team"])
    for name, column in (("guardrail_key", "key_id"), ("guardrail_member", "user_id")):
        op.create_table(
            name,
            sa.Column("guardrail_id", AutoString(), nullable=False),
            sa.Column(column, AutoString(), nullable=False),
            sa.Column("created_at", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint("guardrail_id", column),
        )


def _presets() -> None:
    op.create_table(
        "preset",
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("slug", AutoString(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["team"], ["team.slug"]),
        sa.PrimaryKeyConstraint("team", "slug"),
    )
    op.create_table(
        "preset_version",
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("slug", AutoString(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("config", AutoString(), nullable=False),
        sa.Column("system_prompt", AutoString(), nullable=False),
        sa.Column("creator", AutoString(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team", "slug", "version"),
    )


def downgrade() -> None:
    for name in ("preset_version", "preset", "guardrail_member", "guardrail_key"):
        op.drop_table(name)
    op.drop_table("guardrail")
    op.drop_table("workspace_member")
    op.drop_table("workspace")
    # What guardrails made of themselves means nothing without them.
    op.execute("DELETE FROM budget WHERE source LIKE 'guardrail:%'")
    op.drop_column("inference_key", "creator")
