"""The randomness of decisions, small enough to be written down with each of them."""

from __future__ import annotations

from random import Random
from typing import Final

_MASK: Final = 2**64 - 1
_UNIT: Final = 2.0**-53


class Chance(Random):
    """A source of randomness whose whole state is one number of 64 bits: SplitMix64 (Steele et al., OOPSLA 2014).

    The same state gives the same draws, so a decision can be made again. Not for secrets.

    Attributes:
        state: what the next draw depends on.
    """

    state: int

    def __init__(self, state: int) -> None:
        super().__init__(0)
        self.state = state & _MASK

    def random(self) -> float:
        """Return the next number from 0 to below 1."""
        self.state = state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _MASK
        return ((mixed ^ (mixed >> 31)) >> 11) * _UNIT
