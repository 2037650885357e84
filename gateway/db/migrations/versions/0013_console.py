"""Users, sessions and the audit log of the console.

Revision ID: 0013_console
"""

from __future__ import annotations

revision = "0013_console"
down_revision = "0012_repetition"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
