"""The section ``console`` of the configuration file: who may sign in, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.field import Line, Name, Secret, Section, TeamSlug
from gateway.config.snapshot import ConsoleSpec, OidcSpec
from gateway.config.snapshot import Secret as Kept


class OidcSection(Section):
    """Signing in through an identity provider: OpenID Connect, authorization code with PKCE."""

    issuer: Line = Field(
        description="URL of the provider; /.well-known/openid-configuration is found below it.",
        examples=["https://id.example.org/realms/main"],
    )
    client_id: Line = Field(description="Id of Weir at the provider.", examples=["weir"])
    client_secret: Secret | None = Field(
        None, description='Its secret, as "${NAME}" or {file: path}. Default: a public client, which has none.'
    )
    label: Line = Field("single sign-on", description="What the button on the sign-in page says.")
    scopes: Line = Field("openid email profile", description="Scopes that are asked for.")
    login_claim: Name = Field("email", description="Claim that is the login.")
    create: bool = Field(
        False, description="Whether somebody whom no admin added becomes a user at the first sign-in, with `role`."
    )
    role: Literal["viewer", "billing", "admin"] = Field("viewer", description="Role of such a user.")
    team: TeamSlug | None = Field(None, description="Team in which a new viewer has the role. Default: everywhere.")
    url: Line | None = Field(
        None, description="URL under which browsers reach Weir, for the way back. Default: what the request says."
    )

    def values(self, secret: Kept | None) -> OidcSpec:
        """Return the section as a plain value."""
        return OidcSpec(
            issuer=self.issuer.rstrip("/"),
            client_id=self.client_id,
            client_secret=secret,
            label=self.label,
            scopes=self.scopes,
            login_claim=self.login_claim,
            create=self.create,
            role=self.role,
            team=self.team or "",
            url=None if self.url is None else self.url.rstrip("/"),
        )


class ConsoleSection(Section):
    """The console: pages for people who sign in."""

    enabled: bool = Field(True, description="Whether there are pages for people at all.")
    session_hours: Annotated[float, Field(gt=0, le=24 * 90)] = Field(
        12.0, description="Hours after which everybody signs in again."
    )
    idle_minutes: Annotated[float, Field(ge=5, le=60 * 24 * 90)] = Field(
        120.0, description="Minutes without a page after which a session ends."
    )
    oidc: OidcSection | None = Field(None, description="Signing in through an identity provider. Default: passwords.")

    def values(self, secret: Kept | None) -> ConsoleSpec:
        """Return the section as a plain value, with the ``secret`` of its identity provider."""
        oidc = None if self.oidc is None else self.oidc.values(secret)
        return ConsoleSpec(self.enabled, self.session_hours * 3600, self.idle_minutes * 60, oidc)
