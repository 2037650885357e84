"""The section on keys that teams bring along. Nothing here raises but what pydantic does."""

from __future__ import annotations

from pydantic import Field

from gateway.config.field import Section, Share
from gateway.config.snapshot import ByokSpec


class ByokSection(Section):
    """Requests that go with a team's own key for a provider."""

    fee: Share = Field(0, description='Share of the list price that such a request is charged, such as "0.05".')

    def values(self) -> ByokSpec:
        """Return the section as a plain value."""
        return ByokSpec(self.fee)
