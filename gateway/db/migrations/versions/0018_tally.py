"""Tallies: sums per day and one label, which the pages of the console read; the daily rollup by model.

They are filled from the daily rollup.

Revision ID: 0018_tally
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0018_tally"
down_revision = "0017_background"
branch_labels = None
depends_on = None

KINDS = ("model", "team", "key_id", "endpoint", "app", "status")
COUNTS = (
    "requests",
    "errors",
    "retries",
    "prompt",
    "completion",
    "cached",
    "charge_nano",
    "cost_nano",
    "discount_nano",
    "byok_nano",
)
SUMS = (
    "SUM(CASE WHEN status IN ('failed', 'continued') THEN 0 ELSE requests END), "
    "SUM(CASE WHEN status IN ('upstream_error', 'refused') THEN requests ELSE 0 END), "
    "SUM(CASE WHEN status IN ('failed', 'continued') THEN requests ELSE 0 END), "
    "SUM(tokens_prompt), SUM(tokens_completion), SUM(tokens_cache_read), SUM(charge_nano), SUM(cost_nano), "
    "SUM(discount_nano), SUM(byok_list_nano)"
)


def upgrade() -> None:
    for table, time in (("tally_day", "day"), ("tally_block", "block")):
        op.create_table(
            table,
            sa.Column("team", AutoString(), nullable=False),
            sa.Column("kind", AutoString(), nullable=False),
            sa.Column(time, sa.Integer(), nullable=False),
            sa.Column("name", AutoString(), nullable=False),
            *[sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS],
            sa.PrimaryKeyConstraint("team", "kind", time, "name"),
            sqlite_with_rowid=False,
        )
    fill()
    op.create_index("ix_usage_day_model", "usage_day", ["model", "day"])


def fill() -> None:
    """Make from the rollups what they would have made."""
    into = f"INSERT INTO tally_day (team, kind, day, name, {', '.join(COUNTS)})"
    for kind in KINDS:
        grouped = f"FROM usage_day GROUP BY team, day, {kind}"
        op.execute(f"{into} SELECT team, '{kind}', day, {kind}, {SUMS} {grouped}")
    sums = ", ".join(f"SUM({name})" for name in COUNTS)
    op.execute(f"{into} SELECT '', kind, day, name, {sums} FROM tally_day GROUP BY kind, day, name")  # noqa: S608 - ours
    op.execute(
        f"INSERT INTO tally_block (team, kind, block, name, {', '.join(COUNTS)}) "  # noqa: S608 - only names of ours
        f"SELECT team, kind, day / 16, name, {sums} FROM tally_day GROUP BY team, kind, day / 16, name"
    )


def downgrade() -> None:
    op.drop_index("ix_usage_day_model", "usage_day")
    op.drop_table("tally_block")
    op.drop_table("tally_day")
