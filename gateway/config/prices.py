"""Prices in the configuration file: rates by token class, tiers, and what is charged or paid at them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace as replace_rates
from pydantic import Field

from gateway.config.field import (
    Amount,
    Count,
    Rate,
    Section,
)
from gateway.types.money import LongContext, Rates, ServiceTier


class RatesSection(Section):
    """Money per token, in USD per million tokens as decimal text, and per request."""

    prompt: Rate = Field(description="Prompt tokens, USD per million.", examples=['"0.10"'])
    completion: Rate = Field(
        description='Completion tokens, USD per million; "0" for a model that makes none.',
        examples=['"0.30"'],
    )
    cache_read: Rate | None = Field(None, description="Prompt tokens read from a cache; else as prompt.")
    cache_write: Rate | None = Field(None, description="Prompt tokens written to a cache; else as prompt.")
    cache_write_1h: Rate | None = Field(None, description="Those that are kept for an hour; else as cache_write.")
    reasoning: Rate | None = Field(None, description="Reasoning tokens; else as completion.")
    audio_prompt: Rate | None = Field(None, description="Audio tokens of the prompt; else as prompt.")
    audio_completion: Rate | None = Field(None, description="Audio tokens made; else as completion.")
    image_prompt: Rate | None = Field(None, description="Image tokens of the prompt; else as prompt.")
    image_completion: Rate | None = Field(None, description="Image tokens made; else as completion.")
    request: Amount = Field(0, description="USD for each request, beside its tokens.")

    def plain(self) -> Rates:
        """Return the section's own rates as integers, without tiers."""
        return Rates(**{name: getattr(self, name) for name in RatesSection.model_fields})


class TierSection(RatesSection):
    """Rates of requests with a long input; they replace every rate for the whole request."""

    above: Count = Field(
        description="Input tokens, of all classes together, above which these rates hold.", examples=["200000"]
    )


class ServiceTierSection(RatesSection):
    """Rates of a service tier; they replace every rate of requests that ask for it in `service_tier`."""

    tiers: tuple[TierSection, ...] | None = Field(
        None,
        max_length=16,
        description="Its rates for long inputs; needed, be it as [], where the price itself has tiers.",
    )

    def tiered(self) -> Rates:
        """Return the section as integer rates with its tiers."""
        return replace_rates(self.plain(), tiers=_long_contexts(self.tiers or ()))


class ServiceTiersSection(Section):
    """Service tiers that have rates of their own; requests for another one are served and charged as the default."""

    flex: ServiceTierSection | None = Field(None, description="Slower and cheaper.")
    priority: ServiceTierSection | None = Field(None, description="Faster and dearer.")
    batch: ServiceTierSection | None = Field(None, description="When there is time.")


class PriceSection(RatesSection):
    """Money per token and per request, with tiers; a tier names every class that the price itself names."""

    tiers: tuple[TierSection, ...] = Field(
        (),
        max_length=16,
        description="Rates for long inputs, by rising `above`; keys as of the price itself, and `above`.",
    )
    service_tiers: ServiceTiersSection = Field(
        ServiceTiersSection(),
        description="Rates of service tiers, by the request's `service_tier`; keys as of the price itself.",
    )

    def rates(self) -> Rates:
        """Return the section as integer rates."""
        named = {name: section for name, section in dict(self.service_tiers).items() if section is not None}
        return replace_rates(
            self.plain(),
            tiers=_long_contexts(self.tiers),
            service_tiers=tuple(ServiceTier(name, section.tiered()) for name, section in named.items()),
        )

    @property
    def variants(self) -> list[tuple[tuple[str | int, ...], RatesSection]]:
        """Every tier with the keys that lead to it from here, in the order of the file."""
        found: list[tuple[tuple[str | int, ...], RatesSection]] = [
            (("tiers", index), tier) for index, tier in enumerate(self.tiers)
        ]
        for name, section in dict(self.service_tiers).items():
            if section is not None:
                found.append((("service_tiers", name), section))
                tiers = enumerate(section.tiers or ())
                found += [(("service_tiers", name, "tiers", index), tier) for index, tier in tiers]
        return found


def _long_contexts(tiers: Sequence[TierSection]) -> tuple[LongContext, ...]:
    return tuple(LongContext(tier.above, tier.plain()) for tier in tiers)
