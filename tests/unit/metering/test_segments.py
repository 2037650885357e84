"""Segments: owning, listing and reading them, damage included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import google_crc32c
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.metering.record import FORMAT_VERSION, HEADER, Close, End, Head, Open, Record, Seal, Settled, frame
from gateway.metering.segments import (
    LONGEST_FRAME,
    SegmentFile,
    SegmentParser,
    SegmentWriter,
    list_segments,
    new_writer_id,
    sweep,
)
from tests.integration.metering.samples import closed, dims, keys, of_type, opened, progressed

NOW_US = 1_800_000_000_000_000


def read_all(data: bytes, *, chunk: int, final: bool = True) -> tuple[list[Record], SegmentParser]:
    """Return the records of a segment that is read in chunks, and the parser."""
    parser, records = SegmentParser(), []
    while True:
        part = data[parser.position : parser.position + chunk]
        more = parser.position + len(part) < len(data)
        records += list(parser.records(part, more=more, final=final))
        if not more:
            return records, parser


def attempts(count: int) -> list[Record]:
    """Return records of ``count`` whole attempts."""
    records: list[Record] = []
    for number in range(count):
        start = opened()
        records += [start, progressed(start, number), closed(start)]
    return records


def test_a_segment_appears_only_when_it_is_owned_and_begun(tmp_path: Path) -> None:
    """A reader never sees a segment without its head, nor takes one for dead that is being made."""
    start = opened()
    segment = SegmentWriter.create(tmp_path, new_writer_id(), NOW_US, [frame(start)])
    (file,) = list_segments(tmp_path)
    assert file.owned()
    assert file.path == segment.path
    records, _ = read_all(file.read(0, 10**6), chunk=10**6)
    assert isinstance(records[0], Head)
    assert records[0].pid == os.getpid()
    assert records[1:] == [start]
    assert list(tmp_path.iterdir()) == [segment.path]
    segment.close()
    assert not file.owned()


def test_segments_are_listed_oldest_first_and_strangers_are_not(tmp_path: Path) -> None:
    """Names sort by time; other files in the folder are left alone."""
    writer = new_writer_id()
    made = [SegmentWriter.create(tmp_path, writer, NOW_US + moment, []) for moment in (5, 1, 999_999_000_000)]
    for stranger in ("shipper.lock", "x.weirj", "20270115T080000000000Z-1-zz.weirj", "quarantine"):
        (tmp_path / stranger).write_text("x")
    assert [file.path for file in list_segments(tmp_path)] == [made[1].path, made[0].path, made[2].path]
    assert list_segments(tmp_path / "missing") == []
    for segment in made:
        segment.close()


def test_a_segment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """A failure while a segment is made is not visible to readers."""
    tmp_path.chmod(0o700)
    with pytest.raises(OSError, match="No such file"):
        SegmentWriter.create(tmp_path / "missing", new_writer_id(), NOW_US, [])
    assert list(tmp_path.iterdir()) == []


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    """A segment of a process that was killed counts as left at once, whoever holds its number now."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from gateway.metering.segments import SegmentWriter, new_writer_id\n"
        f"SegmentWriter.create(Path({str(tmp_path)!r}), new_writer_id(), 1, [])\n"
        "print('made', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        (file,) = list_segments(tmp_path)
        assert file.owned()
        process.kill()
        process.wait(20)
        assert not file.owned()


def test_leftovers_of_a_dead_maker_are_swept(tmp_path: Path) -> None:
    """What a process left that died while making a segment goes, what one is making now stays."""
    old, young = tmp_path / "old.new", tmp_path / "young.new"
    for path in (old, young):
        path.write_bytes(b"x")
    long_ago = time.time() - 3600
    os.utime(old, (long_ago, long_ago))
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


