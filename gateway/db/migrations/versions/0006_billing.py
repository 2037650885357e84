"""Closed periods, statements, corrections, the outbox of exports.

Revision ID: 0006_billing
"""

from __future__ import annotations

revision = "0006_billing"
down_revision = "0005_board"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
