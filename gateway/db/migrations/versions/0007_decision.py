"""Sampled routing decisions.

Revision ID: 0007_decision
"""

from __future__ import annotations

revision = "0007_decision"
down_revision = "0006_billing"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
