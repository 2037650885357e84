"""The prompt cache of a simulated engine: which prefix of a prompt was seen before.

Prompts are cut into blocks of 64 characters (about 16 tokens), each known by the chain of blocks before it, as vLLM
does with tokens. The least recently used block goes first.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.sim.text import Prompt

BLOCK_CHARACTERS = 64
BLOCK_TOKENS = 16

_MOST_WHOLE = 1_024
_LONGEST_WHOLE = 16_384


class PrefixCache:
    """Blocks of prompts seen, at most ``capacity`` tokens of them."""

    __slots__ = ("_blocks", "_capacity", "_whole")

    def __init__(self, capacity: int) -> None:
        self._capacity = max(1, capacity // BLOCK_TOKENS)
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._whole: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def read(self, prompt: Prompt) -> int:
        """Return the cached tokens of ``prompt`` (whole blocks, never all of it) and remember its blocks."""
        text, blocks = prompt.text, self._blocks
        known = self._whole.get(text)
        if known is not None:
            return known
        chain = matched = 0
        missed = False
        for start in range(0, len(text) - BLOCK_CHARACTERS + 1, BLOCK_CHARACTERS):
            chain = hash((chain, text[start : start + BLOCK_CHARACTERS]))
            if chain in blocks:
                blocks.move_to_end(chain)
                matched += not missed
            else:
                missed = True
                blocks[chain] = None
        self._trim(text, prompt.tokens)
        return _cached(text, prompt.tokens, matched)

    def _trim(self, text: str, tokens: int) -> None:
        """Drop blocks over the capacity; while none has to go, remember whole short prompts to find them faster."""
        blocks = self._blocks
        if len(blocks) > self._capacity or len(self._whole) >= _MOST_WHOLE:
            self._whole.clear()
        while len(blocks) > self._capacity:
            blocks.popitem(last=False)
        if len(text) <= _LONGEST_WHOLE:
            self._whole[text] = _cached(text, tokens, len(text) // BLOCK_CHARACTERS)


def _cached(text: str, tokens: int, blocks: int) -> int:
    """Return the tokens in the first ``blocks`` blocks of ``text``; at least one token is always read again."""
    if not blocks:
        return 0
    share = tokens * blocks * BLOCK_CHARACTERS // len(text)
    return min(share, tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS
