"""Reading the stream of a response that is made in the background, from any process and behind any of its events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final

import msgspec

from gateway.edge.openai_responses_background import BEAT_S
from gateway.edge.openai_responses_reply import ResponsesReply
from gateway.types.background import READ, Piece
from gateway.types.method import Asking

COMFORT_S: Final = 10.0
"""Seconds of silence after which whoever follows a stream is told to wait."""
Last = Callable[[], Awaitable[Mapping[str, Any] | None]]
_KIND: Final = re.compile(rb"event: ([a-z_.]*)\n")
_ENDS: Final = frozenset({"completed", "failed", "incomplete"})
_SAID: Final = frozenset(b"response." + end.encode("ascii") for end in _ENDS)
_encode: Final = msgspec.json.Encoder().encode


async def follow(books: Asking, key_id: str, request_id: bytes, after: int, last: Last) -> AsyncIterator[bytes]:
    """Yield the events of a run's stream behind the number ``after``, those to come among them, to its end.

    A stream whose process has died ends with what the response says by then. Whoever waits is told to.

    Args:
        books: the keeper.
        key_id: public id of the inference key.
        request_id: the run.
        after: -1 for all.
        last: returns the response as it is.

    Raises:
        WeirError: the keeper is away.
    """
    known = await books.ask(READ, (key_id, request_id, after - 1)) if after >= 0 else None
    seen = known.pieces[0] if known is not None and known.pieces else None
    quiet = monotonic()
    while True:
        found = await books.ask(READ, (key_id, request_id, after))
        if found is None:
            return
        if found.pieces:
            seen = found.pieces[-1]
            after, quiet = seen[0], monotonic()
            yield b"".join(data for _, data in found.pieces)
        elif not found.running:
            break
        elif monotonic() - quiet >= COMFORT_S:
            quiet = monotonic()
            yield ResponsesReply.comfort
        else:
            await asyncio.sleep(BEAT_S)
    response = await last()
    if response is not None and response["status"] in _ENDS and (after < 0 or (seen is not None and not _ends(seen))):
        name = f"response.{response['status']}"
        event = {"type": name, "sequence_number": after + 1, "response": response}
        yield b"event: %s\ndata: %s\n\n" % (name.encode("ascii"), _encode(event))


def _ends(piece: Piece) -> bool:
    """Return whether an event is the last of a stream."""
    kind = _KIND.match(piece[1])
    return kind is not None and kind[1] in _SAID
