"""The inference paths: which dialect reads them, who may use them, and what becomes of errors.

Both server roads call the same three steps: ``PATHS`` for the inlet of the path, ``authenticate`` when the headers
are in, ``serve`` when the body is. Every path here needs an inference key; there is no exception.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol, cast

from gateway.access.keys import REASONS
from gateway.access.principal import Principal
from gateway.desk import Desk
from gateway.edge import (
    anthropic_count,
    anthropic_form,
    anthropic_messages,
    embeddings,
    openai_chat,
    openai_completions,
    openai_responses,
    openai_responses_reply,
    rerank,
)
from gateway.edge.anthropic_reply import MessagesReply
from gateway.edge.attribution import Attribution
from gateway.edge.body import decode
from gateway.edge.controls import CONTROL_HEADERS, read_headers
from gateway.edge.exchange import Exchange, Patient
from gateway.edge.openai_reply import OpenAIReply, respond_error
from gateway.edge.openai_responses_shelf import Shelf
from gateway.edge.presets import Defaults
from gateway.edge.repetition import HEADERS, Keeping, Repetitions
from gateway.edge.reply import CallerReply, OpeningReply
from gateway.relay import relay
from gateway.step import STEP
from gateway.telemetry import logs
from gateway.types import ids
from gateway.types.call import Call
from gateway.types.errors import Internal, Unavailable, WeirError

SPOKEN: Final = CONTROL_HEADERS | HEADERS | {b"http-referer", b"referer", b"traceparent", b"tracestate"}
"""Headers that say something about a request; most callers send none of them."""
COMFORT_S: Final = 10.0
_TRACEPARENT: Final = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE: Final = re.compile(rb"[\x20-\x7e]{1,512}")
"""W3C Trace Context, §3.3.1.5: at least 512 characters are passed on."""


class Keys(Protocol):
    """What the edge needs of ``gateway.access.keys.KeyRing``."""

    def authenticate(self, authorization: bytes | None, now_us: int, *, x_api_key: bytes | None = None) -> Principal:
        """Return who holds the key. Raises ``WeirError`` when nobody does."""

    def still(self, principal: Principal, now_us: int) -> bool:
        """Return whether the text that ``principal`` was found by would find it again."""


@dataclass(frozen=True, slots=True)
class Inlet:
    """How requests on one path are read and answered.

    Attributes:
        read: takes the decoded body and ``openrouter``, returns the call. Raises ``BadRequest``.
        reply: makes the reply to a call.
        refuse: answers a request that ended in an error before there was a reply.
        openrouter: whether OpenRouter's form of answers and errors is wanted.
        kept: whether answers are kept for their callers: the shelf reads what may refer to one.
        run: what is done with a call that was read.
        comforts: whether callers of streams are told to wait while nothing has come; ``reply`` is an ``OpeningReply``.
    """

    read: Callable[..., Call]
    reply: Callable[[Exchange, Any], CallerReply]
    refuse: Callable[[Exchange, WeirError], None]
    openrouter: bool
    kept: bool = False
    run: Callable[..., Awaitable[None]] = relay
    comforts: bool = False


def _paths() -> Mapping[bytes, Inlet]:
    openai = {
        b"/chat/completions": openai_chat.read,
        b"/completions": openai_completions.read,
    }
    paths: dict[bytes, Inlet] = {}
    for prefix, openrouter in ((b"/v1", False), (b"/api/v1", True)):
        for path, read in openai.items():
            paths[prefix + path] = Inlet(read, OpenAIReply, respond_error, openrouter, comforts=openrouter)
        paths[prefix + b"/embeddings"] = Inlet(embeddings.read, embeddings.EmbeddingsReply, respond_error, openrouter)
        paths[prefix + b"/rerank"] = Inlet(rerank.read, rerank.RerankReply, respond_error, openrouter)
        paths[prefix + b"/responses"] = Inlet(
            openai_responses.read,
            openai_responses_reply.reply_to,
            openai_responses_reply.respond_error,
            openrouter,
            kept=True,
            comforts=True,
        )
        paths[prefix + b"/responses/input_tokens"] = Inlet(
            openai_responses.read,
            openai_responses_reply.InputTokensReply,
            openai_responses_reply.respond_error,
            openrouter,
            kept=True,
            run=anthropic_count.answer_count,
        )
        paths[prefix + b"/messages"] = Inlet(
            anthropic_messages.read, MessagesReply, anthropic_form.respond_error, openrouter, comforts=True
        )
        paths[prefix + b"/messages/count_tokens"] = Inlet(
            anthropic_messages.read_prompt,
            anthropic_count.CountReply,
            anthropic_form.respond_error,
            openrouter,
            run=anthropic_count.answer_count,
        )
    return paths


PATHS: Final[Mapping[bytes, Inlet]] = _paths()


class Inference:
    """Serves the inference paths of one process.

    Attributes:
        max_body: bytes of the largest request body.
        active: requests in flight and their tasks, for a graceful end.
        waiting: streams of which nothing may have come yet, with what would tell their callers.
        defaults: what teams have set beforehand.
        shelf: responses that are kept.
    """

    def __init__(
        self,
        desk: Desk,
        keys: Keys,
        clock_us: Callable[[], int],
        log: logs.RequestLog,
        attribution: Attribution,
        defaults: Defaults,
        repetitions: Repetitions,
        shelf: Shelf,
        *,
        max_body: int,
    ) -> None:
        self.defaults = defaults
        self.desk = desk
        self.log = log
        self.max_body = max_body
        self.active: dict[Exchange, asyncio.Task[None]] = {}
        self.waiting: dict[Patient, OpeningReply] = {}
        self.draining = False
        self._keys = keys
        self._clock_us = clock_us
        self._attribution = attribution
        self.repetitions = repetitions
        self.shelf = shelf
        self._request_ids = ids.RequestIds()

    def new_id(self) -> ids.RequestId:
        """Return the id for a request that has just arrived."""
        return self._request_ids.new()

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Return who asks. Raises ``Unauthorized``, ``Forbidden``, or ``Unavailable`` while draining."""
        if self.draining:
            raise Unavailable("the gateway is shutting down", retry_after=1.0)
        try:
            return self._keys.authenticate(
                headers.get(b"authorization"), self._clock_us(), x_api_key=headers.get(b"x-api-key")
            )
        except WeirError as error:
            self.desk.metrics.auth_failures.add((REASONS.get(error.message, "malformed"),))
            raise

    def still(self, principal: Principal) -> bool:
        """Return whether who was authenticated by some text before would be again by the same one."""
        return not self.draining and self._keys.still(principal, self._clock_us())

    def start(self, exchange: Exchange, inlet: Inlet, principal: Principal) -> None:
        """Serve an exchange in a task of its own."""
        STEP.came(exchange.arrived, others=bool(self.active))
        self.active[exchange] = self.desk.loop.create_task(self.serve(exchange, inlet, principal))

    async def serve(self, exchange: Exchange, inlet: Inlet, principal: Principal) -> None:
        """Answer one exchange; every error ends in an answer, never in a trace to the caller."""
        reply: CallerReply | None = None
        keeping: Keeping | None = None
        try:
            body = decode(exchange.body)
            if self.defaults.active:
                await self.defaults.apply(body, principal, exchange.path)
            if inlet.kept:
                call: Call = await self.shelf.read(body, principal, openrouter=inlet.openrouter)
            else:
                call = inlet.read(body, openrouter=inlet.openrouter)
            headers = exchange.headers
            spoken = not SPOKEN.isdisjoint(headers)
            if (spoken or self.repetitions.contents.on or self.defaults.active) and inlet.run is relay:
                keeping = await self.repetitions.begin(exchange, call, principal, inlet)
                if keeping is not None and keeping.answered:
                    return
            exchange.body = b""
            await STEP
            reply = inlet.reply(exchange, call) if keeping is None else keeping.reply(inlet, call)
            if spoken:
                self._heed(call, headers, principal)
            if inlet.comforts and call.stream:
                self.waiting[cast("Patient", exchange)] = cast("OpeningReply", reply)
            await inlet.run(call, principal, reply, self.desk)
            if keeping is not None:
                await keeping.settle()
        except WeirError as error:
            try:
                if keeping is not None:
                    await keeping.release()
            finally:  # also in a shutdown that does not wait for the keeper
                self._fail(exchange, inlet, reply, keeping, error)
        except asyncio.CancelledError:
            self._fail(exchange, inlet, reply, keeping, Unavailable("the gateway is shutting down", retry_after=1.0))
            raise
        except Exception as error:  # noqa: BLE001 - the last boundary: a defect becomes a 500 that names the request
            self.log.failed(exchange.request_id, error)
            known = Internal("internal error; quote the request id when you report it")
            count_refusal(self.desk, exchange, None, known)
            _render(exchange, inlet, reply, keeping, known)
        finally:
            self.active.pop(exchange, None)
            if self.waiting:
                self.waiting.pop(cast("Patient", exchange), None)
            if keeping is not None:
                keeping.end()

    async def comfort(self, every: float = COMFORT_S) -> None:
        """Tell callers that have waited ``every`` seconds for the first event that they are served. Until cancelled.

        What is between them and us closes connections on which nothing comes. From the first comment on the status is
        said, so an error is an event of the stream.
        """
        while True:
            await asyncio.sleep(every / 2)
            now = monotonic()
            for exchange, reply in tuple(self.waiting.items()):
                if now - exchange.arrived < every:
                    continue
                if exchange.silent and not exchange.gone:
                    reply.open()
                    exchange.comment(reply.comfort)
                else:
                    self.waiting.pop(exchange, None)

    def _heed(self, call: Call, headers: Mapping[bytes, bytes], principal: Principal) -> None:
        """Take what the headers say of a request: its trace, how it is to go, and the application that sends it."""
        _annotate(call, headers)
        read_headers(call, headers)
        referer = headers.get(b"http-referer") or headers.get(b"referer")
        if referer is not None:
            call.app = self._attribution.app(principal.key_id, referer, headers)

    def _fail(
        self, exchange: Exchange, inlet: Inlet, reply: CallerReply | None, keeping: Keeping | None, error: WeirError
    ) -> None:
        call = reply.call if reply is not None else None
        model = count_refusal(self.desk, exchange, call, error)
        self.log.failed(
            exchange.request_id, error, operation=call.operation.value if call is not None else "", model=model
        )
        _render(exchange, inlet, reply, keeping, error)


