"""Promises of the metric primitives: right sums, bounded labels, scrapes that always succeed."""

from __future__ import annotations

import sys
import threading
from collections import Counter as Tally
from io import StringIO

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.telemetry.instruments import OTHER, Counter, Fold, Histogram, Registry, Source
from gateway.types.failure import Cause

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
BOUNDS = (0.1, 1.0, 10.0)


def scraped(registry: Registry, accept: str = "", peers: tuple[bytes, ...] = ()) -> dict[str, Metric]:
    """Return what a scraper understands, by family."""
    body, content_type = registry.render(accept, peers)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    parse = parse_openmetrics if accept else parse_text
    return {family.name: family for family in parse(body.decode())}


def value(registry: Registry, sample: str, **labels: str) -> float | None:
    """Return one value of a scrape, or None when it is not there."""
    for family in scraped(registry).values():
        for found in family.samples:
            if found.name == sample and found.labels == labels:
                return float(found.value)
    return None


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_kind_is_scraped(accept: str) -> None:
    """Both text forms carry counters, gauges and histograms with the right type, help and values."""
    registry = Registry()
    registry.counter("weir_a_total", "A.", "model").add(('q"\\\nx',), 2)
    registry.gauge("weir_b", "B.").bind(lambda: 1.5)
    registry.histogram("weir_c_seconds", "C.", buckets=BOUNDS).observe((), 0.5)
    families = scraped(registry, accept)
    assert [(family.type, family.documentation) for family in families.values()] == [
        ("counter", "A."),
        ("gauge", "B."),
        ("histogram", "C."),
    ]
    assert families["weir_a"].samples[0].labels == {"model": 'q"\\\nx'}
    assert families["weir_a"].samples[0].value == 2
    assert families["weir_b"].samples[0].value == 1.5


def test_unlabelled_counter_starts_at_zero() -> None:
    """A counter without labels is there before its first event, so that its first rate is right."""
    registry = Registry()
    registry.counter("weir_a_total", "A.")
    assert value(registry, "weir_a_total") == 0


def test_unknown_value_is_missing() -> None:
    """A gauge without a source, or whose source does not know, shows nothing rather than zero."""
    registry = Registry()
    registry.gauge("weir_a", "A.")
    registry.gauge("weir_b", "B.").bind(lambda: None)
    registry.gauge("weir_c", "C.", "backend").bind(lambda: {("x",): None, ("y",): 0.0})
    assert value(registry, "weir_a") is None
    assert value(registry, "weir_b") is None
    assert value(registry, "weir_c", backend="x") is None
    assert value(registry, "weir_c", backend="y") == 0


def test_enum_labels_are_their_values() -> None:
    """A word of an enum is the same label as its text."""
    registry = Registry()
    counter = registry.counter("weir_a_total", "A.", "cause")
    counter.add((Cause.RESET,))
    counter.add(("reset",))
    assert value(registry, "weir_a_total", cause="reset") == 2


@given(st.lists(st.floats(0, 20, allow_nan=False), max_size=60))
def test_histogram_counts_every_value_once(values: list[float]) -> None:
    """Cumulative buckets hold exactly the values up to their bound; count and sum are those of all values."""
    registry = Registry()
    histogram = registry.histogram("weir_a_seconds", "A.", buckets=BOUNDS)
    for one in values:
        histogram.observe((), one)
    for bound in BOUNDS:
        assert value(registry, "weir_a_seconds_bucket", le=str(bound)) == sum(one <= bound for one in values)
    assert value(registry, "weir_a_seconds_bucket", le="+Inf") == len(values)
    assert value(registry, "weir_a_seconds_count") == len(values)
    assert value(registry, "weir_a_seconds_sum") == pytest.approx(sum(values))


