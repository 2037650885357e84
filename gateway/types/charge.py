"""An amount of money by token class, as it stands in the journal, the ledger and the usage of an answer."""

from __future__ import annotations

from typing import Final

import msgspec


class Charge(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An amount of money by token class, in nano-USD; each class was rounded once.

    The classes are disjoint, so their sum is the whole amount. New ones may be added only at the end, because
    the journal stores them by position.
    """

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio: int = 0
    image: int = 0
    request: int = 0

    @property
    def total(self) -> int:
        """The sum of all classes, in nano-USD."""
        return (
            self.prompt
            + self.completion
            + self.cache_read
            + self.cache_write
            + self.reasoning
            + self.audio
            + self.image
            + self.request
        )


NO_CHARGE: Final = Charge()
