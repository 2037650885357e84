"""Stored answers of the Responses API and stored prompts and answers.

Revision ID: 0009_response
"""

from __future__ import annotations

revision = "0009_response"
down_revision = "0008_lifetime"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
