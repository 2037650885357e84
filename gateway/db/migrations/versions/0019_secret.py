"""A mark of the secret under which gateways work over the database.

Revision ID: 0019_secret
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlmodel.sql.sqltypes import AutoString

revision = "0019_secret"
down_revision = "0018_tally"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secret_mark",
        sa.Column("subject", AutoString(), nullable=False),
        sa.Column("mark", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )


def downgrade() -> None:
    op.drop_table("secret_mark")
