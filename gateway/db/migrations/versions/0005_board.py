"""Boards: milestones, records, attribution.

Revision ID: 0005_board
"""

from __future__ import annotations

revision = "0005_board"
down_revision = "0004_budget"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
