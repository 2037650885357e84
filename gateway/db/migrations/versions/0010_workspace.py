"""Members, guardrails and presets of teams.

Revision ID: 0010_workspace
"""

from __future__ import annotations

revision = "0010_workspace"
down_revision = "0009_response"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
