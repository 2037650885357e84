"""``Idempotency-Key``: the same answer again for whoever asks again.

The first request with a key takes a claim at the keeper, is answered as any other, and its response is recorded on the
way. What ends the response is held back until the record is kept: who saw the end of an answer gets the same one
again, byte for byte, whatever happened since. A recorded answer is finished even if its caller leaves, because the
caller that comes back wants it. Only whole answers (200) are kept: an error lets the claim go and costs nothing, so
the same key may be tried again at once.

While the first one runs, others with its key are told 409; another path or body under the same key is told 422. When
the keeper is away, a request with a key is refused (503): nobody could tell whether it was answered before. When it
goes away before the answer is kept, the answer is sent all the same and kept once the keeper is back.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.access.principal import Principal
from gateway.edge.clerk import Clerk
from gateway.edge.exchange import Exchange
from gateway.types import ids
from gateway.types.errors import BadRequest, Conflict, RateLimited, Unprocessable, WeirError
from gateway.types.ids import RequestId
from gateway.types.method import Asking
from gateway.types.repetition import CLAIM, KEEP, RELEASE, Claim, Kept, Standing
from gateway.types.reply import Flow

HEADER: Final = b"idempotency-key"
REPLAYED: Final = b"idempotent-replayed: true\r\n"
"""Marks a response that was given before."""
LONGEST: Final = 255
"""Characters of a key."""
PATIENCE_S: Final = 2.0
"""Seconds that the end of an answer waits to be kept, and an error for its claim to be let go."""
RETRY_S: Final = 1.0
MOST_CLAIMING: Final = 64
"""Claims of one inference key that wait for the keeper at once: they come before its limits are looked at."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Kept).decode


