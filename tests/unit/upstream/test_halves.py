"""Wherever an engine cuts its UTF-16, the caller reads the text that it would be if nobody had cut."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engines.catalogue import ENGINES
from gateway.types.call import Operation
from gateway.types.chunk import Chunk, TextChunk
from gateway.upstream.event_stream import EventStream

UNITS = st.lists(st.sampled_from(["a", "\\", "é", "\ud83d", "\ude00", "\ud83e", "\udd16"]), max_size=12)
CUTS = st.lists(st.integers(1, 4), min_size=12, max_size=12)
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def text_of(chunk: Chunk) -> str:
    """Return the text of a chunk."""
    if isinstance(chunk, TextChunk):
        return str(chunk.choices[0].delta.content)
    return str(chunk["choices"][0]["delta"].get("content") or "")


def events_of(units: list[str], sizes: list[int]) -> list[bytes]:
    """Return events with as many ``units`` each as ``sizes`` say."""
    events = []
    for size in sizes:
        piece, units = "".join(units[:size]), units[size:]
        if piece:
            document = {"id": "x", "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
            events.append(b"data: %b\n\n" % json.dumps(document).encode())
    return events


@given(UNITS, CUTS, st.sampled_from([0, 1, 9, 140, 1000]))
@settings(deadline=None, max_examples=300)
def test_the_text_of_a_stream_is_that_of_its_units(units: list[str], cuts: list[int], step: int) -> None:
    """Event by event (0), byte by byte, or many at once."""
    events = events_of(units, cuts)
    data = b"".join(events) + END
    reads = [*events, END] if not step else [data[place : place + step] for place in range(0, len(data), step)]
    stream, text, finished = EventStream(ENGINES["vllm"], Operation.CHAT, None), "", False
    for read in reads:
        chunk = stream.text(read)
        if chunk is not None:
            text += text_of(chunk)
        elif heard := stream.read(read):
            assert heard.failure is None
            text += "".join(map(text_of, heard.chunks))
            finished = finished or heard.finished
    assert finished
    assert text == "".join(units).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
