"""Traces are read from every published form, and no line that is no request goes unnoticed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.lab.formats import FORMATS, load
from gateway.lab.suite import WINDOWS, cases
from gateway.lab.trace import Arrival, Trace, TraceError, chained
from gateway.lab.workload import BLOCK_TOKENS, blocks, estimates

GOOD = {
    "azure": "arrival_s,input_tokens,output_tokens\n0.5,100,7\n0.25,50,0\n",
    "vtc": "arrival_s,client,input_tokens,output_tokens\n0.5,ann,100,7\n0.25,bob,50,0\n",
    "servegen": "arrival_s,model,client,input_tokens,output_tokens\n0.5,m-small,ann,100,7\n0.25,m-mid,bob,50,0\n",
    "mooncake": '{"timestamp":500,"input_length":100,"output_length":7,"hash_ids":[1]}\n'
    '{"timestamp":250,"input_length":50,"output_length":0,"hash_ids":[1]}\n',
    "bailian": '{"timestamp":0.5,"input_length":100,"output_length":7,"hash_ids":[1,2],"chat_id":9,"turn":1}\n'
    '{"timestamp":0.25,"input_length":50,"output_length":0,"hash_ids":[]}\n',
    "weir": '{"at":0.5,"prompt_tokens":100,"completion_tokens":7,"team":"ann","blocks":[4]}\n'
    '{"at":0.25,"prompt_tokens":50,"completion_tokens":0}\n',
}


def written(folder: Path, content: str | bytes, name: str = "trace") -> Path:
    """Return a file in ``folder`` with ``content``."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("zipped", [False, True])
def test_every_form_gives_requests_by_time(form: str, zipped: bool, tmp_path: Path) -> None:
    """Seconds, token counts and clients are read, plain or gzip, and put in the order of time."""
    content = GOOD[form].encode()
    trace = load(written(tmp_path, gzip.compress(content, mtime=0) if zipped else content), form, strict=True)
    assert [(one.at, one.prompt_tokens, one.answer_tokens) for one in trace.arrivals] == [(0.25, 50, 1), (0.5, 100, 7)]
    if form in {"vtc", "servegen"}:
        assert [one.team for one in trace.arrivals] == ["bob", "ann"]
    assert trace.block_tokens == FORMATS[form].block_tokens
    assert not trace.bad


def test_azures_own_columns_are_read(tmp_path: Path) -> None:
    """The files as Azure publishes them have times of day."""
    content = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
    )
    first, second = load(written(tmp_path, content), "azure").arrivals
    assert first.at == 0.0
    assert second.at == pytest.approx(0.052, abs=1e-6)


@pytest.mark.parametrize(
    ("form", "content", "number"),
    [
        ("azure", "arrival_s,input_tokens,output_tokens\n0,10,1\nnan,10,1\n1,10,1\n", 3),
        ("azure", "arrival_s,input_tokens,output_tokens\n0,10,1\n1,0,1\n", 3),
        ("azure", "arrival_s,input_tokens,output_tokens\n0,10,1\n1,10\n", 3),
        ("azure", "arrival_s,input_tokens,output_tokens\n0,10,1\n1,99999999999,1\n", 3),
        ("vtc", "arrival_s,client,input_tokens,output_tokens\n0,a,10,1\n-1,a,10,1\n", 3),
        ("mooncake", GOOD["mooncake"] + "{not json\n", 3),
        ("mooncake", GOOD["mooncake"] + '{"timestamp":1,"input_length":"x","output_length":1}\n', 3),
        ("weir", GOOD["weir"] + '{"at":1,"prompt_tokens":-4,"completion_tokens":1}\n', 3),
    ],
)
def test_a_bad_line_is_told_with_its_number_or_refused(form: str, content: str, number: int, tmp_path: Path) -> None:
    """By default it is left out and counted; with ``strict`` the file is refused, naming file and line."""
    path = written(tmp_path, content)
    trace = load(path, form)
    assert [line.number for line in trace.bad] == [number]
    assert trace.bad[0].reason
    with pytest.raises(TraceError, match=rf"trace:{number}: "):
        load(path, form, strict=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"a,b\n1,2\n", b"\x1f\x8b\x00broken", gzip.compress(b"x" * 999, mtime=0)[:40], b"\xff\xfe\x00"],
)
@pytest.mark.parametrize("form", ["azure", "mooncake"])
def test_a_file_without_any_request_is_refused(form: str, content: bytes, tmp_path: Path) -> None:
    """An empty, broken or foreign file is an error that names it, not an empty result."""
    with pytest.raises(TraceError, match="trace"):
        load(written(tmp_path, content), form)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=400), form=st.sampled_from(sorted(FORMATS)), head=st.booleans())
