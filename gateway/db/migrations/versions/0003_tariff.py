"""Price versions, tiers and terms of prices, discounts of ledger rows, the allocation of own machines.

Revision ID: 0003_tariff
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0003_tariff"
down_revision = "0002_access"
branch_labels = None
depends_on = None

CLASSES = ("nano", "prompt", "completion", "cache_read", "cache_write", "reasoning", "audio", "image", "request")


def upgrade() -> None:
    for name in CLASSES:
        op.add_column("ledger", sa.Column(f"discount_{name}", sa.BigInteger(), nullable=True))
    for table in ("usage_hour", "usage_day"):
        op.add_column(table, number("discount_nano", default="0"))
    for name in ("tiers", "service_tiers"):
        op.add_column("price", sa.Column(name, AutoString(), nullable=False, server_default=sa.text("''")))
    for name in ("discount", "markup"):
        op.add_column("price", number(name, default="0"))
    make_versions()
    make_allocation()


def number(name: str, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)


def make_versions() -> None:
    op.create_table(
        "price_version",
        sa.Column("version_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", AutoString(), nullable=False),
        sa.Column("model", AutoString(), nullable=False),
        sa.Column("place", AutoString(), nullable=False),
        number("valid_from_us"),
        sa.Column("content", AutoString(), nullable=False),
        number("content_id"),
        *[sa.Column(name, AutoString(), nullable=False) for name in ("who", "why", "source", "source_version")],
        number("made_us"),
        sa.PrimaryKeyConstraint("version_id"),
    )
    op.create_index("ix_price_version_subject", "price_version", ["kind", "model", "place"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION weir_keep_price_version() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'a price version is never changed'; END $$"
        )
        op.execute(
            "CREATE TRIGGER price_version_kept BEFORE UPDATE OR DELETE ON price_version "
            "FOR EACH ROW EXECUTE FUNCTION weir_keep_price_version()"
        )
        return
    for what in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER price_version_kept_{what} BEFORE {what.upper()} ON price_version "
            "BEGIN SELECT RAISE(ABORT, 'a price version is never changed'); END"
        )


def make_allocation() -> None:
    op.create_table(
        "allocation_hour",
        sa.Column("hour", sa.Integer(), nullable=False),
        *[sa.Column(name, AutoString(), nullable=False) for name in ("backend", "model", "endpoint")],
        number("usd_per_hour_nano"),
        number("cost_nano"),
        sa.Column("share", sa.Integer(), nullable=False),
        number("tokens"),
        number("busy_us"),
        sa.Column("measure", AutoString(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "backend", "model", "endpoint"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("allocation_hour")
    op.drop_table("price_version")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION weir_keep_price_version()")
    for name in ("markup", "discount", "service_tiers", "tiers"):
        op.drop_column("price", name)
    for table in ("usage_day", "usage_hour"):
        op.drop_column(table, "discount_nano")
    for name in reversed(CLASSES):
        op.drop_column("ledger", f"discount_{name}")