@given(st.lists(st.tuples(st.text(st.characters(codec=None)), st.integers(0, 9)), max_size=40))
@example([("\ud800", 1), ("ü", 2)])
def test_counter_sums_by_label(events: list[tuple[str, int]]) -> None:
    """Each label value has the sum of its events, whatever text it is, also one UTF-8 cannot carry."""
    registry = Registry()
    counter = registry.counter("weir_a_total", "A.", "model")
    tally: Tally[str] = Tally()
    for label, amount in events:
        counter.add((label,), amount)
        tally[label.encode("utf-8", "backslashreplace").decode()] += amount
    body, _ = registry.render(OPENMETRICS)
    parsed: list[Metric] = list(parse_openmetrics(body.decode()))
    found = {sample.labels["model"]: sample.value for family in parsed for sample in family.samples}
    assert found == tally


def test_labels_are_capped_and_totals_right() -> None:
    """Label sets beyond the cap count as ``other``; known ones go on, and nothing is lost from the total."""
    counter = Counter("weir_a_total", "A.", ("model", "class"), cap=3)
    histogram = Histogram("weir_b_seconds", "B.", ("model",), BOUNDS, cap=3)
    for number in range(100):
        counter.add((f"m{number}", "prompt"))
        histogram.observe((f"m{number}",), 0.5)
    counter.add(("m0", "prompt"))
    counts, series = counter.samples(), histogram.samples()
    assert counts[("m0", "prompt")] == [2]
    assert counts[(OTHER, OTHER)] == [97]
    assert len(counts) == len(series) == 4
    assert series[(OTHER,)] == [48.5, 0, 97, 0, 0]


def test_samples_are_copies() -> None:
    """Values once read do not move when counting goes on."""
    counter, histogram = Counter("weir_a_total", "A."), Histogram("weir_b_seconds", "B.", (), BOUNDS)
    before = counter.samples(), histogram.samples()
    counter.add(())
    histogram.observe((), 1)
    assert before == ({(): [0]}, {(): [0, 0, 0, 0, 0]})


def test_wrong_number_of_labels_is_refused() -> None:
    """A call with too few or too many label values fails at once instead of spoiling every later scrape."""
    registry = Registry()
    counter = registry.counter("weir_a_total", "A.", "model")
    histogram = registry.histogram("weir_b_seconds", "B.", "model", buckets=BOUNDS)
    with pytest.raises(ValueError, match="weir_a_total has 1 labels, not 2"):
        counter.add(("a", "b"))
    with pytest.raises(ValueError, match="weir_b_seconds has 1 labels, not 0"):
        histogram.observe((), 1)
    assert scraped(registry)["weir_a"].samples == []


def test_bound_counter_shows_its_source() -> None:
    """A counter kept elsewhere is read at each scrape; a later binding replaces an earlier one."""
    registry = Registry()
    registry.counter("weir_a_total", "A.")
    registry.bind("weir_a_total", lambda: 7)
    assert value(registry, "weir_a_total") == 7
    registry.bind("weir_a_total", lambda: 8)
    assert value(registry, "weir_a_total") == 8


def test_only_known_counters_and_gauges_can_be_bound() -> None:
    """A binding to a name that is not there, or to a histogram, is refused at once."""
    registry = Registry()
    registry.histogram("weir_a_seconds", "A.", buckets=BOUNDS)
    for name in ("weir_a_seconds", "weir_z"):
        with pytest.raises(ValueError, match=f"no counter or gauge {name}"):
            registry.bind(name, lambda: 1)


def test_names_are_taken_once() -> None:
    """Two metrics of one name are refused."""
    registry = Registry()
    registry.gauge("weir_a", "A.")
    with pytest.raises(ValueError, match="two metrics weir_a"):
        registry.gauge("weir_a", "A again.")


