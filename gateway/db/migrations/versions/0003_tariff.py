"""Price versions, discounts, the allocation of own GPUs.

Revision ID: 0003_tariff
"""

from __future__ import annotations

revision = "0003_tariff"
down_revision = "0002_access"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
