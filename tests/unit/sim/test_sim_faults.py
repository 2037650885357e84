"""Arming, counting and reading faults."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sim import Fault, Faults
from gateway.sim.faults import parse


def test_a_fault_strikes_until_it_is_cleared() -> None:
    """Without a count a fault has no end."""
    faults = Faults([Fault(kind="no_usage")])
    assert all("no_usage" in faults.draw() for _ in range(20))
    faults.clear()
    assert faults.draw() == {}


@given(st.integers(1, 30))
def test_a_counted_fault_strikes_exactly_that_often(count: int) -> None:
    """``count`` is the number of requests struck."""
    faults = Faults([Fault(kind="reset", count=count)])
    assert sum("reset" in faults.draw() for _ in range(50)) == count
    assert faults.listing() == []


def test_a_probable_fault_strikes_a_share_and_repeats_with_its_seed() -> None:
    """``probability`` strikes about that share, the same requests for the same seed."""
    fault = Fault(kind="reset", probability=0.3)
    runs = [["reset" in faults.draw() for _ in range(1_000)] for faults in (Faults([fault], seed=4) for _ in range(2))]
    assert runs[0] == runs[1]
    assert 200 < sum(runs[0]) < 400


def test_spared_requests_do_not_use_up_the_count() -> None:
    """With both, ``count`` counts strikes."""
    faults = Faults([Fault(kind="reset", probability=0.5, count=10)])
    assert sum("reset" in faults.draw() for _ in range(1_000)) == 10


def test_a_fault_ends_after_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """``seconds`` disarms by itself."""
    now = 100.0
    monkeypatch.setattr("gateway.sim.faults.time", SimpleNamespace(monotonic=lambda: now))
    faults = Faults([Fault(kind="slow", seconds=20)])
    now += 19
    assert "slow" in faults.draw()
    now += 1
    assert faults.draw() == {}
    assert faults.listing() == []


def test_several_faults_strike_together_and_a_kind_once() -> None:
    """Kinds combine; a later fault of a kind replaces the earlier."""
    faults = Faults([Fault(kind="no_usage"), Fault(kind="error_status", status=500)])
    faults.arm(Fault(kind="error_status", status=429))
    drawn = faults.draw()
    assert set(drawn) == {"no_usage", "error_status"}
    assert drawn["error_status"].status == 429


def test_probes_and_connections_are_not_drawn_for_requests() -> None:
    """What strikes probes or connections is not used up by generation requests."""
    faults = Faults([Fault(kind="unhealthy", count=1), Fault(kind="refuse", mode="rst", count=1)])
    assert faults.draw() == {}
    assert faults.take("unhealthy") is not None
    assert faults.take("unhealthy") is None
    assert faults.take("refuse") is not None


def test_every_change_is_announced() -> None:
    """Arming, clearing and the last strike call ``on_change``."""
    faults = Faults()
    calls: list[int] = []
    faults.on_change = lambda: calls.append(len(faults.listing()))
    faults.arm(Fault(kind="reset", count=1))
    faults.draw()
    faults.arm(Fault(kind="slow"))
    faults.clear("slow")
    assert calls == [1, 0, 1, 0]


def test_the_three_forms_of_json_are_read() -> None:
    """One fault, a list, and an object with a list are all understood, and the listing can be sent back."""
    one = parse(b'{"kind": "reset", "count": 2}')
    assert one == (Fault(kind="reset", count=2),)
    assert list(parse(b'[{"kind": "reset"}, {"kind": "slow", "factor": 3}]')) == [
        Fault(kind="reset"),
        Fault(kind="slow", factor=3.0),
    ]
    assert list(parse(b'{"faults": [{"kind": "unhealthy"}]}')) == [Fault(kind="unhealthy")]
    listing = Faults([Fault(kind="stall", mode="silent", after_chunks=0)]).listing()
    assert list(parse(msgspec.json.encode(listing))) == [Fault(kind="stall", mode="silent", after_chunks=0)]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"5",
        b"[" * 20_000,
        b'{"kind": "explode"}',
        b'{"kind": "reset", "cont": 2}',
        b'{"kind": "reset", "count": 0}',
        b'{"kind": "reset", "probability": 0}',
        b'{"kind": "reset", "probability": 1.5}',
        b'{"kind": "reset", "mode": "fin"}',
        b'{"kind": "refuse", "count": 3}',
        b'{"kind": "slow", "factor": -1}',
        b'{"kind": "error_status", "status": 42}',
        b'{"kind": "error_status", "headers": {"a": "b\\r\\nc: d"}}',
        b'{"kind": "malformed_sse", "styles": ["loud"]}',
        b'{"faults": {"kind": "reset"}}',
    ],
)
def test_faults_that_make_no_sense_are_refused(raw: bytes) -> None:
    """Unknown kinds, fields, modes and impossible numbers raise ValueError and arm nothing."""
    with pytest.raises(ValueError, match=r"."):
        parse(raw)


def test_defaults_depend_on_the_kind() -> None:
    """Where a fault strikes and how, when nothing else is said."""
    assert Fault(kind="reset_mid_stream").chunks == 1
    assert Fault(kind="stall").chunks == 0
    assert Fault(kind="stall").how == "headers"
    assert Fault(kind="cut_mid_stream").how == "fin"
    assert Fault(kind="cut_before_done").how == "end"
    assert Fault(kind="reset").how is None