def _render(
    exchange: Exchange, inlet: Inlet, reply: CallerReply | None, keeping: Keeping | None, error: WeirError
) -> None:
    if keeping is not None:
        keeping.drop()  # or the error is taken for the end of an answer, which is held back until it is kept
    if reply is not None:
        reply.fail(error)
    else:
        inlet.refuse(exchange, error)


def _annotate(call: Call, headers: Mapping[bytes, bytes]) -> None:
    """Take what the headers say of the trace."""
    parent = headers.get(b"traceparent")
    if parent is not None and _TRACEPARENT.fullmatch(parent):
        call.traceparent = parent.decode("ascii")
        state = headers.get(b"tracestate")
        if state is not None and _TRACESTATE.fullmatch(state):
            call.tracestate = state.decode("ascii")


def count_refusal(desk: Desk, exchange: Exchange, call: Call | None, error: WeirError) -> str:
    """Count a request that ends in ``error`` and return its model; a name that is not ours is no label."""
    model = call.model if call is not None and desk.router.knows(call.model) else ""
    operation = call.operation.value if call is not None else "unread"
    since = monotonic() - exchange.arrived if exchange.arrived else 0.0
    desk.metrics.request(operation, model, error.kind, since)
    return model


def refuse(exchange: Exchange, inlet: Inlet, error: WeirError, inference: Inference) -> None:
    """Answer an exchange whose request was refused before its body was read."""
    count_refusal(inference.desk, exchange, None, error)
    inference.log.failed(exchange.request_id, error)
    inlet.refuse(exchange, error)
