"""The paged KV cache of an engine: blocks in use, and the prefix blocks that stay behind when nobody uses them.

A prompt is known by the chain hashes of its full segments (one or more blocks each), so equal leading hashes are equal
prefixes. Segments nobody uses count as free and go, least recently used first, when room is needed. Callers ask
``fits`` first; nothing here raises.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Row
from typing import Final

BLOCK_TOKENS: Final = 16
"""Tokens in a block."""


class BlockPool:
    """Blocks of one engine.

    Args:
        blocks: how many there are.
        segment_tokens: tokens behind each hash of a chain, a multiple of ``BLOCK_TOKENS``.

    Attributes:
        total: blocks there are.
        held: blocks that running sequences hold.
    """

    __slots__ = ("_idle", "_segment", "_users", "held", "total")

    def __init__(self, blocks: int, segment_tokens: int) -> None:
        if segment_tokens < BLOCK_TOKENS or segment_tokens % BLOCK_TOKENS:
            raise ValueError(f"segment_tokens must be a multiple of {BLOCK_TOKENS}, not {segment_tokens}")
        self.total = blocks
        self.held = 0
        self._segment = segment_tokens // BLOCK_TOKENS
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks that nobody holds, cached or not."""
        return self.total - self.held

    def matched(self, chain: Row[int]) -> int:
        """Return how many leading segments of ``chain`` are cached."""
        users, count = self._users, 0
        for key in chain:
            if key not in users:
                break
            count += 1
        return count

    def fits(self, chain: Row[int], hit: int, blocks: int) -> bool:
        """Whether a sequence of ``blocks`` blocks, the first ``hit`` segments of ``chain`` among them, finds room."""
        need = blocks
        if need <= self.free:
            return True
        users, size = self._users, self._segment
        for key in chain[:hit]:
            if users[key]:
                need -= size
        return need <= self.free

    def take(self, chain: Row[int], hit: int, blocks: int) -> list[int]:
        """Hold ``blocks`` blocks; return the keys of the first ``hit`` segments, which are shared."""
        users, idle, size = self._users, self._idle, self._segment
        shared = list(chain[:hit])
        for key in shared:
            if users[key] == 0:
                del idle[key]
                self.held += size
            users[key] += 1
        self.grow(blocks - hit * size)
        return shared

    def grow(self, blocks: int) -> None:
        """Hold ``blocks`` more blocks; cached ones that nobody uses make room."""
        self.held += blocks
        idle, size = self._idle, self._segment
        while idle and self.held + len(idle) * size > self.total:
            del self._users[idle.popitem(last=False)[0]]

    def publish(self, chain: Row[int], first: int, last: int, shared: list[int]) -> None:
        """Make segments ``first`` up to, not including, ``last`` of a sequence known; add what is new to ``shared``."""
        users = self._users
        for key in chain[first:last]:
            if key not in users:
                users[key] = 1
                shared.append(key)

    def release(self, shared: Row[int], blocks: int) -> None:
        """Let go of ``blocks`` blocks, ``shared`` segments among them, which stay cached."""
        users, idle, size = self._users, self._idle, self._segment
        self.held -= blocks - len(shared) * size
        # The end of a prefix is of use to nobody without its beginning: it goes first.
        for key in reversed(shared):
            users[key] -= 1
            if users[key] == 0:
                idle[key] = None
                self.held -= size

    def clear(self) -> None:
        """Forget everything."""
        self.held = 0
        self._users.clear()
        self._idle.clear()
