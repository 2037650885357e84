"""The section of the configuration file about answers of the Responses API that are kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.field import Section
from gateway.config.snapshot import ResponsesSpec

_MIB = 2**20


class ResponsesSection(Section):
    """Answers of `/v1/responses` that are kept, sealed, so that callers can go on from them."""

    store: bool = Field(
        True,
        description="Whether they are kept. If not, `previous_response_id` is refused; callers say so for one request "
        "with `store: false`.",
    )
    lifetime_days: Annotated[float, Field(gt=0, le=3650)] = Field(30, description="Days that they are kept.")
    most_mib: Annotated[float, Field(gt=0, le=2**20)] = Field(
        1024, description="MiB of them that are kept for one inference key; the oldest make room."
    )

    def values(self) -> ResponsesSpec:
        """Return the section as a plain value."""
        return ResponsesSpec(self.store, self.lifetime_days * 86_400, int(self.most_mib * _MIB))
