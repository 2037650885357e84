"""The arithmetic of boards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.leaderboard.question import FirstOver, Lead, Peak, Totals
from gateway.leaderboard.ranking import (
    author_of,
    feats,
    folded,
    ordered,
    records,
    standings,
    summed,
    top_and_rest,
    value_of,
)

AMOUNTS = st.integers(0, 10**15)
USED = st.builds(Totals, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
NAMES = st.text("abc/", min_size=1, max_size=4)


def test_the_greater_is_first_and_equals_stand_by_name() -> None:
    """A board is the same however often it is asked for; what is worth nothing is not on it."""
    used = {"b": Totals(5), "a": Totals(5), "c": Totals(9), "d": Totals(0, 3)}
    assert ordered(used, "tokens") == [("c", 9), ("a", 5), ("b", 5)]
    assert ordered(used, "requests") == [("d", 3)]


def test_tokens_per_dollar_are_whole_and_never_of_nothing() -> None:
    """A dollar is what was charged, or what the owner paid; who paid nothing has no such figure."""
    used = Totals(tokens=2_000_000, charge_nano=300_000_000, cost_nano=150_000_000)
    assert value_of("tokens_per_dollar", used) == 6_666_666
    assert value_of("tokens_per_dollar", used, "cost") == 13_333_333
    assert value_of("tokens_per_dollar", Totals(tokens=5)) == 0
    assert value_of("spend", used) == 300_000_000


def test_change_and_places_against_the_window_before() -> None:
    """Growth is of the value; a name that was not there before has none."""
    rows = standings(
        {"a": Totals(150), "b": Totals(50)}, {"a": Totals(100), "c": Totals(300)}, Totals(400), "tokens", 10
    )
    assert [(row.name, row.share, row.change, row.previous_rank, row.rank) for row in rows] == [
        ("a", 0.375, 0.5, 2, 1),
        ("b", 0.125, None, None, 2),
    ]


@given(st.dictionaries(NAMES, USED, max_size=30), st.integers(1, 10))
def test_rows_and_the_rest_add_up(used: dict[str, Totals], limit: int) -> None:
    """Nothing is lost between the rows shown and the whole, and ranks have no gap."""
    rows = standings(used, {}, summed(used.values()), "tokens", limit)
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    assert [row.value for row in rows] == sorted((row.value for row in rows), reverse=True)
    best, rest = top_and_rest({name: each.tokens for name, each in used.items()}, limit)
    assert [(row.name, row.value) for row in rows] == best
    assert sum(value for _, value in best) + (rest or 0) == sum(each.tokens for each in used.values())
    shares = [row.share for row in rows if row.share is not None]
    assert sum(shares) <= 1 + 1e-6 * len(shares)


@given(st.dictionaries(NAMES, USED, max_size=20))
def test_folding_keeps_the_sum(used: dict[str, Totals]) -> None:
    """Authors together used what their models did."""
    assert summed(folded(used, author_of).values()) == summed(used.values())
    assert author_of("qwen/qwen3-32b") == "qwen"
    assert author_of("house") == "-"


def test_records_of_days() -> None:
    """Biggest days, the longest lead, the lead of now, and who was first over each line."""
    days = {
        1: {"a": 10, "b": 5},
        2: {"a": 12, "b": 5},
        3: {"a": 1, "b": 9},
        5: {"b": 30, "a": 30},
        6: {"a": 31},
        7: {"a": 2},
    }
    found = records([feats(days)], [9, 11, 100])
    assert found.peaks[:3] == [Peak("a", 6, 31), Peak("a", 5, 30), Peak("b", 5, 30)]
    assert found.longest == Lead("a", 5, 7)
    assert found.current == Lead("a", 5, 7)
    assert found.first_over == [FirstOver(9, "a", 1), FirstOver(11, "a", 2)]
    assert records([], [1]).longest is None


@given(st.dictionaries(st.integers(0, 40), st.dictionaries(NAMES, st.integers(0, 50), max_size=4), max_size=30))
def test_a_lead_is_always_held_by_the_first_of_each_of_its_days(days: dict[int, dict[str, int]]) -> None:
    """No lead spans a day on which another was first."""
    days = dict(sorted(days.items()))
    found = records([feats(days)], [])
    for lead in (found.longest, found.current):
        if lead is not None:
            for day in range(lead.first, lead.last + 1):
                best = min((-value, name) for name, value in days[day].items() if value)
                assert best[1] == lead.name


@given(st.dictionaries(st.integers(0, 30), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 6)), max_size=25))
def test_peaks_are_the_greatest_values_of_all(days: dict[int, dict[str, int]]) -> None:
    """However values are spread over days, the peaks are the first of all of them in order, none left out."""
    every = sorted((-value, day, name) for day, names in days.items() for name, value in names.items() if value)
    found = records([feats(dict(sorted(days.items())))], [3])
    assert [(-peak.value, peak.day, peak.name) for peak in found.peaks] == every[:10]
    over = sorted((day, value, name) for value, day, name in every if -value >= 3)
    assert [(each.day, each.name) for each in found.first_over] == [(day, name) for day, _, name in over[:1]]


@given(
    st.dictionaries(st.integers(0, 60), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 6)), max_size=60),
    st.integers(1, 20),
)
def test_records_do_not_depend_on_how_days_are_cut_into_parts(days: dict[int, dict[str, int]], length: int) -> None:
    """What is remembered of whole blocks and read of single days adds up to the records of all of them."""
    days = dict(sorted(days.items()))
    cut = [{day: each for day, each in days.items() if day // length == part} for part in range(60 // length + 1)]
    assert records(map(feats, cut), [2, 5]) == records([feats(days)], [2, 5])
