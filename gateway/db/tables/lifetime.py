"""From which day on books are kept; see ``gateway.metering.retention``."""

from __future__ import annotations

from typing import ClassVar, Final

from sqlmodel import Field

from gateway.db.tables.table import Table

CLOCK: Final = "clock"
"""Subject of the last day that was believed."""


class Lifetime(Table, table=True):
    """The first UTC day, counted from 1970, of which all rows of ``subject`` are still there.

    Of the subject ``clock`` it is the last day that the keeper believed its clock, of ``clock_doubt`` the seconds for
    which it has not since.
    """

    __tablename__: ClassVar[str] = "lifetime"

    subject: str = Field(primary_key=True)
    first_day: int
