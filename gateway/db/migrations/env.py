"""Alembic's entry: runs the revisions over the connection that ``gateway.db.migrations`` hands in.

Only in-process use is supported: without a connection this raises ``KeyError``.
"""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import gateway.db.tables.every  # noqa: F401 - imported for the tables it registers

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
