"""By what a database knows the secret of the gateways over it; see ``gateway.keeper.secret``."""

from __future__ import annotations

from typing import ClassVar

from sqlmodel import Field

from gateway.db.tables.table import Table


class SecretMark(Table, table=True):
    """A mark of the secret under which a gateway began last; the secret cannot be told from it. There is one row."""

    __tablename__: ClassVar[str] = "secret_mark"

    subject: str = Field(primary_key=True)
    mark: bytes
