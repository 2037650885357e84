"""Teams' own keys for upstreams.

Revision ID: 0011_upstream_key
"""

from __future__ import annotations

revision = "0011_upstream_key"
down_revision = "0010_workspace"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
