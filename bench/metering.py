"""What metering costs an answer: ``python -m bench.metering [--answers N] [--json]``.

The meter, the tap and the journal as they are, without the rest of the gateway: answers go through them, and the same
answers through the same loop without them; the difference is what metering adds. CPU is all of the process, with the
thread that syncs, the best of several rounds in which both kinds take turns, so that other load on the machine counts
as little as possible; garbage is collected as in a worker. ``disk`` waits for ``fdatasync`` before an answer ends,
``process`` does not.

* *whole*: a JSON answer of 0.8 kB; *stream*: 50 chunks and usage. 64 answers at once.
* *end*: what one caller alone waits longer for the end of its answer (median).
* *first*: what the first chunk takes through the meter; it leaves in that very call.

Exit status 1 when a bar is missed: 35 µs of CPU an answer (``process``: 15), 1 ms to its end, nothing to the first
chunk, for which 20 µs count as nothing. A stream costs more, for each chunk that is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, process_time
from typing import Any, Final

import msgspec
import uvloop

from bench.routing import fleet
from gateway.metering.journal import Durability, Journal
from gateway.metering.meter import Meter
from gateway.types import garbage
from gateway.types.call import Call, Need, Operation
from gateway.types.chunk import Chunk, ListSink, Passed, TextChunk
from gateway.types.ids import RequestId, RequestIds

AT_ONCE: Final = 64
ROUNDS: Final = 21
CHUNKS: Final = 50
CPU_BARS_US: Final = {"disk": 35.0, "process": 15.0}
DURABILITIES: Final[tuple[Durability, ...]] = ("disk", "process")
END_BAR_MS: Final = 1.0
FIRST_BAR_US: Final = 20.0
_USAGE: Final = {"prompt_tokens": 120, "completion_tokens": CHUNKS, "total_tokens": 120 + CHUNKS}
_IDS: Final = RequestIds()
_CANDIDATE: Final = fleet(1)[0]

Answer = Callable[[], Awaitable[None]]


def text_chunk(text: str) -> TextChunk:
    """Return a chunk as engines send most of them."""
    raw = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
    return msgspec.json.decode(json.dumps(raw), type=TextChunk)


def last_chunks() -> list[Chunk]:
    """Return the chunk that finishes an answer, and the one with its usage."""
    frame: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    finish = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [frame | {"choices": [finish]}, frame | {"choices": [], "usage": _USAGE}]


TEXTS: Final = [text_chunk(f"word{number} ") for number in range(CHUNKS)]
LAST: Final = last_chunks()
WHOLE: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 600}, "finish_reason": "stop"}],
    "usage": _USAGE,
}


def call(*, stream: bool) -> Call:
    """Return a plain chat request."""
    return Call(Operation.CHAT, {}, "m", stream, True, 1, None, 480, 120, Need.NONE, False)


def meter_of(journal: Journal, asked: Call, request_id: RequestId) -> Meter:
    """Return the meter of a request that has just been sent to a backend."""
    meter = Meter(journal, request_id, asked, "bench", "bench001", monotonic())
    meter.opened(1, _CANDIDATE)
    return meter


class Caller:
    """Whom an answer is sent to; has what came last."""

    def __init__(self) -> None:
        self.given: list[Chunk] = []

    def send(self, chunks: list[Chunk]) -> None:
        """See ``Sink``."""
        self.given[:] = chunks

    def say(self, chunk: TextChunk) -> None:
        """See ``Sink``."""
        self.given[:] = (chunk,)

    def direct(self, probe: TextChunk) -> None:
        """See ``Sink``."""

    def passed(self, run: Passed) -> None:
        """See ``Sink``."""


def settle(meter: Meter) -> None:
    """Settle an answer that ended well."""
    meter.settle(False, False, 200, "chatcmpl-1", "")


def answers(journal: Journal | None, *, stream: bool) -> Answer:
    """Return what gives one answer, metered into ``journal`` or not at all."""
    asked, caller = call(stream=stream), Caller()

    async def one() -> None:
        request_id = _IDS.new()  # the edge makes one whether it is metered or not
        meter = meter_of(journal, asked, request_id) if journal is not None else None
        await asyncio.sleep(0)  # the backend
        if stream:
            sink = meter.to(caller) if meter is not None else caller
            for chunk in TEXTS:
                sink.say(chunk)
            sink.send(list(LAST))
        elif meter is not None:
            meter.answered(WHOLE)
        if meter is not None and journal is not None:
            settle(meter)
            await journal.commit()

    return one


async def cpu_us(one: Answer, count: int) -> float:
    """Return the CPU microseconds of one of ``count`` answers, ``AT_ONCE`` at a time."""

    async def caller() -> None:
        for _ in range(count // AT_ONCE):
            await one()

    began = process_time()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return (process_time() - began) / (count // AT_ONCE * AT_ONCE) * 1e6


async def end_ms(journal: Journal, count: int) -> float:
    """Return the milliseconds from the end of a lone answer to where its caller may see it; the median."""
    asked, waited = call(stream=False), list[float]()
    for _ in range(count):
        meter = meter_of(journal, asked, _IDS.new())
        meter.answered(WHOLE)
        began = perf_counter()
        settle(meter)
        await journal.commit()
        waited.append(perf_counter() - began)
    return median(waited) * 1e3


def first_us(journal: Journal, count: int) -> float:
    """Return the microseconds in which a first chunk is through; the median. It must have left by then."""
    asked, took, given = call(stream=True), list[float](), list[Chunk]()
    for _ in range(count):
        meter = meter_of(journal, asked, _IDS.new())
        sink = meter.to(ListSink(given.extend))
        given.clear()
        began = perf_counter()
        sink.say(TEXTS[0])
        took.append(perf_counter() - began)
        if len(given) != 1:
            raise RuntimeError("the first chunk was held back")
        settle(meter)
    return median(took) * 1e6


async def measure(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Return the figures by durability."""
    garbage.settle()
    plain = {stream: answers(None, stream=stream) for stream in (False, True)}
    found: dict[str, dict[str, float]] = {}
    for durability in DURABILITIES:
        journal = Journal.create(folder / durability, durability=durability)
        metered = {stream: answers(journal, stream=stream) for stream in plain}
        figures: dict[str, float] = {}
        for stream, name in ((False, "whole_us"), (True, "stream_us")):
            size = count // 8 if stream else count
            rounds = [(await cpu_us(plain[stream], size), await cpu_us(metered[stream], size)) for _ in range(ROUNDS)]
            figures[name] = round(min(each[1] for each in rounds) - min(each[0] for each in rounds), 1)
        figures["end_ms"] = round(await end_ms(journal, 300), 3)
        figures["first_us"] = round(first_us(journal, 300), 1)
        await journal.close()
        found[durability] = figures
    return found


def missed(found: dict[str, dict[str, float]]) -> list[str]:
    """Return the bars that were missed."""
    sentences = []
    for durability, figures in found.items():
        bars = {"whole_us": CPU_BARS_US[durability], "end_ms": END_BAR_MS, "first_us": FIRST_BAR_US}
        sentences += [
            f"{durability}: {name} is {figures[name]}, allowed {bar}"
            for name, bar in bars.items()
            if figures[name] > bar
        ]
    return sentences


def main() -> int:
    """Run and print; return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=2_560, help="whole answers in a round")
    parser.add_argument("--folder", type=Path, help="where the journal is to be: a disk tells more than memory")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="weir-metering-", dir=chosen.folder) as name:
        found = uvloop.run(measure(Path(name), chosen.answers))
    wrong = missed(found)
    if chosen.json:
        print(json.dumps(found | {"missed": wrong}))
    else:
        for durability, figures in found.items():
            print(f"{durability:8}" + "".join(f"  {each} {value:8.2f}" for each, value in figures.items()))
        print(*(f"missed: {what}" for what in wrong), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
