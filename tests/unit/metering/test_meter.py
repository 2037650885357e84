"""The meter of one request, over a real journal; what each kind of end costs whom is tested with the whole gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.metering import WHOLE, call
from bench.routing import fleet
from gateway.metering.journal import Journal
from gateway.metering.meter import Meter
from gateway.metering.record import Close, Open, scan
from gateway.types.errors import Unavailable
from gateway.types.ids import RequestIds


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
    assert receipt.usage.completion == WHOLE["usage"]["completion_tokens"]