def test_no_content_breaks_the_readers(
    content: bytes, form: str, head: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a file holds, there are requests with sound numbers or a ``TraceError``."""
    start = GOOD[form].partition("\n")[0].encode() + b"\n" if head else b""
    path = written(tmp_path_factory.mktemp("fuzz"), start + content)
    try:
        trace = load(path, form)
    except TraceError:
        return
    assert all(one.at >= 0 and one.prompt_tokens > 0 and one.answer_tokens > 0 for one in trace.arrivals)


def test_rate_windows_and_repeats_keep_the_requests() -> None:
    """Scaling the rate moves arrivals only; a window cuts; a repeat shares no prefix with the run before it."""
    trace = Trace("t", 16, tuple(Arrival(10.0 + second, 64, 1, chain=chained([1, 2])) for second in range(10)))
    fast = trace.scaled(2.0)
    assert [one.at for one in fast.arrivals][:3] == [0.0, 0.5, 1.0]
    assert fast.span == pytest.approx(trace.span / 2)
    assert len(trace.window(12.0, 15.0).arrivals) == 3
    with pytest.raises(TraceError):
        trace.window(100.0, 200.0)
    with pytest.raises(TraceError, match="lasts 11574 days at this rate"):
        Trace("t", 16, (Arrival(0.0, 64, 1), Arrival(1e9, 64, 1))).scaled(1.0)
    twice = trace.repeated(2)
    assert len(twice.arrivals) == 20
    assert sorted(one.at for one in twice.arrivals) == [one.at for one in twice.arrivals]
    assert not set(twice.arrivals[0].chain) & set(twice.arrivals[10].chain)


def test_the_ideal_hit_ratio_counts_full_blocks_of_equal_prefixes() -> None:
    """A block counts when it and all before it came before; the last token is always read."""
    requests = (
        Arrival(0, 64, 1, chain=chained([1, 2, 3, 4])),
        Arrival(1, 64, 1, chain=chained([1, 2, 3, 4])),
        Arrival(2, 64, 1, chain=chained([9, 2, 3, 4])),
        Arrival(3, 40, 1, chain=chained([1, 2])),
    )
    assert Trace("t", 16, requests).ideal_hit_ratio == pytest.approx((48 + 32) / 232)


@pytest.mark.parametrize("block_tokens", [16, 64, 512])
def test_routing_sees_the_prefixes_that_the_trace_shares(block_tokens: int) -> None:
    """Block hashes agree exactly as far as chains do, whatever the size of the trace's blocks, and never by chance."""
    per = 2_048 // block_tokens
    same, other = list(range(per)), [*range(per // 2), *range(900, 900 + per - per // 2)]
    one = blocks(Arrival(0, 2_048, 1, chain=chained(same)), 1, block_tokens)
    two = blocks(Arrival(0, 2_048, 1, chain=chained(other)), 2, block_tokens)
    alone, apart = blocks(Arrival(0, 2_048, 1), 3, block_tokens), blocks(Arrival(0, 2_048, 1), 4, block_tokens)
    assert len(one) == len(two) == len(alone) == 2_048 // BLOCK_TOKENS
    shared = 1_024 // BLOCK_TOKENS
    assert one[:shared] == two[:shared]
    assert not set(one[shared:]) & set(two[shared:])
    assert not set(alone) & set(apart)
    assert len(set(one)) == len(one)


def test_estimates_are_near_the_truth_and_repeat() -> None:
    """A gateway without a tokenizer is off by some percent, the same way for the same seed."""
    trace = Trace("t", 16, tuple(Arrival(second, 1_000, 1) for second in range(500)))
    first = estimates(trace, 1)
    assert first == estimates(trace, 1) != estimates(trace, 2)
    assert 0.97 < sum(first) / 500_000 < 1.03
    assert max(first) > 1_100


def test_the_windows_that_ship_are_whole() -> None:
    """Every workload of the suite is there and every line of it is a request."""
    for case in cases():
        assert not case.source.trace().bad
    clients = load(WINDOWS / "vtc_arena_clients.csv.gz", "vtc", strict=True)
    assert len({one.team for one in clients.arrivals}) > 10
    raw = gzip.decompress((WINDOWS / "mooncake_conversation.jsonl.gz").read_bytes()).splitlines()
    assert set(json.loads(raw[0])) == {"timestamp", "input_length", "output_length", "hash_ids"}
