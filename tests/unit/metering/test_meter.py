"""The meter of one request, over a real journal; what each kind of end costs whom is tested with the whole gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.metering import WHOLE, call
from bench.routing import fleet
from gateway.metering.journal import Journal
from gateway.metering.meter import Meter
from gateway.metering.record import Close, Open, scan
from gateway.types.chunk import Chunk, ListSink, TextChoice, TextChunk, TextDelta, TextUsage
from gateway.types.errors import Unavailable
from gateway.types.ids import RequestIds

PIECES = st.sampled_from(["role", "", "a", "water ", "thought", "counted"])


def piece(word: str) -> TextChunk:
    """Return a chunk that says ``word``, or what it names."""
    usage = TextUsage(3, 1) if word == "counted" else None
    delta = {
        "role": TextDelta(role="assistant"),
        "thought": TextDelta(reasoning="hm"),
    }.get(word) or TextDelta(content=word)
    return TextChunk((TextChoice(delta),), usage=usage)


@given(words=st.lists(PIECES, max_size=12), late=st.lists(PIECES, max_size=2), begins=st.booleans())
def test_a_piece_that_comes_alone_is_metered_as_one_among_others(
    words: list[str], late: list[str], begins: bool
) -> None:
    """Whatever comes first, and an empty piece before any text: what is counted, passed on and held is the same."""

    async def metered(*, alone: bool) -> tuple[Any, ...]:
        with TemporaryDirectory() as folder:
            journal = Journal.create(Path(folder), durability="process")
            (candidate,) = fleet(1)
            meter = Meter(journal, RequestIds().new(), call(stream=True), "t", "k", monotonic())
            meter.opened(1, candidate)
            given: list[Chunk] = []
            sink = meter.to(ListSink(given.extend))
            finish: Chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            if begins:  # the first read is passed on as a list, as attempts do
                sink.send([piece("role")])
            for chunk in [*map(piece, words), finish, *map(piece, late)]:
                if alone and isinstance(chunk, TextChunk):
                    sink.say(chunk)
                else:
                    sink.send([chunk])
            tap, held = meter.tap, list(meter.held)
            receipt = meter.settle(gone=False, failed=False, http_status=200, upstream_id="", error="")
            await journal.close()
            return tap.deltas, tap.finished, given, held, receipt.usage, receipt.source, receipt.ttft is None

    one, other = (asyncio.run(metered(alone=alone)) for alone in (True, False))
    assert one == other
    assert len(one[2]) == begins + len(words)


async def test_a_second_try_that_cannot_be_journalled_leaves_the_first_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hedge is refused when the journal takes no new attempts; the answer is that of the try under way."""
    journal = Journal.create(tmp_path, durability="process")
    append = Journal.append

    def full(book: Journal, record: Any) -> None:
        if type(record) is Open and record.attempt == 2:
            raise Unavailable("The gateway cannot meter requests at the moment.")
        append(book, record)

    monkeypatch.setattr(Journal, "append", full)
    first, second = fleet(2)
    loop = asyncio.get_running_loop()
    meter = Meter(journal, RequestIds().new(), call(stream=False), "t", "k", loop.time())
    meter.opened(1, first)
    with pytest.raises(Unavailable):
        meter.opened(2, second)
    meter.answered(WHOLE)
    receipt = meter.settle(gone=False, failed=False, http_status=200, upstream_id="chatcmpl-1", error="")
    await journal.close()
    [segment] = tmp_path.glob("*.weirj")
    ends = [record for record, _ in scan(segment.read_bytes()) if isinstance(record, Close)]
    assert [(end.attempt, end.dims.backend, end.usage) for end in ends] == [(1, first.replica.name, receipt.usage)]
    usage = WHOLE["usage"]
    assert isinstance(usage, dict)
    assert receipt.usage.completion == usage["completion_tokens"]
