"""The figures say what their definitions say."""

from __future__ import annotations

import pytest

from gateway.lab.figures import index_of, jain, percentile, within_slo
from gateway.lab.job import Fate, Job
from gateway.lab.page import Bar, Chart, Page, Table, rendered
from gateway.lab.trace import Arrival


def job(
    at: float = 0.0,
    first: float | None = 1.0,
    last: float = 2.0,
    *,
    prompt: int = 100,
    answer: int = 11,
    team: str = "a",
) -> Job:
    """Return a request that was served."""
    made = Job(0, Arrival(at, prompt, answer, team), at, 0, prompt)
    made.first_at, made.ended_at, made.fate = first, last, Fate.SERVED
    return made


@pytest.mark.parametrize(
    ("first", "last", "uncached", "good"),
    [
        (1.99, 2.5, 0, True),
        (2.01, 2.5, 0, False),
        (2.9, 3.4, 8_000, True),
        (3.1, 3.4, 8_000, False),
        (1.0, 1.59, 0, True),
        (1.0, 1.61, 0, False),
    ],
)
def test_the_slo_is_a_first_token_in_time_and_a_steady_pace(
    first: float, last: float, uncached: int, good: bool
) -> None:
    """2 s and 1 s per 8,000 uncached prompt tokens; 60 ms between tokens on average."""
    one = job(0.0, first, last)
    one.uncached = uncached
    assert within_slo(one) is good


def test_what_was_not_served_is_not_within_the_slo() -> None:
    """Rejected and lost requests do not count, however quick their first token was."""
    for fate in (Fate.REJECTED, Fate.FAILED, Fate.PENDING):
        one = job(0.0, 0.1, 0.2)
        one.fate = fate
        assert not within_slo(one)


def test_percentiles_are_by_nearest_rank() -> None:
    """Of nothing there is none; of a hundred the 99th is the 99th."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50.0, 90.0, 99.0, 100.0]
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.01) == 7.0


def test_jains_index_is_one_when_all_are_equal_and_a_share_when_one_has_all() -> None:
    """(sum)² / (n · sum of squares)."""
    assert index_of([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert index_of([3.0, 0.0, 0.0]) == pytest.approx(1 / 3)


def waited(at: float, taken: float, last: float, team: str) -> Job:
    """Return a request that an engine took up at ``taken`` and whose first token came at once."""
    made = job(at, taken, last, team=team)
    made.first_sent_at = taken
    return made


def test_fairness_is_judged_only_between_teams_that_waited_all_the_time() -> None:
    """A team that does not ask for more cannot be treated unfairly; a backlogged one that gets nothing is."""
    even = [waited(0.0, 40.0, 41.0, team) for team in "ab"] + [waited(0.0, 10.0, 11.0, team) for team in "ab"]
    assert jain(even, interval=20.0) == pytest.approx(1.0)
    starved = [waited(0.0, 40.0, 41.0, "a"), waited(0.0, 40.0, 41.0, "b"), waited(0.0, 10.0, 11.0, "b")]
    assert jain(starved, interval=20.0) == pytest.approx((0.5 + 1.0) / 2)
    alone = [waited(0.0, 40.0, 41.0, "a"), waited(0.0, 1.0, 2.0, "b")]
    assert jain(alone, interval=20.0) is None


def test_who_is_being_read_or_was_refused_does_not_wait() -> None:
    """Waiting ends when an engine takes a request up, however long it reads; a refused one waited until then."""
    reading = [job(0.0, 40.0, 41.0, team="a"), waited(0.0, 40.0, 41.0, "b")]
    assert jain(reading, interval=20.0) is None
    refused = waited(0.0, 40.0, 41.0, "a")
    refused.first_at, refused.over_at = None, 40.0
    assert jain([refused, waited(0.0, 40.0, 41.0, "b"), waited(0.0, 5.0, 6.0, "b")], interval=20.0) == pytest.approx(
        (0.5 + 1.0) / 2
    )


def test_the_page_is_one_file_with_everything_in_it() -> None:
    """Nothing is loaded from anywhere, text cannot become markup, and every value is there."""
    page = rendered(
        Page(
            "A <lab> page",
            ("fact & fact",),
            "weir lab run --seed 1",
            (Table("T", ("name", "value"), (("<script>", "3.5"),), {(0, 1): False}),),
            (Chart("Goodput", (Bar("balanced", (1.0, 3.0)), Bar("none", ())), 2.5),),
        )
    )
    assert "<script" not in page
    assert "http" not in page
    assert "src=" not in page
    assert "&lt;script&gt;" in page
    assert "fact &amp; fact" in page
    assert '<td class="miss">3.5</td>' in page
    assert page.count("<svg") == 1
    assert ">2</text>" in page
