"""Server-sent events: any split and any line ending give the same payloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import sse
from gateway.upstream.sse import EventReader, LineTooLong

PAYLOADS = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), min_size=1, max_size=40), max_size=8
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
