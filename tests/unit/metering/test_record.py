"""Frames of the journal."""

from __future__ import annotations

import os
from typing import Any

import google_crc32c
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.record import (
    HEADER,
    MAX_PAYLOAD,
    Close,
    Dimensions,
    End,
    Head,
    Open,
    Price,
    Progress,
    Record,
    RowKind,
    Seal,
    Status,
    decode,
    decode_settled,
    end_of,
    frame,
    frames,
    scan,
)
from gateway.types.charge import Charge
from gateway.types.money import Rates
from gateway.types.tokens import Usage, UsageSource

whole = st.integers(0, 2**62)
text = st.text(max_size=30)
usages = st.builds(Usage, *[whole] * 9)
charges = st.builds(Charge, *[whole] * 8)
ids = st.binary(min_size=16, max_size=16)
dimensions = st.builds(Dimensions, *[text] * 12, st.booleans(), whole, whole)
closes = st.builds(
    Close,
    ids,
    st.integers(1, 9),
    st.sampled_from(RowKind),
    dimensions,
    whole,
    st.sampled_from(Status),
    text,
    st.integers(0, 599),
    usages,
    st.sampled_from(UsageSource),
    charges,
    charges,
    whole,
    whole,
    whole,
    text,
    text,
)
records = st.one_of(
    st.builds(Head, st.just(1), text, text, whole, whole),
    st.builds(Seal, text),
    st.builds(Price, whole, st.builds(Rates, whole, whole, *[st.none() | whole] * 7, whole)),
    st.builds(Open, ids, st.integers(1, 9), dimensions, whole, whole),
    st.builds(Progress, ids, st.integers(1, 9), usages, st.sampled_from(UsageSource)),
    closes,
)


@given(st.lists(records, max_size=5))
def test_what_is_framed_is_read_back(written: list[Record]) -> None:
    """A journal gives back every record, whatever its texts and numbers, and where each one ends."""
    data = b"".join(map(frame, written))
    read = list(scan(data))
    assert [record for record, _ in read] == written
    assert [end for _, end in read] == [
        len(b"".join(map(frame, written[: count + 1]))) for count in range(len(written))
    ]


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_torn_tail_hides_only_itself(written: list[Record], data: st.DataObject) -> None:
    """Cut anywhere, a journal gives back exactly the records that are whole."""
    whole_data = b"".join(map(frame, written))
    cut = data.draw(st.integers(0, len(whole_data)))
    expected = [record for record, end in scan(whole_data) if end <= cut]
    for tail in (b"", bytes(100), b"\xff" * 7):
        assert [record for record, _ in scan(whole_data[:cut] + tail)][: len(expected)] == expected
    assert [record for record, _ in scan(whole_data[:cut])] == expected


@given(records, st.data())
def test_a_changed_byte_is_noticed(record: Record, data: st.DataObject) -> None:
    """A frame with any one byte changed is never read as another record."""
    good = bytearray(frame(record))
    place = data.draw(st.integers(HEADER.size, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    assert list(scan(bytes(good))) == []


@given(closes)
def test_the_ledger_reads_an_end_as_it_was_written(close: Close) -> None:
    """The light form of an end holds the same values, in the order of the classes."""
    end = end_of(close)
    assert isinstance(end, End)
    assert (end.request_id, end.attempt, end.kind, end.status) == (
        close.request_id,
        close.attempt,
        str(close.kind),
        str(close.status),
    )
    assert end.usage == msgspec.structs.astuple(close.usage)
    assert end.charge == msgspec.structs.astuple(close.charge)
    assert end.cost == msgspec.structs.astuple(close.cost)
    assert msgspec.msgpack.decode(bytes(end.dims), type=Dimensions) == close.dims
    assert (end.error, end.upstream_id) == (close.error, close.upstream_id)


@given(records)
def test_only_attempts_in_flight_are_skipped_by_the_ledger(record: Record) -> None:
    """``Open`` and ``Progress`` make no ledger row; nothing else is skipped."""
    ((payload, _),) = list(frames(frame(record)))
    settled = decode_settled(payload)
    assert (settled is None) == isinstance(record, Open | Progress)
    if not isinstance(record, Open | Progress | Close):
        assert settled == record


def _close(**changes: Any) -> Close:
    dims = Dimensions("t", "k", "m", "e", "b", "p", "", "default", "chat", "m", "m", "", False, 0, 0)
    return msgspec.structs.replace(Close(os.urandom(16), 1, RowKind.USAGE, dims, 1, Status.OK), **changes)


@pytest.mark.parametrize("monster", ["x" * 200_000, "\U0001f600" * 60_000, "\ud800" * 10, "\udfff" + "y" * 100_000])
def test_absurd_texts_never_lose_a_record(monster: str) -> None:
    """An engine's or caller's text that is too long, or no Unicode, is cut or mended, and the record is written."""
    close = _close(
        upstream_id=monster,
        error=monster,
        finish_reason=monster,
        dims=msgspec.structs.replace(_close().dims, user=monster, app=monster, requested_model=monster),
    )
    data = frame(close)
    assert len(data) <= HEADER.size + MAX_PAYLOAD
    ((record, _),) = list(scan(data))
    assert isinstance(record, Close)
    assert record.request_id == close.request_id
    assert record.upstream_id[:10] == monster[:10].encode("utf-8", "replace").decode()


def test_absurd_numbers_never_lose_a_record() -> None:
    """Counts that no 64 bits hold are cut, and the record is written."""
    close = _close(usage=Usage(10**30, 5), charge=Charge(10**40), duration_us=-(10**30), http_status=200)
    ((record, _),) = list(scan(frame(close)))
    assert isinstance(record, Close)
    assert (record.usage.prompt, record.usage.completion, record.charge.prompt) == (2**63 - 1, 5, 2**63 - 1)
    assert record.dims == close.dims


def test_a_record_of_an_unknown_kind_ends_the_scan() -> None:
    """What a newer version wrote is not guessed at."""
    payload = msgspec.msgpack.encode(["q", 1, 2])
    unknown = HEADER.pack(len(payload), google_crc32c.value(payload)) + payload
    assert len(list(scan(frame(_close()) + unknown + frame(_close())))) == 1
    with pytest.raises(msgspec.DecodeError):
        decode(payload)
