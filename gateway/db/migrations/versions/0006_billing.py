"""Closed periods, what was billed in them, statements, the outbox of exports.

Revision ID: 0006_billing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0006_billing"
down_revision = "0005_board"
branch_labels = None
depends_on = None

SEALED = ("billing_line", "billing_statement", "billed_day")


def word(name: str) -> sa.Column[str]:
    return sa.Column(name, AutoString(), nullable=False)


def number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "billing_period",
        *map(word, ("period", "state", "owner")),
        number("touched_us"),
        sa.Column("closed_us", sa.BigInteger(), nullable=True),
        word("issuer"),
        *map(number, ("lines", "charge_nano", "discount_nano")),
        word("digest"),
        sa.PrimaryKeyConstraint("period"),
    )
    key = ("period", "team", "day", "key_id", "model", "endpoint", "tier", "price_id", "kind", "charged")
    op.create_table(
        "billing_line",
        *map(word, ("period", "team")),
        sa.Column("day", sa.Integer(), nullable=False),
        *map(word, ("key_id", "model", "endpoint", "tier")),
        number("price_id"),
        word("kind"),
        sa.Column("charged", sa.Integer(), nullable=False),
        *map(number, ("charge_nano", "discount_nano")),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*key),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_billing_line_day", "billing_line", ["day"])
    op.create_table(
        "billed_day",
        word("period"),
        sa.Column("day", sa.Integer(), nullable=False),
        *map(number, ("ledger_rows", "requests", "tokens_prompt", "tokens_completion")),
        *map(number, ("charge_nano", "cost_nano", "discount_nano")),
        sa.PrimaryKeyConstraint("period", "day"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_billed_day_day", "billed_day", ["day"])
    op.create_table(
        "billing_statement",
        *map(word, ("period", "team", "name")),
        *map(number, ("charge_nano", "discount_nano", "tokens")),
        word("digest"),
        *[sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("as_json", "as_csv", "as_html")],
        sa.PrimaryKeyConstraint("period", "team"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "billing_outbox",
        *map(word, ("item", "sink", "payload", "state")),
        sa.Column("attempts", sa.Integer(), nullable=False),
        *map(number, ("created_us", "next_us")),
        sa.Column("done_us", sa.BigInteger(), nullable=True),
        word("error"),
        sa.PrimaryKeyConstraint("item"),
    )
    op.create_index("ix_billing_outbox_due", "billing_outbox", ["state", "next_us"])
    seal()


def seal() -> None:
    """Let the database itself refuse changes of what belongs to a closed period."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION billing_sealed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF EXISTS (SELECT 1 FROM billing_period p WHERE p.period = OLD.period AND p.state = 'closed') "
            "THEN RAISE EXCEPTION 'the period % is closed', OLD.period USING ERRCODE = 'check_violation'; END IF; "
            "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$"
        )
        for table in SEALED:
            op.execute(
                f"CREATE TRIGGER {table}_sealed BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION billing_sealed()"
            )
        return
    for table in SEALED:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_sealed_{change.lower()} BEFORE {change} ON {table} WHEN EXISTS "
                "(SELECT 1 FROM billing_period p WHERE p.period = OLD.period AND p.state = 'closed') "
                "BEGIN SELECT RAISE(ABORT, 'the period is closed'); END"
            )


def downgrade() -> None:
    for table in ("billing_outbox", "billing_statement", "billed_day", "billing_line", "billing_period"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION billing_sealed()")
