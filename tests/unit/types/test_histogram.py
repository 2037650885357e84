"""Histograms: merging and their form on disk."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.types.histogram import Histogram

values = st.lists(st.floats(1e-7, 1e5) | st.floats(0.5, 2.0) | st.floats(1e12, 1e30), max_size=60)


@given(values, values)
def test_adding_to_what_is_stored_is_adding(stored: list[float], new: list[float]) -> None:
    """The short way to merge with a stored histogram gives the bytes of the histogram of all values."""
    before, more, together = (Histogram.of(each) for each in (stored, new, stored + new))
    assert more.added_to(before.dump()) == together.dump()
    before.merge(more)
    assert before.dump() == together.dump()


@given(values)
def test_what_is_dumped_can_be_loaded(some: list[float]) -> None:
    """Nothing of a histogram is lost on disk, and equal ones have equal bytes."""
    histogram = Histogram.of(some)
    loaded = Histogram.load(histogram.dump())
    assert loaded.counts == histogram.counts
    assert loaded.total == len(some)
    assert Histogram.of(some[::-1]).dump() == histogram.dump()


def test_pairs_of_bucket_and_count_are_understood() -> None:
    """Histograms of earlier versions, which wrote pairs, are read and added to."""
    pairs = msgspec.msgpack.encode([-3, 2, 0, 1, 7, 5])
    assert Histogram.load(pairs).counts == {-3: 2, 0: 1, 7: 5}
    assert Histogram({0: 1, 8: 1}).added_to(pairs) == Histogram({-3: 2, 0: 2, 7: 5, 8: 1}).dump()


@pytest.mark.parametrize("data", [b"", b"\x91\x01", b"\xc0", msgspec.msgpack.encode(["a", 1])])
def test_what_is_no_histogram_is_refused(data: bytes) -> None:
    """Damage is an error and no other histogram."""
    with pytest.raises(msgspec.DecodeError):
        Histogram.load(data)