def test_broken_source_costs_its_own_family(lines: StringIO) -> None:
    """A source that fails, or gives nonsense, is missing from the scrape and logged once; the rest is there."""
    registry = Registry()
    broken = [True]

    def source() -> float:
        if broken[0]:
            raise RuntimeError("the fleet is gone")
        return 1

    registry.gauge("weir_a", "A.").bind(source)
    registry.gauge("weir_b", "B.", "backend").bind(lambda: {(): 1.0})
    registry.gauge("weir_c", "C.").bind(lambda: 3)
    for _ in range(3):
        assert value(registry, "weir_c") == 3
        assert value(registry, "weir_a") is None
    logged = [msgspec.json.decode(line) for line in lines.getvalue().splitlines()]
    assert [record["metric"] for record in logged] == ["weir_a", "weir_b"]
    broken[0] = False
    assert value(registry, "weir_a") == 1
    broken[0] = True
    assert value(registry, "weir_a") is None
    assert lines.getvalue().count("weir_a") == 2


def family_of_processes(kind: int) -> Registry:
    """Return the registry of one process that has counted a little."""
    registry = Registry()
    registry.counter("weir_a_total", "A.", "model").add((f"m{kind}",), 2)
    registry.counter("weir_b_total", "B.").add((), kind)
    histogram = registry.histogram("weir_c_seconds", "C.", buckets=BOUNDS)
    histogram.observe((), kind)
    for fold in Fold:
        registry.gauge(f"weir_{fold}", "G.", fold=fold).bind(lambda: float(kind))
    return registry


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_processes_answer_as_one(accept: str) -> None:
    """Counters and histograms of several processes add up, gauges fold as declared, new labels appear."""
    peers = tuple(family_of_processes(kind).dump() for kind in (2, 5))
    families = scraped(family_of_processes(3), accept, peers)
    assert {s.labels["model"]: s.value for s in families["weir_a"].samples} == {"m2": 2, "m3": 2, "m5": 2}
    assert families["weir_b"].samples[0].value == 10
    assert [families[f"weir_{fold}"].samples[0].value for fold in ("sum", "max", "min")] == [10, 5, 2]
    assert [s.value for s in families["weir_c_seconds"].samples] == [0, 0, 3, 3, 3, 10]


def test_rendering_changes_nothing() -> None:
    """Scraping with peers twice gives the same twice: no process counts another's events as its own."""
    registry, peer = family_of_processes(1), family_of_processes(2).dump()
    assert registry.render("", [peer]) == registry.render("", [peer])


def test_foreign_dump_is_refused() -> None:
    """A dump of another version, or something else, is an error and not a wrong number."""
    other = Registry()
    other.counter("weir_new_total", "N.")
    with pytest.raises(ValueError, match="weir_new_total"):
        Registry().render("", [other.dump()])
    with pytest.raises(msgspec.DecodeError):
        Registry().render("", [b"\xff"])


def test_read_in_another_thread_while_counting() -> None:
    """Values may be read beside the thread that counts, also while that one starts new series."""
    counter = Counter("weir_a_total", "A.", ("n",), cap=100_000)
    histogram = Histogram("weir_b_seconds", "B.", ("n",), BOUNDS, cap=100_000)
    failures: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                counter.samples()
                histogram.samples()
        except RuntimeError as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(10_000):
            counter.add((str(number),))
            histogram.observe((str(number),), 0.5)
    finally:
        done.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert not failures
    assert sum(cell[0] for cell in counter.samples().values()) == 10_000


def test_a_few_families_are_folded_over_processes() -> None:
    """Sums add up and the fullest is the greatest; families that were not asked for are left out."""

    def held(value: float) -> Source:
        return lambda: {("a",): value}

    mine, other = Registry(), Registry()
    for registry, flying, full in ((mine, 3.0, 0.5), (other, 4.0, 0.25)):
        registry.gauge("flying", "m", "backend")
        registry.gauge("full", "m", "backend", fold=Fold.MAX)
        registry.counter("others", "m")
        registry.bind("flying", held(flying))
        registry.bind("full", held(full))
    found = mine.folded(("flying", "full"), [other.dump()])
    assert found == {"flying": {("a",): [7.0]}, "full": {("a",): [0.5]}}
    assert mine.folded(("flying",), []) == {"flying": {("a",): [3.0]}}
