"""What a bucket of the rollups counts of the rows of the ledger."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.rollups import Bucket
from gateway.types.histogram import Histogram

COLUMNS = ("kind", "opened_us", "tokens_completion", "ttft_us", "duration_us", "generation_us")
times = st.one_of(st.integers(-5, 5), st.integers(1, 10**9), st.integers(10**13, 2**62))
rows = st.lists(
    st.tuples(st.just("usage"), st.integers(1, 2**50), st.integers(0, 2**40), times, times, times), min_size=1
)


@given(rows)
def test_times_and_rates_are_counted_where_they_were_taken(rows: list[tuple[str, int, int, int, int, int]]) -> None:
    """Seconds and tokens per second are counted as if each was added by itself; what has none is left out."""
    bucket = Bucket.of(COLUMNS, rows)
    assert bucket.ttft.dump() == Histogram.of(row[3] / 1e6 for row in rows if row[3] > 0).dump()
    assert bucket.duration.dump() == Histogram.of(row[4] / 1e6 for row in rows if row[4] > 0).dump()
    rates = (row[2] * 1e6 / row[5] for row in rows if row[2] > 0 and row[5] > 0)
    assert bucket.throughput.dump() == Histogram.of(rates).dump()
    assert bucket.sums[0] == len(rows)


def test_columns_that_are_missing_count_nothing() -> None:
    """A column that is zero in all rows is not among them: no times, no rates."""
    bucket = Bucket.of(("kind", "opened_us", "generation_us"), [("usage", 1, 5)])
    assert (bucket.ttft.total, bucket.duration.total, bucket.throughput.total) == (0, 0, 0)
