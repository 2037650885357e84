"""Tokens of one answer, by class.

``Usage`` keeps the counts the way engines report them (totals with parts inside them); ``Usage.split`` turns them
into disjoint classes for pricing, so that no token is ever charged twice.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class UsageSource(StrEnum):
    """Where the token counts of a ledger row came from."""

    UPSTREAM = "upstream"
    """The engine said so in its usage object."""
    COUNTED = "counted"
    """Counted here, one streamed delta of an engine that sends one token per delta."""
    ESTIMATED = "estimated"
    """Estimated from bytes (four bytes a token), because nothing better was there."""
    NONE = "none"
    """No token was produced and none is charged."""


class Usage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Token counts of one answer.

    ``prompt`` and ``completion`` are totals. ``cache_read``, ``cache_write``, ``audio_prompt`` and ``image_prompt``
    are parts of ``prompt``; ``reasoning``, ``audio_completion`` and ``image_completion`` are parts of ``completion``.
    ``cache_write_1h`` is a part of ``cache_write``: what is kept for an hour, which costs more than the usual minutes.
    New ones go to the end, because the journal stores them by position.
    """

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio_prompt: int = 0
    audio_completion: int = 0
    image_prompt: int = 0
    image_completion: int = 0
    cache_write_1h: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt + self.completion

    def split(self) -> Usage:
        """Return disjoint counts: ``prompt``, ``completion`` and ``cache_write`` hold only what no other class holds.

        Parts that add up to more than their total (a backend's mistake) are cut, in the order of the fields,
        so that the disjoint counts still add up to the total.
        """
        prompt, completion = self.prompt, self.completion
        cache_read = min(self.cache_read, prompt)
        cache_write = min(self.cache_write, prompt - cache_read)
        audio_prompt = min(self.audio_prompt, prompt - cache_read - cache_write)
        image_prompt = min(self.image_prompt, prompt - cache_read - cache_write - audio_prompt)
        reasoning = min(self.reasoning, completion)
        audio_completion = min(self.audio_completion, completion - reasoning)
        image_completion = min(self.image_completion, completion - reasoning - audio_completion)
        cache_write_1h = min(self.cache_write_1h, cache_write)
        return Usage(
            prompt - cache_read - cache_write - audio_prompt - image_prompt,
            completion - reasoning - audio_completion - image_completion,
            cache_read,
            cache_write - cache_write_1h,
            reasoning,
            audio_prompt,
            audio_completion,
            image_prompt,
            image_completion,
            cache_write_1h,
        )


NO_USAGE = Usage()
