"""Server-sent events: any split and any line ending give the same payloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import sse
from gateway.upstream.sse import EventReader, LineTooLong

PAYLOADS = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=40), max_size=8
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def read(data: bytes, cuts: list[int]) -> list[bytes]:
    reader = EventReader()
    found: list[bytes] = []
    last = 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        found += reader.feed(data[last:cut])
        last = cut
    return found + reader.close()


@given(PAYLOADS, st.data(), st.lists(st.integers(0, 400), max_size=12))
def test_any_split_and_any_line_ending_give_the_same_payloads(
    texts: list[str], data: st.DataObject, cuts: list[int]
) -> None:
    """Text is neither lost nor doubled nor changed, wherever TCP cut it."""
    stream = b""
    for text in texts:
        end = data.draw(ENDS)
        space = data.draw(st.sampled_from([b" ", b""])) if not text.startswith(" ") else b" "
        blank = data.draw(st.sampled_from([end, b"", end + end]))
        stream += data.draw(st.sampled_from([b"", b": ping" + end, b"event: x" + end + b"id: 7" + end]))
        stream += b"data:" + space + text.encode() + end + blank
    assert read(stream, cuts) == [text.encode() for text in texts]


def test_a_last_line_without_an_end_counts() -> None:
    """An engine that forgets the last line end loses nothing."""
    assert read(b'data: {"a":1}\n\ndata: [DONE]', []) == [b'{"a":1}', b"[DONE]"]


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4], [8]])
@pytest.mark.parametrize("space", [b"", b" "])
def test_a_mark_of_the_byte_order_swallows_no_event(cuts: list[int], space: bytes) -> None:
    """Some servers write one before everything they say."""
    assert read(b"\xef\xbb\xbfdata:" + space + b"{}\n\ndata: b\n\n", cuts) == [b"{}", b"b"]


@given(
    st.lists(
        st.sampled_from([b"data: ", b"data:", b"{}", b"x:", b"\n", b"\n\n", b"\r\n", b"\r", b" ", b"a"]), max_size=6
    )
)
def test_an_event_taken_alone_is_what_reading_it_gives(parts: list[bytes]) -> None:
    """What is taken without a detour is the one payload, and leaves nothing behind; anything else is not taken."""
    data = b"".join(parts)
    alone = EventReader().event(data)
    if alone is not None:
        assert read(data, []) == [alone]
    assert EventReader().event(b"data: %s\n\n" % data) == (data if not {10, 13} & {*data} else None)


def test_an_event_is_not_taken_where_more_matters() -> None:
    """Behind the beginning of a line, and while blank lines count, every byte is read."""
    reader = EventReader()
    reader.feed(b"da")
    assert reader.event(b"data: a\n\n") is None
    reader.feed(b"ta: b\n\n")
    reader.boundaries = True
    assert reader.event(b"data: a\n\n") is None


def test_boundaries_are_reported_only_when_asked_for() -> None:
    """Blank lines matter only for a document that spans several data lines."""
    reader = EventReader()
    assert reader.feed(b"data: a\n\n") == [b"a"]
    reader.boundaries = True
    assert reader.feed(b"data: b\n\n") == [b"b", b""]


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without end cannot fill the memory."""
    monkeypatch.setattr(sse, "MAX_LINE", 100)
    reader = EventReader()
    reader.feed(b"data: " + b"x" * 90)
    with pytest.raises(LineTooLong):
        reader.feed(b"x" * 20)
