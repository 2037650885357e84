"""The section ``billing`` of the configuration file: who charges, when periods are closed, where exports go.

One value is judged by itself here; what the keys of a sink say together is judged by ``sink_faults``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from gateway.config.field import Line, Name, Secret, Section, TeamSlug
from gateway.config.snapshot import BillingSpec, SinkSpec
from gateway.config.snapshot import Secret as Kept

SECRETS: Final = ("secret", "api_key", "access_key", "secret_key")
"""Keys of a sink that refer to secrets."""
_NEEDED: Final = {
    "folder": ("path",),
    "s3": ("bucket", "access_key", "secret_key"),
    "webhook": ("url", "secret"),
    "stripe": ("api_key", "customers"),
}
_ALLOWED: Final = {
    "folder": ("exports", "format"),
    "s3": ("exports", "format", "url", "region", "prefix", "path_style"),
    "webhook": (),
    "stripe": ("url", "event", "unit"),
}
SinkKind = Literal["folder", "s3", "webhook", "stripe"]
Dataset = Literal["focus", "usage", "statement"]


class SinkSection(Section):
    """Where exports of closed periods go."""

    name: Name = Field(description="Unique name.", examples=["archive"])
    kind: SinkKind = Field(description="What it is: folder, s3, webhook or stripe.", examples=["folder"])
    exports: tuple[Dataset, ...] = Field(
        ("focus", "statement"), description="Files it gets of a closed period: focus, usage, statement."
    )
    format: Literal["csv", "json", "jsonl", "parquet"] = Field("csv", description="Format of focus and usage files.")
    path: Line | None = Field(None, description="folder: where files go; made when it is missing.")
    bucket: Line | None = Field(None, description="s3: the bucket.")
    region: Line = Field("us-east-1", description="s3: the region.")
    prefix: str = Field("", max_length=300, description="s3: what names of objects begin with, such as weir/.")
    path_style: bool = Field(False, description="s3: whether the bucket is part of the path and not of the host.")
    url: Line | None = Field(
        None,
        description="webhook: where events are posted; s3: root of a server other than AWS; stripe: of one other than "
        "Stripe.",
    )
    access_key: Secret | None = Field(None, description='s3: id of the access key, as "${NAME}" or {file: path}.')
    secret_key: Secret | None = Field(None, description="s3: the secret access key, as a reference.")
    secret: Secret | None = Field(None, description="webhook: key of the signature (HMAC-SHA-256), as a reference.")
    api_key: Secret | None = Field(None, description="stripe: a secret key, as a reference.")
    event: Name = Field("weir_usage", description="stripe: event name of the meter.")
    unit: Literal["micro_usd", "tokens"] = Field(
        "micro_usd", description="stripe: what is reported per team: micro_usd (millionths of a USD) or tokens."
    )
    customers: dict[TeamSlug, Line] = Field(
        default_factory=dict, description="stripe: customer ids by team; other teams are left out."
    )

    def values(self, secrets: dict[str, Kept]) -> SinkSpec:
        """Return the section as a plain value, with its ``secrets`` by key."""
        said: dict[str, Any] = {name: value for name, value in dict(self).items() if name not in SECRETS}
        return SinkSpec(**said | secrets)


class BillingSection(Section):
    """Statements, closed periods and where their exports go."""

    issuer: Line = Field("Weir", description="Who charges: the name on statements and in FOCUS exports.")
    close_after_hours: Annotated[float, Field(ge=0, le=24 * 365)] | None = Field(
        None, description="Hours after its end when a month is closed by itself, such as 48. Default: never."
    )
    sinks: tuple[SinkSection, ...] = Field((), description="Where exports of closed periods go.")

    def values(self, secrets: dict[int, dict[str, Kept]]) -> BillingSpec:
        """Return the section as a plain value, with ``secrets`` of its sinks by position and key."""
        sinks = tuple(sink.values(secrets.get(index, {})) for index, sink in enumerate(self.sinks))
        after = None if self.close_after_hours is None else self.close_after_hours * 3600
        return BillingSpec(self.issuer, after, sinks)


def sink_faults(sink: SinkSection) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with the keys of a sink together: the key, the fault, the mend."""
    needed, allowed = _NEEDED[sink.kind], _ALLOWED[sink.kind]
    for name in needed:
        if not getattr(sink, name):
            yield "kind", f"is {sink.kind}, which needs {name}", f"add {name}"
    known = {"name", "kind", *needed, *allowed}
    for name in sorted(sink.model_fields_set - known):
        yield name, f"means nothing for a sink of kind {sink.kind}", "remove it"
    if sink.url is not None and not sink.url.startswith(("http://", "https://")):
        yield "url", "is not an http or https URL", "write one such as https://example.org/hook"
