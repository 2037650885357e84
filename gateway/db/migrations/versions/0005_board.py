"""Boards: totals per day and name, milestones, the apps that callers say they are.

Revision ID: 0005_board
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0005_board"
down_revision = "0004_budget"
branch_labels = None
depends_on = None

LINES = tuple(10**power for power in range(9, 14))
SUMS = (
    "SUM(tokens_prompt + tokens_completion), "
    "SUM(CASE WHEN status IN ('ok', 'client_cancel', 'orphaned') THEN requests ELSE 0 END), "
    "SUM(charge_nano), SUM(cost_nano)"
)
COUNTS = ("tokens", "requests", "charge_nano", "cost_nano")
BOARDS = {"model": "model", "team": "team", "app": "app", "endpoint": "model || ' ' || endpoint"}


def upgrade() -> None:
    make_totals()
    make_milestones()
    make_apps()
    fill_totals()


def make_totals() -> None:
    for table, time in (("board_day_total", "day"), ("board_block_total", "block")):
        op.create_table(
            table,
            sa.Column("team", AutoString(), nullable=False),
            sa.Column("board", AutoString(), nullable=False),
            sa.Column(time, sa.Integer(), nullable=False),
            sa.Column("name", AutoString(), nullable=False),
            *[sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS],
            sa.PrimaryKeyConstraint("team", "board", time, "name"),
            sqlite_with_rowid=False,
        )


def make_milestones() -> None:
    line = op.create_table(
        "milestone_line",
        sa.Column("tokens", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("tokens"),
    )
    op.bulk_insert(line, [{"tokens": tokens} for tokens in LINES])
    op.create_table(
        "milestone",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("model", AutoString(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("crossed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "model", "line"),
        sqlite_with_rowid=False,
    )


def make_apps() -> None:
    op.create_table(
        "app",
        sa.Column("app", AutoString(), nullable=False),
        sa.Column("title", AutoString(), nullable=False),
        sa.Column("categories", AutoString(), nullable=False),
        sa.Column("status", AutoString(), nullable=False),
        sa.Column("first_key", AutoString(), nullable=False),
        sa.Column("first_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("decided_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("app"),
    )
    op.create_table(
        "app_use",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("key_id", AutoString(), nullable=False),
        sa.Column("app", AutoString(), nullable=False),
        sa.PrimaryKeyConstraint("day", "key_id", "app"),
        sqlite_with_rowid=False,
    )


def fill_totals() -> None:
    """Make from the rollups what they would have made, and know the apps that are in them."""
    into = "INSERT INTO board_day_total (team, board, day, name, tokens, requests, charge_nano, cost_nano)"
    for board, name in BOARDS.items():
        op.execute(f"{into} SELECT '', '{board}', day, {name}, {SUMS} FROM usage_day GROUP BY day, {name}")
        op.execute(f"{into} SELECT team, '{board}', day, {name}, {SUMS} FROM usage_day GROUP BY team, day, {name}")
    sums = ", ".join(f"SUM({name})" for name in COUNTS)
    op.execute(
        f"INSERT INTO board_block_total (team, board, block, name, {', '.join(COUNTS)}) "
        f"SELECT team, board, day / 16, name, {sums} FROM board_day_total GROUP BY team, board, day / 16, name"
    )
    op.execute(
        "INSERT INTO app (app, title, categories, status, first_key, first_seen_us) "
        "SELECT app, '', '', 'pending', MIN(key_id), MIN(day) * 86400000000 FROM usage_day WHERE app <> '' GROUP BY app"
    )


def downgrade() -> None:
    for table in ("app_use", "app", "milestone", "milestone_line", "board_block_total", "board_day_total"):
        op.drop_table(table)
