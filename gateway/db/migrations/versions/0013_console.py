"""Users, sessions and the audit log of the console.

Revision ID: 0013_console
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0013_console"
down_revision = "0012_repetition"
branch_labels = None
depends_on = None

_SQLITE = (
    "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON audit_entry "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    "CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
)
_POSTGRESQL = (
    "CREATE FUNCTION audit_entry_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
    "CREATE TRIGGER audit_entry_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_append_only()",
)


def upgrade() -> None:
    _people()
    _audit()
    op.create_table(
        "backend_drain",
        sa.Column("backend", AutoString(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("backend"),
    )


def _people() -> None:
    op.create_table(
        "console_user",
        sa.Column("user_id", AutoString(), nullable=False),
        sa.Column("login", AutoString(), nullable=False),
        sa.Column("name", AutoString(), nullable=False),
        sa.Column("password", AutoString(), nullable=False),
        sa.Column("subject", AutoString(), nullable=True),
        sa.Column("must_change", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("user_id"),
        sa.UniqueConstraint("login"),
        sa.UniqueConstraint("subject"),
    )
    op.create_table(
        "console_grant",
        sa.Column("user_id", AutoString(), nullable=False),
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("role", AutoString(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["console_user.user_id"]),
        sa.PrimaryKeyConstraint("user_id", "team"),
    )
    op.create_table(
        "console_session",
        sa.Column("session_id", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", AutoString(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("address", AutoString(), nullable=False),
        sa.Column("agent", AutoString(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["console_user.user_id"]),
        sa.PrimaryKeyConstraint("session_id"),
    )
    op.create_index("ix_console_session_user_id", "console_session", ["user_id"])


def _audit() -> None:
    op.create_table(
        "audit_entry",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", AutoString(), nullable=False),
        sa.Column("via", AutoString(), nullable=False),
        sa.Column("address", AutoString(), nullable=False),
        sa.Column("verb", AutoString(), nullable=False),
        sa.Column("noun", AutoString(), nullable=False),
        sa.Column("subject", AutoString(), nullable=False),
        sa.Column("team", AutoString(), nullable=False),
        sa.Column("before", AutoString(), nullable=True),
        sa.Column("after", AutoString(), nullable=True),
        sa.PrimaryKeyConstraint("entry_id"),
    )
    op.create_index("ix_audit_entry_noun", "audit_entry", ["noun", "entry_id"])
    op.create_index("ix_audit_entry_team", "audit_entry", ["team", "entry_id"])
    for statement in _POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("backend_drain")
    op.drop_table("audit_entry")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_entry_append_only()")
    op.drop_table("console_session")
    op.drop_table("console_grant")
    op.drop_table("console_user")
