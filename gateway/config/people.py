"""Who may sign in to the console, as plain values; see ``gateway.config.console`` for the section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.config.secret import Secret


@dataclass(frozen=True, slots=True)
class OidcSpec:
    """An identity provider; see ``gateway.config.console.OidcSection`` for what each field means."""

    issuer: str
    client_id: str
    client_secret: Secret | None
    label: str
    scopes: str
    login_claim: str
    create: bool
    role: Literal["viewer", "billing", "admin"]
    team: str
    url: str | None


@dataclass(frozen=True, slots=True)
class ConsoleSpec:
    """The console.

    Attributes:
        enabled: whether there are pages for people.
        session_s: seconds after which a session ends.
        idle_s: seconds without a page after which it ends.
        oidc: the identity provider, or None where people sign in with passwords alone.
    """

    enabled: bool = True
    session_s: float = 43_200.0
    idle_s: float = 7_200.0
    oidc: OidcSpec | None = None


NO_CONSOLE_SAID: Final = ConsoleSpec()
"""The console as long as the file does not say otherwise."""
