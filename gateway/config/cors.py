"""The section ``cors`` of the configuration file: web pages that may call the gateway from a browser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from gateway.config.field import Section
from gateway.config.problem import RefusedError

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_USUAL_PORTS: Final = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class CorsSpec:
    """Who may call from a browser.

    Attributes:
        origins: exact origins, as browsers send them.
        max_age: seconds for which a browser need not ask again.
    """

    origins: frozenset[str] = frozenset()
    max_age: int = 600


NO_ORIGINS: Final = CorsSpec()


def _origin(value: str) -> str:
    """Return an origin as a browser says it. Raises ``RefusedError`` for anything else, above all for ``*``."""
    if value == "*":
        raise RefusedError("stands for every page there is", "name each origin, such as https://chat.example.org")
    if not _ORIGIN.fullmatch(value):
        raise RefusedError(
            "is not an origin", "write scheme, host in lower case and port if it is not the usual one; no path, no `/`"
        )
    scheme = value.partition(":")[0]
    if value.endswith(_USUAL_PORTS[scheme]) and value.count(":") > 1:
        raise RefusedError("names the usual port, which browsers leave out", "leave the port out")
    return value


class CorsSection(Section):
    """Web pages that may call the gateway from a browser; with no origin none may."""

    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        (),
        max_length=1000,
        description="Their origins, exactly as browsers send them.",
        examples=["[https://chat.example.org]"],
    )
    max_age: Annotated[int, Field(ge=0, le=86_400)] = Field(
        600, description="Seconds for which a browser need not ask again whether it may."
    )

    def values(self) -> CorsSpec:
        """Return the section as a plain value."""
        return CorsSpec(frozenset(self.origins), self.max_age)