class Recording:
    """An exchange whose response is recorded; see ``gateway.edge.exchange.Exchange``.

    Attributes:
        request_id, path, headers, body, arrived: of the exchange behind it.
    """

    __slots__ = (
        "_claim",
        "_clerk",
        "_end",
        "_exchange",
        "_flow",
        "_head",
        "_limit",
        "_pieces",
        "_settled",
        "_size",
        "_streamed",
        "arrived",
        "body",
        "headers",
        "path",
        "request_id",
    )

    def __init__(self, exchange: Exchange, claim: tuple[str, bytes], clerk: Clerk, limit: int) -> None:
        self.request_id: RequestId = exchange.request_id
        self.path: bytes = exchange.path
        self.headers: Mapping[bytes, bytes] = exchange.headers
        self.body = b""  # it has been read
        self.arrived: float = exchange.arrived
        self._exchange = exchange
        self._claim = claim
        self._clerk = clerk
        self._limit = limit
        self._flow: Flow | None = None
        self._head = b""
        self._pieces: list[bytes] = []
        self._size = 0
        self._streamed = False
        self._end: bytes | None = None
        self._settled = False

    @property
    def gone(self) -> bool:
        """Whether the caller has left and nothing is recorded for its return."""
        return self._exchange.gone and not self._worth_it

    @property
    def begun(self) -> bool:
        """See ``Exchange``."""
        return self._exchange.begun

    @property
    def _worth_it(self) -> bool:
        """Whether what is recorded can still be kept."""
        return not self._settled and self._size <= self._limit

    # Exchange

    def steer(self, flow: Flow) -> None:
        """See ``Exchange``."""
        self._flow = flow
        self._exchange.steer(self)

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """See ``Exchange``. A whole answer waits for ``keep``."""
        if status != 200 or self._settled:
            self._exchange.respond(status, headers, body)
            return
        self._head = headers
        self._record(body)
        self._end = body

    def open(self, headers: bytes) -> None:
        """See ``Exchange``."""
        self._head, self._streamed = headers, True
        self._exchange.open(headers)

    def write(self, data: bytes) -> None:
        """See ``Exchange``."""
        self._record(data)
        self._exchange.write(data)

    def framed(self) -> None:
        """See ``Exchange``: all that is sent is recorded."""

    def close(self, data: bytes) -> None:
        """See ``Exchange``. The end of an answer waits for ``keep``."""
        if self._settled:
            self._exchange.close(data)
            return
        self._record(data)
        self._end = data

    # Flow: what the caller's connection steers

    def abort(self) -> None:
        """The caller left: go on for its return, unless nothing can be kept."""
        if self._flow is None:
            return
        if self._worth_it:
            self._flow.resume()
        else:
            self._flow.abort()

    def pause(self) -> None:
        """The caller does not read."""
        if self._flow is not None and not self._exchange.gone:
            self._flow.pause()

    def resume(self) -> None:
        """The caller reads again."""
        if self._flow is not None:
            self._flow.resume()

    # The record

    async def keep(self) -> None:
        """Keep the answer, then send what ends it; without an answer let the claim go. Done once."""
        if self._settled:
            return
        if self._end is None:
            await self.release()
            return
        content: bytes | None = None
        if self._size <= self._limit:
            content = _encode(Kept(200, self._head, b"".join(self._pieces), self._streamed))
        mine = (*self._claim, self.request_id)
        self._pieces.clear()
        try:
            # A claim that nobody ended would be told to wait for as long as this process lives.
            task = self._clerk.post(KEEP, (*mine, content), len(content or b""), at_last=(*mine, None))
            if task is not None:
                await asyncio.wait((task,), timeout=PATIENCE_S)
        finally:
            self._settled = True
            self._send_end(self._end)

    async def release(self) -> None:
        """Let the claim go; what comes now is sent and not recorded."""
        task = self.drop()
        if task is not None:
            await asyncio.wait((task,), timeout=PATIENCE_S)

    def drop(self) -> asyncio.Task[object] | None:
        """As ``release``, without waiting for it; return the task, if there is something to let go."""
        if self._settled:
            return None
        self._settled = True
        self._pieces.clear()
        mine = (*self._claim, self.request_id)
        return self._clerk.post(RELEASE, mine, at_last=mine)

    def _record(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._pieces.append(data)
        elif self._pieces:
            self._pieces.clear()
            if self._exchange.gone and self._flow is not None:
                self._flow.abort()

    def _send_end(self, data: bytes) -> None:
        if self._streamed:
            self._exchange.close(data)
        else:
            self._exchange.respond(200, self._head, data)


class Idempotency:
    """Claims of one process.

    Args:
        books: the keeper.
        clerk: hands over what is kept.
        writer: the journal of this process, by which the keeper sees whether it lives.
    """

    def __init__(self, books: Asking, clerk: Clerk, writer: str) -> None:
        self._books = books
        self._clerk = clerk
        self._writer = writer
        self._claiming: Counter[str] = Counter()

    async def begin(self, exchange: Exchange, principal: Principal, limit: int) -> Recording | Kept:
        """Return an exchange to answer in place of ``exchange``, or the answer that was given before.

        Args:
            exchange: with the header and its body.
            principal: who asks.
            limit: bytes of the largest answer that is kept.

        Raises:
            BadRequest: the key cannot be used.
            Conflict: the request is being answered.
            RateLimited: too much is kept for the inference key, or too many of its claims wait for the keeper.
            Unprocessable: the key belongs to another request, or its answer was too large to be kept.
            Unavailable: the keeper cannot say.
        """
        name = _name(exchange.headers[HEADER])
        fingerprint = hashlib.sha256(exchange.path + b"\0" + exchange.body).digest()
        asked = (principal.key_id, name, fingerprint, exchange.request_id, self._writer)
        claim = await self._claim(principal.key_id, asked)
        if claim.standing is Standing.TAKEN:
            return Recording(exchange, (principal.key_id, name), self._clerk, limit)
        if claim.standing is Standing.ANSWERED:
            return _decode(claim.content)
        raise _refusal(claim)

    async def _claim(self, key_id: str, asked: tuple[str, bytes, bytes, bytes, str]) -> Claim:
        """Claim, unless so many of the inference key's claims wait that others would wait for them, too."""
        if self._claiming[key_id] >= MOST_CLAIMING:
            raise RateLimited("too many requests with an Idempotency-Key at once", retry_after=RETRY_S)
        self._claiming[key_id] += 1
        try:
            return await self._books.ask(CLAIM, asked)
        finally:
            self._claiming[key_id] -= 1
            if not self._claiming[key_id]:
                del self._claiming[key_id]


def replay(kept: Kept, exchange: Exchange) -> None:
    """Give an answer again."""
    if not kept.streamed:
        exchange.respond(kept.status, kept.headers + REPLAYED, kept.body)
        return
    exchange.open(kept.headers + REPLAYED)
    exchange.close(kept.body)


def _name(value: bytes) -> bytes:
    """Return the digest of a key. Raises ``BadRequest``."""
    if not 0 < len(value) <= LONGEST or not all(0x20 < byte < 0x7F for byte in value):
        raise BadRequest(
            f"the header Idempotency-Key is 1 to {LONGEST} visible ASCII characters without spaces",
            param="Idempotency-Key",
        )
    return hashlib.sha256(value).digest()


def _refusal(claim: Claim) -> WeirError:
    param = "Idempotency-Key"
    if claim.standing is Standing.RUNNING:
        message = "a request with this Idempotency-Key is being answered; ask again for its answer"
        return Conflict(message, param=param, retry_after=RETRY_S)
    if claim.standing is Standing.OTHER:
        message = "this Idempotency-Key belongs to another request: same path and same bytes, or another key"
        return Unprocessable(message, param=param)
    if claim.standing is Standing.UNKEPT:
        message = "the answer to this Idempotency-Key was too large to be kept; use another key to ask once more"
        return Unprocessable(message, param=param, metadata={"generation_id": ids.text(claim.request_id)})
    message = "too many answers are kept for this key; leave Idempotency-Key out, or wait until the oldest have expired"
    return RateLimited(message, param=param, retry_after=claim.wait_s)
