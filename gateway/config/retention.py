"""The sections of the configuration file about what is kept, and for how long: books, answers, prompts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.field import Section
from gateway.config.snapshot import ContentSpec, RepetitionSpec, RetentionSpec

_MIB = 2**20


class RetentionSection(Section):
    """How many days books are kept; daily sums, totals and bills stay for ever."""

    ledger_days: Annotated[int, Field(ge=62, le=36_500)] = Field(
        400,
        description="Days that ledger rows are kept. Usage that reaches the ledger later than that goes into "
        "quarantine, so it is longer than any billing period.",
    )
    hour_days: Annotated[int, Field(ge=62, le=36_500)] = Field(
        400, description="Days that hourly sums are kept; windows of boards in hours go no further back."
    )
    quarantine_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        None, description="Days after which a journal segment in quarantine is deleted. Default: never."
    )

    def values(self) -> RetentionSpec:
        """Return the section as a plain value."""
        return RetentionSpec(**dict(self))


class RepetitionSection(Section):
    """Answers that are given again: `Idempotency-Key` and the response cache."""

    lifetime_hours: Annotated[float, Field(gt=0, le=24 * 30)] = Field(
        24, description="Hours that the answer to an `Idempotency-Key` is kept."
    )
    largest_mib: Annotated[float, Field(gt=0, le=32)] = Field(
        8, description="MiB of the largest answer that is kept, as it was sent."
    )
    most_mib: Annotated[float, Field(gt=0, le=2**20)] = Field(
        256, description="MiB of answers to `Idempotency-Key` that are kept for one inference key."
    )
    cache: bool = Field(True, description="Whether callers may use the response cache (`X-OpenRouter-Cache`).")
    cache_mib: Annotated[float, Field(gt=0, le=2**20)] = Field(
        64, description="MiB of cached answers for one inference key; the oldest make room."
    )

    def values(self) -> RepetitionSpec:
        """Return the section as a plain value."""
        return RepetitionSpec(
            self.lifetime_hours * 3600,
            int(self.largest_mib * _MIB),
            int(self.most_mib * _MIB),
            self.cache,
            int(self.cache_mib * _MIB),
        )


class ContentSection(Section):
    """Storing what was asked and answered, sealed. The management API says otherwise for single teams and keys."""

    store: bool = Field(False, description="Whether prompts and answers of all teams are stored.")
    lifetime_days: Annotated[int, Field(ge=1, le=3650)] = Field(30, description="Days that they are kept.")
    largest_mib: Annotated[float, Field(gt=0, le=32)] = Field(
        8, description="MiB of the largest prompt and answer together that are stored; larger ones are counted."
    )

    def values(self) -> ContentSpec:
        """Return the section as a plain value."""
        return ContentSpec(self.store, self.lifetime_days, int(self.largest_mib * _MIB))
