"""The response cache that callers ask for by OpenRouter's headers: the very same request gets the same answer, free.

``X-OpenRouter-Cache: true`` asks for it, ``X-OpenRouter-Cache-TTL`` says for how many seconds an answer made now may be
given again, ``X-OpenRouter-Cache-Clear: true`` has the kept one forgotten and made anew. Same means: the same inference
key, path, bytes of the body, and control headers that shape an answer. An answer given again has an id of its own, no
tokens and no cost, and says by its headers what it is. Requests that ask for zero data retention are never cached.

Failure behaviour: without the keeper nothing is found and nothing kept; the request is answered as any other. Requests
that run at the same time are each answered on their own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, cast

import msgspec

from gateway.access.principal import Principal
from gateway.edge.clerk import Clerk
from gateway.edge.controls import CONTROL_HEADERS
from gateway.edge.exchange import Exchange
from gateway.edge.reply import CallerReply
from gateway.edge.witness import Seen, Witness
from gateway.types import ids
from gateway.types.call import Call
from gateway.types.errors import BadRequest, WeirError
from gateway.types.ids import RequestId
from gateway.types.method import Asking
from gateway.types.repetition import CACHE, CACHED, CLEAR, HITS, CachedAnswer, CacheHit
from gateway.types.reply import Bill, Flow
from gateway.types.tokens import NO_USAGE

HEADER: Final = b"x-openrouter-cache"
TTL: Final = b"x-openrouter-cache-ttl"
CLEARS: Final = b"x-openrouter-cache-clear"
USUAL_TTL_S: Final = 300
LONGEST_TTL_S: Final = 86_400
BATCH: Final = 256
"""Chunks of a stream that are sent in one step of the event loop."""
FREE: Final = Bill(NO_USAGE, 0, 0, 0)
_SHAPING: Final = tuple(sorted(CONTROL_HEADERS - {b"x-session-id"}))
_BOOLEANS: Final = {b"true": True, b"1": True, b"false": False, b"0": False}

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Seen).decode


class Marked:
    """An exchange whose answer carries more header lines; see ``gateway.edge.exchange.Exchange``."""

    __slots__ = ("_exchange", "_lines", "arrived", "body", "headers", "path", "request_id")

    def __init__(self, exchange: Exchange, lines: bytes) -> None:
        self.request_id: RequestId = exchange.request_id
        self.path: bytes = exchange.path
        self.headers: Mapping[bytes, bytes] = exchange.headers
        self.body = b""  # it has been read
        self.arrived: float = exchange.arrived
        self._exchange = exchange
        self._lines = lines

    @property
    def gone(self) -> bool:
        """See ``Exchange``."""
        return self._exchange.gone

    @property
    def begun(self) -> bool:
        """See ``Exchange``."""
        return self._exchange.begun

    def steer(self, flow: Flow) -> None:
        """See ``Exchange``."""
        self._exchange.steer(flow)

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """See ``Exchange``. An error was not cached and says nothing of it."""
        self._exchange.respond(status, headers + self._lines if status == 200 else headers, body)

    def open(self, headers: bytes) -> None:
        """See ``Exchange``."""
        self._exchange.open(headers + self._lines)

    def write(self, data: bytes) -> None:
        """See ``Exchange``."""
        self._exchange.write(data)

    def framed(self) -> Callable[[bytes], None] | None:
        """See ``Exchange``."""
        return self._exchange.framed()

    def close(self, data: bytes) -> None:
        """See ``Exchange``."""
        self._exchange.close(data)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the cache.

    Attributes:
        key_id: of the inference key.
        digest: of the request.
        ttl_s: seconds for which an answer made now may be given again.
    """

    key_id: str
    digest: bytes
    ttl_s: int

    @property
    def lines(self) -> bytes:
        """Header lines of an answer that was not there."""
        return b"x-openrouter-cache-status: MISS\r\nx-openrouter-cache-ttl: %d\r\n" % self.ttl_s


class Pace:
    """The flow of an answer that is given again: it waits for a caller that does not read."""

    __slots__ = ("_goes",)

    def __init__(self) -> None:
        self._goes = asyncio.Event()
        self._goes.set()

    def abort(self) -> None:
        """See ``Flow``: whoever waits finds the caller gone."""
        self._goes.set()

    def pause(self) -> None:
        """See ``Flow``."""
        self._goes.clear()

    def resume(self) -> None:
        """See ``Flow``."""
        self._goes.set()

    async def turn(self) -> None:
        """Let others have their turn, and wait until the caller reads."""
        await asyncio.sleep(0)
        await self._goes.wait()