@given(st.integers(1, 12), st.integers(0, 3))
def test_chunks_make_no_difference(count: int, extra: int) -> None:
    """A segment reads the same in one piece and in the smallest pieces allowed."""
    written = attempts(count)
    data = b"".join(map(frame, written))
    records, parser = read_all(data, chunk=LONGEST_FRAME + 1 + extra)
    assert records == written
    assert parser.position == len(data)
    assert parser.damaged == 0


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_costs_only_what_it_hits(data: st.DataObject) -> None:
    """Bytes overwritten anywhere lose at most the frames they lie in; all others are read, and the loss is counted."""
    written = attempts(6)
    parts = [frame(record) for record in written]
    good = b"".join(parts)
    start = data.draw(st.integers(0, len(good) - 1))
    length = data.draw(st.integers(1, 300))
    noise = data.draw(st.binary(min_size=length, max_size=length))
    bad = (good[:start] + noise + good[start + length :])[: len(good)]
    expected, untouched, place = [], True, 0
    for record, part in zip(written, parts, strict=True):
        same = bad[place : place + len(part)] == part
        place += len(part)
        untouched = untouched and same
        if same:
            expected.append(record)
    for chunk in (10**6, LONGEST_FRAME + 1):
        records, parser = read_all(bad, chunk=chunk)
        assert records == expected
        assert parser.damaged > 0 or expected == written[: len(expected)]
        assert parser.damaged == 0 or bad != good


