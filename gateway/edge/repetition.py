"""What is kept of answers, and answers that are given again: the one place where ``Inference`` meets all of it.

A request that asks for none of it, of a team that has nothing stored, does not come here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from gateway.access.principal import Principal
from gateway.config.snapshot import ConfigSnapshot
from gateway.edge import idempotency, response_cache
from gateway.edge.clerk import Clerk
from gateway.edge.content import Contents, Draft
from gateway.edge.exchange import Exchange
from gateway.edge.idempotency import Idempotency, Recording
from gateway.edge.reply import CallerReply
from gateway.edge.response_cache import Marked, ResponseCache, Slot
from gateway.edge.witness import Witness
from gateway.telemetry.instruments import Counter
from gateway.types.call import Call
from gateway.types.errors import Unavailable, WeirError
from gateway.types.repetition import Kept

HEADERS: Final = frozenset({idempotency.HEADER, response_cache.HEADER})
"""Headers that ask for an answer to be kept."""


class Outlet(Protocol):
    """How a path is answered."""

    @property
    def reply(self) -> Callable[[Exchange, Call], CallerReply]:
        """Makes the reply to a call."""


class Keeping:
    """What is kept of one answer.

    Attributes:
        exchange: what is to be answered.
        answered: whether it was answered from what was kept.
    """

    __slots__ = ("_cache", "_contents", "_draft", "_limit", "_recording", "_slot", "_witness", "answered", "exchange")

    def __init__(
        self, exchange: Exchange, limit: int, cache: ResponseCache, contents: Contents, draft: Draft | None
    ) -> None:
        self.exchange = exchange
        self.answered = False
        self._limit = limit
        self._cache = cache
        self._contents = contents
        self._draft = draft
        self._recording: Recording | None = None
        self._slot: Slot | None = None
        self._witness: Witness | None = None

    def record(self, recording: Recording) -> None:
        """Answer through ``recording``."""
        self.exchange = self._recording = recording

    def fill(self, slot: Slot) -> None:
        """Keep the answer in ``slot`` of the cache."""
        self._slot = slot
        self.exchange = Marked(self.exchange, slot.lines)

    def reply(self, outlet: Outlet, call: Call) -> CallerReply:
        """Return the reply to ``call``."""
        reply = outlet.reply(self.exchange, call)
        if self._slot is None and self._draft is None:
            return reply
        self._witness = Witness(reply, self._limit)
        return self._witness

    async def settle(self) -> None:
        """The request was answered, or its caller left: keep what is to be kept, then send what waited for that."""
        if self._recording is not None:
            await self._recording.keep()

    async def release(self) -> None:
        """The request ends in an error that will be told: whoever asks again is to be answered anew."""
        if self._recording is not None:
            await self._recording.release()

    def drop(self) -> None:
        """As ``release``, at once."""
        if self._recording is not None:
            self._recording.drop()

    def end(self) -> None:
        """The request is over, in whatever way: store what was asked and answered."""
        self.drop()
        witness = self._witness
        if witness is None:
            return
        if self._slot is not None and witness.error is None:
            self._cache.keep(self._slot, witness)
        if self._draft is not None:
            self._contents.store(self._draft, witness)
        self._witness = None


class Repetitions:
    """What is kept of answers in one process.

    Args:
        idempotency: claims of idempotency keys.
        cache: the response cache.
        contents: prompts and answers that teams want stored.
        clerk: hands over what is kept.
        config: returns the configuration of now.
        outcomes: counts requests that came here, by what became of them.
    """

    def __init__(
        self,
        idempotency: Idempotency,
        cache: ResponseCache,
        contents: Contents,
        clerk: Clerk,
        config: Callable[[], ConfigSnapshot],
        outcomes: Counter,
    ) -> None:
        self.contents = contents
        self.clerk = clerk
        self._idempotency = idempotency
        self._cache = cache
        self._config = config
        self._outcomes = outcomes

    async def begin(self, exchange: Exchange, call: Call, principal: Principal, outlet: Outlet) -> Keeping | None:
        """Return what is to be kept of an answer, None when nothing is.

        Raises:
            WeirError: the request is not answered; see ``Idempotency.begin`` and ``response_cache.slot_of``.
        """
        headers = exchange.headers
        draft = self.contents.draft(call, principal) if self.contents.on else None
        spec = self._config().repetition
        slot = response_cache.slot_of(exchange, call, principal) if spec.cache else None
        if draft is None and slot is None and idempotency.HEADER not in headers:
            return None
        anew = slot is not None and response_cache.clears(headers)
        keeping = Keeping(exchange, spec.largest, self._cache, self.contents, draft)
        if idempotency.HEADER in headers and await self._claimed(keeping, exchange, principal, spec.largest):
            return keeping
        if slot is not None:
            try:
                await self._look(keeping, slot, anew, call, principal, outlet)
            except BaseException:
                keeping.drop()
                raise
        return keeping

    async def _claimed(self, keeping: Keeping, exchange: Exchange, principal: Principal, limit: int) -> bool:
        """Take the claim of an idempotency key; return whether the request was answered before, and is now again."""
        try:
            claimed = await self._idempotency.begin(exchange, principal, limit)
        except WeirError as error:
            self._outcomes.add((f"refused_{error.code}",))
            raise
        if isinstance(claimed, Kept):
            idempotency.replay(claimed, exchange)
            keeping.answered = True
            self._outcomes.add(("replayed",))
            return True
        keeping.record(claimed)
        self._outcomes.add(("recorded",))
        return False

    async def _look(
        self, keeping: Keeping, slot: Slot, anew: bool, call: Call, principal: Principal, outlet: Outlet
    ) -> None:
        """Answer from the cache, or have the answer kept there."""
        found = await self._cache.find(slot, anew=anew)
        if found is None:
            keeping.fill(slot)
            self._outcomes.add(("cache_miss",))
            return
        reply = outlet.reply(Marked(keeping.exchange, response_cache.hit_lines(found)), call)
        try:
            await self._cache.give(found, reply, principal)
        except asyncio.CancelledError:
            keeping.drop()
            reply.fail(Unavailable("the gateway is shutting down", retry_after=1.0))  # only it knows what was said
            raise
        keeping.answered = True
        self._outcomes.add(("cache_hit",))
        await keeping.settle()
