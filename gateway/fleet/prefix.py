"""What a replica probably has of a prompt already: an approximate index of the prefixes that were sent to it.

Engines keep the keys and values of earlier prompts in blocks and skip what a new prompt shares with them. A prompt is
cut into blocks and every block is hashed together with all before it (*chain hashes*), so one hash stands for a whole
prefix. The index of a replica remembers what was sent there, forgets the least recently used first and holds about as
much as the engine does. It is a guess: the engine evicts by its own rules, and replicas forget when they restart.
Nothing here raises; a wrong guess costs time, never correctness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

BLOCK_TOKENS: Final = 64.0
"""Tokens of a block: small enough to see most of a match, large enough that a long prompt has few."""
BYTES_PER_TOKEN: Final = 4
"""Bytes of a prompt that make about one token."""
BLOCK_BYTES: Final = int(BLOCK_TOKENS) * BYTES_PER_TOKEN
ASSUMED_TOKENS: Final = 262_144
"""Tokens that a replica's cache holds when neither its engine nor its owner says."""
MOST_TOKENS: Final = 4_194_304
"""An index holds no more than this, whatever the engine says: it lives in this process's memory."""

OVERHANG: Final = 6
"""An index is trimmed to its size when it is larger by one part in two to this power: seldom, and then by much."""


def chain(prompt: bytes, block_bytes: int = BLOCK_BYTES) -> tuple[int, ...]:
    """Return the chain hashes of the full blocks of ``prompt``, the first block first.

    The hash is Python's own keyed hash of bytes: quick, and nobody outside this process can make two prompts collide.
    It differs from process to process, so hashes must not be stored or sent.
    """
    hashes: list[int] = []
    append = hashes.append
    parent = 0
    for start in range(0, len(prompt) - block_bytes + 1, block_bytes):
        parent = hash((parent, prompt[start : start + block_bytes]))
        append(parent)
    return tuple(hashes)


class PrefixIndex:
    """The prefixes that were lately sent to one replica, least recently used forgotten first.

    A use marks all blocks of a chain with one stamp, so a block never outlives the blocks before it, and a match can be
    found by bisection.

    Args:
        tokens: how many tokens the replica's cache holds.

    Attributes:
        stamps: the blocks that are remembered and when each was used last; always the same object, only to be read.
    """

    __slots__ = ("_extra", "_stamp", "_tokens", "_uses", "stamps")

    def __init__(self, tokens: int = ASSUMED_TOKENS) -> None:
        self._tokens = tokens
        self.stamps: dict[int, int] = {}
        self._uses: deque[tuple[int, tuple[int, ...], int]] = deque()
        self._extra = 0
        self._stamp = 0

    def __len__(self) -> int:
        """How many blocks are remembered."""
        return len(self.stamps)

    @property
    def tokens(self) -> int:
        """How many tokens it may remember."""
        return self._tokens

    def resize(self, tokens: int) -> None:
        """Hold at most ``tokens`` tokens from the next use on."""
        self._tokens = min(tokens, MOST_TOKENS)

    def holds(self, block: int) -> bool:
        """Whether ``block``, and so all before it, is remembered."""
        return block in self.stamps

    def match(self, blocks: Sequence[int]) -> int:
        """Return how many of ``blocks``, from the first on, are remembered."""
        stamps = self.stamps
        if not blocks or blocks[0] not in stamps:
            return 0
        if blocks[-1] in stamps:
            return len(blocks)
        found, missing = 1, len(blocks)
        while found < missing:
            middle = (found + missing + 1) // 2
            if blocks[middle - 1] in stamps:
                found = middle
            else:
                missing = middle - 1
        return found

    def use(self, blocks: tuple[int, ...], extra: int = 0, block_tokens: float = BLOCK_TOKENS) -> None:
        """Remember ``blocks`` as used now.

        Args:
            blocks: the chain of a prompt that was sent.
            extra: blocks of the answer, which take the engine's room but match nothing here.
            block_tokens: tokens of a block.
        """
        if not blocks and not extra:
            return
        self._stamp = stamp = self._stamp + 1
        stamps = self.stamps
        for block in blocks:
            stamps[block] = stamp
        self._uses.append((stamp, blocks, extra))
        self._extra += extra
        room = int(self._tokens / block_tokens)
        if len(stamps) + self._extra > room + (room >> OVERHANG):
            while len(stamps) + self._extra > room and self._uses:
                self._forget(len(stamps) + self._extra - room)

    def clear(self) -> None:
        """Forget everything: the replica restarted."""
        self.stamps.clear()
        self._uses.clear()
        self._extra = 0

    def _forget(self, excess: int) -> None:
        """Take the oldest use out, from its last block on, until ``excess`` blocks are gone or it is all gone."""
        stamp, blocks, extra = self._uses.popleft()
        taken = min(extra, excess)
        self._extra -= taken
        extra -= taken
        excess -= taken
        stamps = self.stamps
        left = len(blocks)
        while left and excess > 0:
            left -= 1
            block = blocks[left]
            if stamps.get(block) == stamp:
                del stamps[block]
                excess -= 1
        if left or extra:
            self._uses.appendleft((stamp, blocks[:left], extra))
