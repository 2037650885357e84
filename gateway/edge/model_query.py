"""The query of ``GET /api/v1/models``, and its answer as a feed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from email.utils import format_datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from pydantic import BaseModel, Field

from gateway.edge.selection import Selection


class ModelQuery(BaseModel):
    """What may be asked for; every list is one text with commas."""

    offset: int = Field(0, ge=0)
    limit: int = Field(1000, ge=1, le=1000)
    use_rss: bool = False
    q: str | None = Field(None, max_length=256)
    sort: str | None = Field(None, max_length=64)
    supported_parameters: str | None = Field(None, max_length=1024)
    input_modalities: str | None = Field(None, max_length=256)
    output_modalities: str | None = Field(None, max_length=256)
    model_authors: str | None = Field(None, max_length=1024)
    providers: str | None = Field(None, max_length=1024)
    context: int | None = Field(None, ge=0)
    min_price: str | None = Field(None, max_length=32)
    max_price: str | None = Field(None, max_length=32)
    min_output_price: str | None = Field(None, max_length=32)
    max_output_price: str | None = Field(None, max_length=32)
    min_age_days: int | None = Field(None, ge=0)
    max_age_days: int | None = Field(None, ge=0)
    zdr: bool | None = None
    region: str | None = Field(None, max_length=64)

    @property
    def plain(self) -> bool:
        """Whether nothing is asked for but a page: then aliases are listed too."""
        return not self.model_dump(exclude_none=True, exclude={"offset", "limit", "use_rss"})

    def selection(self, used: Mapping[str, int]) -> Selection:
        """Return what it asks for; ``used`` are tokens by model. Raises ``BadRequest`` naming the parameter."""
        return Selection(used=used, **self.model_dump(exclude={"offset", "limit", "use_rss"}))


def feed(models: Sequence[dict[str, Any]]) -> bytes:
    """Return models as an RSS 2.0 document, newest first."""
    root = Element("rss", version="2.0")
    channel = SubElement(root, "channel")
    for name, text in (("title", "Models"), ("link", "/api/v1/models"), ("description", "Models served here")):
        SubElement(channel, name).text = text
    for model in sorted(models, key=lambda each: -each["created"]):
        item = SubElement(channel, "item")
        SubElement(item, "title").text = f"{model['name']} ({model['id']})"
        SubElement(item, "link").text = model["links"]["details"]
        SubElement(item, "description").text = model["description"]
        SubElement(item, "guid", isPermaLink="false").text = model["id"]
        created = dt.datetime.fromtimestamp(model["created"], tz=dt.UTC)
        SubElement(item, "pubDate").text = format_datetime(created)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root)
