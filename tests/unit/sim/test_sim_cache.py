"""The prompt cache of a simulated engine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.sim import text
from gateway.sim.cache import BLOCK_TOKENS, PrefixCache
from gateway.sim.text import Prompt

PASSAGE = " ".join(["the river runs past the old mill and the gauge counts"] * 8)


def prompt(words: str) -> Prompt:
    """Return ``words`` as a prompt."""
    return Prompt(words, text.count(words))


def test_a_repeat_is_cached_in_whole_blocks_but_never_whole() -> None:
    """The second time most of a prompt is cached: a multiple of 16 tokens, less than all of it."""
    cache = PrefixCache(10_000)
    whole = prompt(PASSAGE)
    assert cache.read(whole) == 0
    cached = cache.read(whole)
    assert 0 < cached < whole.tokens
    assert cached % BLOCK_TOKENS == 0
    assert cached == cache.read(whole)


def test_a_shared_prefix_is_found() -> None:
    """A prompt that begins like an earlier one has that beginning cached, another prompt has nothing."""
    cache = PrefixCache(10_000)
    cache.read(prompt(PASSAGE))
    longer = cache.read(prompt(PASSAGE + " and what is the level at the second gauge tonight?"))
    assert longer > 0
    assert cache.read(prompt("Completely different words. " * 10)) == 0
    assert cache.read(prompt("x " + PASSAGE)) == 0


def test_a_block_alone_is_no_prefix() -> None:
    """The same words behind another beginning are not cached: blocks are chained."""
    cache = PrefixCache(10_000)
    block_a, block_b, block_c = ("a b c d " * 8, "e f g h " * 8, "i j k l " * 8)
    cache.read(prompt(block_a + block_b))
    assert cache.read(prompt(block_c + block_b)) == 0


def test_short_prompts_are_never_cached() -> None:
    """A prompt shorter than a block has nothing to cache."""
    cache = PrefixCache(10_000)
    assert [cache.read(prompt("hello there")) for _ in range(3)] == [0, 0, 0]


def test_the_oldest_blocks_go_first() -> None:
    """Over its capacity the cache forgets what was not used for longest."""
    cache = PrefixCache(20 * BLOCK_TOKENS)
    first, second = prompt("alpha beta gamma delta " * 20), prompt("one two three four five " * 20)
    cache.read(first)
    for number in range(5):
        cache.read(prompt(f"{number} filler words of no use " * 20))
        assert len(cache) <= 20
    assert cache.read(first) == 0
    cache.read(second)
    assert cache.read(second) > 0


@given(st.lists(st.text(max_size=400), max_size=12), st.integers(1, 500))
def test_never_more_cached_than_read(texts: list[str], capacity: int) -> None:
    """Cached tokens never reach the tokens of the prompt, and the cache keeps to its size."""
    cache = PrefixCache(capacity)
    for words in texts:
        asked = prompt(words)
        assert 0 <= cache.read(asked) <= max(0, asked.tokens - 1)
        assert len(cache) <= max(1, capacity // BLOCK_TOKENS)