@given(st.data())
def test_a_torn_tail_is_no_damage(data: st.DataObject) -> None:
    """A segment that stops in the middle of a frame, or ends in zeros, is whole up to there."""
    written = attempts(3)
    good = b"".join(map(frame, written))
    cut = data.draw(st.integers(0, len(good)))
    zeros = data.draw(st.just(0) | st.integers(32, 5_000))
    records, parser = read_all(good[:cut] + bytes(zeros), chunk=10**6)
    assert records == written[: len(records)]
    assert parser.damaged == 0
    assert sum(len(frame(record)) for record in records) == parser.position


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_bit_goes_unnoticed(data: st.DataObject) -> None:
    """One wrong bit anywhere, in the last record too, costs that record alone and is counted."""
    written = [Head(FORMAT_VERSION, "w", "h", 1, 2), *attempts(2), Seal("")]
    written = written[: data.draw(st.integers(1, len(written)))]
    parts = [frame(record) for record in written]
    hit = data.draw(st.integers(0, len(parts) - 1) | st.just(len(parts) - 1))
    victim = bytearray(parts[hit])
    bit = data.draw(st.integers(0, 8 * len(victim) - 1) | st.integers(0, 31))
    victim[bit // 8] ^= 1 << bit % 8
    segment = b"".join([*parts[:hit], victim, *parts[hit + 1 :]])
    for chunk in (10**6, LONGEST_FRAME + 1):
        records, parser = read_all(segment, chunk=chunk)
        assert records == written[:hit] + written[hit + 1 :]
        assert parser.damaged == len(victim)
        assert parser.position == len(segment)


def test_bytes_that_are_no_frame_are_damage() -> None:
    """What never was the beginning of a record is not taken for the end of a write, unless its writer lives."""
    noise = b"\xff" * 5_000
    for sound in (b"", frame(opened())):
        records, parser = read_all(sound + noise, chunk=10**6)
        assert (len(records), parser.damaged, parser.position) == (bool(sound), 5_000, len(sound) + 5_000)
        _, parser = read_all(sound + noise, chunk=10**6, final=False)
        assert (parser.damaged, parser.position) == (0, len(sound))


def test_a_living_writer_is_waited_for() -> None:
    """An incomplete frame of a writer that lives is not damage: the rest of it is still to come."""
    first, second = attempts(1)[0], attempts(1)[0]
    data = frame(first) + frame(second)
    parser = SegmentParser()
    part = data[: len(frame(first)) + 9]
    assert list(parser.records(part, more=False, final=False)) == [first]
    assert parser.position == len(frame(first))
    assert list(parser.records(data[parser.position :], more=False, final=False)) == [second]
    assert parser.damaged == 0


def test_damage_in_a_living_segment_is_stepped_over() -> None:
    """Bad bytes with more than a frame's length behind them cannot be a frame that is being written."""
    written = attempts(400)
    tail = b"".join(map(frame, written))
    assert len(tail) > LONGEST_FRAME
    parser = SegmentParser()
    assert list(parser.records(b"\x00" * 50 + tail, more=False, final=False)) == written
    assert parser.damaged == 50


def test_a_large_hole_is_crossed_in_chunks() -> None:
    """Half a megabyte of zeros in the middle is damage; what lies behind it is read."""
    before, behind = attempts(1), attempts(1)
    data = b"".join(map(frame, before)) + bytes(500_000) + b"".join(map(frame, behind))
    records, parser = read_all(data, chunk=256 * 1024)
    assert records == before + behind
    assert parser.damaged == 500_000


def test_a_record_inside_a_text_is_not_taken_for_one() -> None:
    """A caller cannot smuggle a record into the journal through a text, not even behind damage."""
    forged = frame(closed(opened()))
    hostile = "x" * 20 + forged.decode("latin-1") + forged.decode("utf-8", "replace")
    victim = opened(dims(user=hostile))
    data = bytearray(frame(victim) + frame(opened()))
    data[4] ^= 1
    records, parser = read_all(bytes(data), chunk=10**6)
    assert of_type(records, Close) == []
    assert len(of_type(records, Open)) == 1
    assert parser.damaged == len(frame(victim))


def test_a_whole_frame_that_nobody_understands_is_counted() -> None:
    """A record of an unknown kind is stepped over and counted, so that its segment is kept."""
    payload = msgspec.msgpack.encode(["q", 1])
    unknown = HEADER.pack(len(payload), google_crc32c.value(payload)) + payload
    start = opened()
    records, parser = read_all(unknown + frame(start), chunk=10**6)
    assert records == [start]
    assert parser.damaged == len(unknown)


def test_a_newer_format_is_left_alone() -> None:
    """A segment of a later version is not guessed at: nothing of it is read."""
    head = Head(FORMAT_VERSION + 1, "w", "h", 1, 1)
    records, parser = read_all(frame(head) + frame(opened()), chunk=10**6)
    assert records == []
    assert parser.foreign
    assert parser.position == 0


def test_only_what_makes_the_ledger_is_decoded() -> None:
    """For the ledger a segment yields heads, prices, ends and seals; its position moves past the rest."""
    written = [*attempts(2), Seal("")]
    data = b"".join(map(frame, written))
    parser = SegmentParser()
    settled = list(parser.settled(data, more=False, final=True))
    assert [type(record) for record in settled] == [End, End, Seal]
    assert keys(of_type(settled, End)) == keys(of_type(written, Close))
    assert parser.position == len(data)
    assert parser.sealed


def settled(data: bytes, *, quick: bool, most: int) -> tuple[list[Settled], SegmentParser]:
    """Return what of a segment makes the ledger, and the parser; read the quick way as far as that goes, or not."""
    parser, offset = SegmentParser(), 0
    found: list[Settled] = []
    while quick:
        ends, others, offset = parser.take(data, offset, most)
        found += [*ends, *others]
        if not (ends or others):
            break
    assert offset == parser.position
    found += list(parser.settled(data, offset, more=False, final=True))
    return found, parser


@settings(deadline=None)
@given(st.data())
def test_the_quick_way_of_reading_ends_where_it_could_err(data: st.DataObject) -> None:
    """Read the quick way or record by record: same records, same damage, same position, whatever bytes are broken."""
    head = Head(FORMAT_VERSION, "w", "h", 1, 2)
    records = [head, *attempts(data.draw(st.integers(0, 6))), Seal("")]
    whole = bytearray(b"".join(map(frame, records)))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[place] ^= data.draw(st.integers(1, 255))
    segment = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    slow, reference = settled(segment, quick=False, most=1)
    found, parser = settled(segment, quick=True, most=data.draw(st.integers(1, 4)))
    assert sorted(map(msgspec.msgpack.encode, found)) == sorted(map(msgspec.msgpack.encode, slow))
    assert (parser.position, parser.damaged, parser.sealed) == (
        reference.position,
        reference.damaged,
        reference.sealed,
    )


def test_the_quick_way_leaves_what_it_does_not_know() -> None:
    """A newer format, or a sound frame of an unknown record, is left to the careful way."""
    newer = frame(Head(FORMAT_VERSION + 1, "w", "h", 1, 2)) + frame(closed(opened()))
    assert SegmentParser().take(newer, 0, 10) == ([], [], 0)
    payload = msgspec.msgpack.encode(["z", *range(20)])
    unknown = HEADER.pack(len(payload), google_crc32c.value(payload)) + payload
    parser = SegmentParser()
    assert parser.take(frame(closed(opened())) + unknown, 0, 10) == ([], [], 0)
    assert parser.position == 0


def test_owner_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A segment that is gone is an error of the file system, not a dead writer."""
    with pytest.raises(FileNotFoundError):
        SegmentFile(tmp_path / "gone", "w").owned()