class ResponseCache:
    """The cache as seen by one process.

    Args:
        books: the keeper.
        clerk: hands over what is kept.
    """

    def __init__(self, books: Asking, clerk: Clerk) -> None:
        self._books = books
        self._clerk = clerk

    async def find(self, slot: Slot, *, anew: bool) -> CachedAnswer | None:
        """Return what is in ``slot``; with ``anew`` it is forgotten. Without a keeper nothing is there."""
        try:
            if anew:
                await self._books.ask(CLEAR, (slot.key_id, slot.digest))
                return None
            return await self._books.ask(CACHED, (slot.key_id, slot.digest))
        except WeirError:
            return None

    async def give(self, found: CachedAnswer, reply: CallerReply, principal: Principal) -> None:
        """Answer with what was found, and have the hit written down."""
        seen = _decode(found.content)
        if seen.streamed:
            pace = Pace()
            reply.steer(pace)
            reply.begin(seen.model, seen.provider)
            chunks, first = seen.chunks(), len(seen.parts) % BATCH
            for _ in range((len(seen.parts) - 1) // BATCH):
                reply.send(list(islice(chunks, first or BATCH)))
                first = 0
                await pace.turn()
                if reply.gone:
                    break
            else:
                reply.finish(list(chunks), FREE)
        else:
            (answer,) = seen.chunks()
            reply.answer(cast("dict[str, Any]", answer), seen.model, seen.provider, FREE)
        who = (principal.key_id, principal.team, seen.model, seen.provider)
        self._clerk.collect(HITS, CacheHit(reply.request_id, found.source, *who))

    def keep(self, slot: Slot, witness: Witness) -> bool:
        """Keep the answer that was given, if it was given whole; return whether it was."""
        if not witness.whole or witness.over:
            return False
        content = _encode(witness.seen)
        self._clerk.post(CACHE, (slot.key_id, slot.digest, witness.request_id, slot.ttl_s, content), len(content))
        return True


def slot_of(exchange: Exchange, call: Call, principal: Principal) -> Slot | None:
    """Return where the answer of a request belongs, or None when neither its caller nor a preset wants it kept.

    What a preset says (``cache_enabled``, ``cache_ttl_seconds``) stands in the body by now; headers go first.

    Raises:
        BadRequest: a header cannot be understood.
    """
    headers, body = exchange.headers, call.native or call.body
    preset, lasting = body.pop("cache_enabled", None), body.pop("cache_ttl_seconds", None)
    wanted = _boolean(headers, HEADER) if HEADER in headers else preset is True
    if not wanted or call.detached or (call.preferences is not None and call.preferences.zdr):
        return None
    if principal.rule is not None and principal.rule.keeps_nothing:
        return None
    said = headers.get(TTL, str(lasting).encode() if lasting is not None else None)
    digest = hashlib.sha256(exchange.path)
    for name in _SHAPING:
        if name in headers:
            digest.update(b"\0%s:%s" % (name, headers[name]))
    digest.update(b"\0\0")
    digest.update(exchange.body)
    # What the key's models, guardrails and presets make of it: an answer of before they changed is none to the same
    # body now.
    models = sorted(principal.models) if principal.models is not None else None
    digest.update(repr((principal.rule, models)).encode() + msgspec.json.encode(call.body))
    return Slot(principal.key_id, digest.digest(), _ttl(said))


def clears(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the answer is to be made anew. Raises ``BadRequest``."""
    return _boolean(headers, CLEARS)


def hit_lines(found: CachedAnswer) -> bytes:
    """Return the header lines of an answer that was there."""
    return (
        b"x-openrouter-cache-status: HIT\r\nx-openrouter-cache-age: %d\r\nx-openrouter-cache-ttl: %d\r\n"
        b"x-openrouter-cache-source-id: %s\r\n"
        % (int(found.age_s), found.ttl_s, ids.text(found.source).encode("ascii"))
    )


def _boolean(headers: Mapping[bytes, bytes], name: bytes) -> bool:
    value = headers.get(name)
    if value is None:
        return False
    known = _BOOLEANS.get(value.strip().lower())
    if known is None:
        shown = name.decode("ascii")
        raise BadRequest(f"the header {shown} is true or false", param=shown)
    return known


def _ttl(value: bytes | None) -> int:
    if value is None:
        return USUAL_TTL_S
    text = value.strip()
    if not text.isdigit() or len(text) > 6 or not 1 <= int(text) <= LONGEST_TTL_S:
        shown = TTL.decode("ascii")
        raise BadRequest(f"the header {shown} is a number of seconds from 1 to {LONGEST_TTL_S}", param=shown)
    return int(text)
