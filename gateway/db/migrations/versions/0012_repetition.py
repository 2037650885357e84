"""Answers kept for an Idempotency-Key.

Revision ID: 0012_repetition
"""

from __future__ import annotations

revision = "0012_repetition"
down_revision = "0011_upstream_key"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
