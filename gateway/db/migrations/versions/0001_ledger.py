"""The books: labels, ledger, prices, rollups, model totals, journal checkpoints.

Revision ID: 0001_ledger
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0001_ledger"
down_revision = None
branch_labels = None
depends_on = None

TOKENS = (
    "prompt",
    "completion",
    "cache_read",
    "cache_write",
    "reasoning",
    "audio_prompt",
    "audio_completion",
    "image_prompt",
    "image_completion",
)
MONEY = ("prompt", "completion", "cache_read", "cache_write", "reasoning", "audio", "image", "request")
LABELS = ("team", "key_id", "model", "endpoint", "app", "tier", "status")


def big(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def count(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def text(name: str) -> sa.Column[Any]:
    return sa.Column(name, AutoString(), nullable=False)


def word(name: str) -> sa.Column[Any]:
    return sa.Column(name, AutoString(), nullable=False, server_default=sa.text("''"))


def integer(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), nullable=False)


def blob(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def tokens() -> list[sa.Column[Any]]:
    return [count(f"tokens_{name}") for name in TOKENS]


def upgrade() -> None:
    make_labels()
    make_ledger()
    make_prices()
    make_rollups()
    make_checkpoints()


def make_labels() -> None:
    op.create_table(
        "label_set",
        big("label_id"),
        *[
            text(name)
            for name in (
                "team",
                "key_id",
                "model",
                "endpoint",
                "backend",
                "provider",
                "app",
                "tier",
                "operation",
                "requested_model",
                "upstream_model",
            )
        ],
        flag("streamed"),
        big("price_id"),
        big("cost_id"),
        text("status"),
        text("finish_reason"),
        integer("http_status"),
        text("source"),
        text("error"),
        sa.PrimaryKeyConstraint("label_id"),
    )


def make_ledger() -> None:
    op.create_table(
        "ledger",
        *tokens(),
        integer("day"),
        blob("request_id"),
        integer("attempt"),
        text("kind"),
        big("label_id"),
        big("opened_us"),
        *[count(f"{side}_{name}") for side in ("charge", "cost") for name in ("nano", *MONEY)],
        count("ttft_us"),
        count("duration_us"),
        count("generation_us"),
        count("replayed"),
        word("end_user"),
        word("upstream_id"),
        sa.PrimaryKeyConstraint("day", "request_id", "attempt", "kind"),
        sqlite_with_rowid=False,
        # The pieces are made as days come, see gateway.db.partitions.
        postgresql_partition_by="RANGE (day)",
    )


def make_prices() -> None:
    op.create_table(
        "price",
        big("price_id"),
        big("prompt"),
        big("completion"),
        *[sa.Column(name, sa.BigInteger(), nullable=True) for name in TOKENS[2:]],
        big("request"),
        sa.PrimaryKeyConstraint("price_id"),
    )


def make_rollups() -> None:
    for table, time in (("usage_hour", "hour"), ("usage_day", "day")):
        op.create_table(
            table,
            *tokens(),
            big("requests"),
            big("charge_nano"),
            big("cost_nano"),
            blob("ttft"),
            blob("duration"),
            blob("throughput"),
            integer(time),
            *[text(name) for name in LABELS],
            sa.PrimaryKeyConstraint(time, *LABELS),
            sqlite_with_rowid=False,
        )
    op.create_index("ix_usage_day_key", "usage_day", ["key_id", "day"])
    op.create_table(
        "model_day_total",
        integer("day"),
        text("model"),
        big("tokens"),
        big("requests"),
        sa.PrimaryKeyConstraint("day", "model"),
        sqlite_with_rowid=False,
    )


def make_checkpoints() -> None:
    op.create_table(
        "journal_checkpoint",
        text("segment"),
        text("host"),
        big("position"),
        big("damaged"),
        flag("finished"),
        sa.PrimaryKeyConstraint("segment"),
    )


def downgrade() -> None:
    op.drop_table("journal_checkpoint")
    op.drop_table("model_day_total")
    op.drop_index("ix_usage_day_key", table_name="usage_day")
    for table in ("usage_day", "usage_hour", "price", "ledger", "label_set"):
        op.drop_table(table)
