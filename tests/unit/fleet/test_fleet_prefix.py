"""The index of prefixes: it matches from the front and forgets the least recently used first, from its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.prefix import BLOCK_BYTES, PrefixIndex, chain


def test_prompts_that_begin_alike_share_the_hashes_of_their_beginning() -> None:
    """A change in one block changes it and all after it, and no block before it."""
    one, other = b"a" * BLOCK_BYTES * 4, b"a" * BLOCK_BYTES * 2 + b"b" + b"a" * (BLOCK_BYTES * 2 - 1)
    assert chain(one)[:2] == chain(other)[:2]
    assert not set(chain(one)[2:]) & set(chain(other)[2:])
    assert chain(b"a" * (BLOCK_BYTES - 1)) == ()


def test_a_match_counts_from_the_front() -> None:
    """What was sent is remembered up to where a new prompt differs."""
    index = PrefixIndex()
    index.use((1, 2, 3, 4))
    assert index.match((1, 2, 3, 9, 10)) == 3
    assert index.match((7, 2, 3)) == 0
    assert index.match(()) == 0
    assert index.holds(4)


def test_the_least_recently_used_goes_first_from_its_end() -> None:
    """With room for six blocks the older chain loses its tail, not its head."""
    index = PrefixIndex(6 * 64)
    index.use((1, 2, 3, 4))
    index.use((11, 12, 13, 14))
    assert index.match((1, 2, 3, 4)) == 2
    assert index.match((11, 12, 13, 14)) == 4
    index.clear()
    assert len(index) == 0


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=40),
    st.integers(1, 20),
    st.lists(st.integers(0, 2), max_size=12),
)
def test_bisection_finds_what_a_walk_finds(chains: list[list[int]], room: int, asked: list[int]) -> None:
    """Blocks never outlive those before them, so the quick way and the slow way agree, and room is kept."""

    def hashed(path: list[int]) -> tuple[int, ...]:
        return tuple(hash(tuple(path[: end + 1])) for end in range(len(path)))

    index = PrefixIndex(room * 64)
    for path in chains:
        index.use(hashed(path), extra=len(path) % 2)
    wanted = hashed(asked)
    walked = 0
    while walked < len(wanted) and index.holds(wanted[walked]):
        walked += 1
    assert index.match(wanted) == walked
    assert len(index) <= room
