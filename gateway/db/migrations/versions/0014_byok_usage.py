"""What rollups say of teams' own keys, tokens written to caches for an hour, hits of the response cache by the hour.

The rollups are filled from the ledger, as far as it goes back.

Revision ID: 0014_byok_usage
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0014_byok_usage"
down_revision = "0013_console"
branch_labels = None
depends_on = None

OWN_KEY = 1
BYOK = ("byok_requests", "byok_list_nano", "byok_charge_nano")
TOKENS = "tokens_cache_write_1h"
KEY = ("team", "key_id", "model", "endpoint", "app", "tier", "status")
SUMS = (
    "SUM(CASE WHEN ledger.kind = 'usage' THEN 1 ELSE 0 END), "
    "SUM(ledger.charge_nano + COALESCE(ledger.discount_nano, 0)), SUM(ledger.charge_nano)"
)


def number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def upgrade() -> None:
    op.add_column("ledger", number(TOKENS))
    for table in ("usage_hour", "usage_day"):
        for name in (TOKENS, *BYOK):
            op.add_column(table, number(name))
    op.add_column("price", sa.Column("cache_write_1h", sa.BigInteger(), nullable=True))
    op.create_table(
        "cache_hit_hour",
        sa.Column("hour", sa.Integer(), nullable=False),
        *[sa.Column(name, AutoString(), nullable=False) for name in ("team", "key_id", "model", "provider")],
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "team", "key_id", "model", "provider"),
        sqlite_with_rowid=False,
    )
    fill()


def fill() -> None:
    """Sum up what the ledger has of teams' own keys."""
    connection = op.get_bind()
    if not connection.scalar(sa.text(f"SELECT COUNT(*) FROM label_set WHERE cost_id = {OWN_KEY}")):  # noqa: S608 - ours
        return
    labels = ", ".join(f"label_set.{name}" for name in KEY)
    # The first 48 bits of a request id are its milliseconds since 1970.
    rows = connection.execute(
        sa.text(
            f"SELECT ledger.request_id, ledger.day, {labels}, {SUMS} "  # noqa: S608 - only names of ours
            f"FROM ledger JOIN label_set USING (label_id) WHERE label_set.cost_id = {OWN_KEY} "
            f"GROUP BY ledger.request_id, ledger.day, {labels}"
        )
    )
    hours: dict[tuple[object, ...], list[int]] = {}
    days: dict[tuple[object, ...], list[int]] = {}
    for request_id, day, *values in rows:
        key, sums = tuple(values[: len(KEY)]), values[len(KEY) :]
        hour = int.from_bytes(bytes(request_id)[:6], "big") // 3_600_000
        for book, time in ((hours, hour), (days, day)):
            known = book.setdefault((time, *key), [0, 0, 0])
            known[:] = [one + int(other) for one, other in zip(known, sums, strict=True)]
    for table, time, book in (("usage_hour", "hour", hours), ("usage_day", "day", days)):
        names = (time, *KEY)
        statement = sa.text(
            f"UPDATE {table} SET {', '.join(f'{name} = :{name}' for name in BYOK)} "  # noqa: S608 - only names of ours
            f"WHERE {' AND '.join(f'{name} = :{name}' for name in names)}"
        )
        changes = [dict(zip((*names, *BYOK), (*key, *sums), strict=True)) for key, sums in book.items()]
        if changes:
            connection.execute(statement, changes)


def downgrade() -> None:
    op.drop_table("cache_hit_hour")
    op.drop_column("price", "cache_write_1h")
    for table in ("usage_day", "usage_hour"):
        for name in (*reversed(BYOK), TOKENS):
            op.drop_column(table, name)
    op.drop_column("ledger", TOKENS)
