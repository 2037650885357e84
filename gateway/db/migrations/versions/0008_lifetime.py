"""What retention needs.

Revision ID: 0008_lifetime
"""

from __future__ import annotations

revision = "0008_lifetime"
down_revision = "0007_decision"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
