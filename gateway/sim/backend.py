"""One simulated backend without its sockets: routes, generation requests, and control at run time.

Every request gets exactly one answer, or the fault it was made for. Control lives under ``/sim/``: ``GET``, ``POST``
and ``DELETE /sim/faults``, ``GET`` and ``DELETE /sim/books``; it needs no key, and no fault but a refused connection
stops it.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from urllib.parse import parse_qs
from zlib import crc32

import msgspec

from gateway.sim import faults as faulty
from gateway.sim import responses
from gateway.sim.answers import Answer
from gateway.sim.books import BookEntry, Books
from gateway.sim.config import SimConfig
from gateway.sim.connection import Connection
from gateway.sim.engine import Engine
from gateway.sim.exchange import Call, WholeExchange
from gateway.sim.faces import face_of
from gateway.sim.faces.face import Document
from gateway.sim.faults import Faults, Strikes
from gateway.sim.messages_stream import MessagesStream
from gateway.sim.requests import BadRequest
from gateway.sim.responses_stream import ResponsesStream
from gateway.sim.stepped import SteppedEngine
from gateway.sim.streaming import StreamExchange
from gateway.sim.vectors import embeddings
from gateway.sim.wire import Reply, Request
from gateway.sim.work import Work, Works
from gateway.stepmodel import PROFILES

_STREAMED = "text/event-stream; charset=utf-8"


class Backend:
    """Engine, face, books and faults of one backend.

    ``frozen_metrics`` in the faults freezes ``/metrics`` as it was when the fault was armed.
    """

    def __init__(self, config: SimConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.books = Books(config.books_limit)
        self.faults = Faults(config.faults, seed=config.seed)
        self.engine = _engine(config, loop)
        self.face = face_of(config, self.engine)
        self._routes = dict(self.face.routes())
        self._paths = {path for _, path in self._routes}
        self._frozen: bytes | None = None
        self._serial = 0
        self._serial_base = f"{crc32(config.name.encode(), config.seed):08x}"
        self._works = Works(
            config,
            embeddings=self.face.has_embeddings,
            messages=self.face.speaks_messages,
            responses=self.face.speaks_responses,
        )
        self.freeze()

    def freeze(self) -> None:
        """Keep ``/metrics`` as it is while the faults say so."""
        if self.faults.active("frozen_metrics") is None:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = self.face.metrics()

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer ``request``, now or over time."""
        if request.method == "POST" and request.path in self._works.paths:
            self._generate(connection, request)
        else:
            connection.answer(self._reply(request), keep_alive=request.keep_alive)

    def control(self, connection: Connection, request: Request) -> None:
        """Answer ``request`` on the port that serves only ``/sim/``."""
        reply = self._control(request) if request.path.startswith("/sim/") else self.face.missing(wrong_method=False)
        connection.answer(reply, keep_alive=request.keep_alive)

    # Everything but generation.

    def _reply(self, request: Request) -> Reply:
        face, path = self.face, request.path
        if path.startswith("/sim/"):
            return self._control(request)
        if path.startswith("/v1/") and not self._let_in(request):
            return face.unauthorized()
        if path in face.health_paths and self.faults.take("unhealthy") is not None:
            return face.unhealthy()
        if path == "/metrics" and request.method == "GET":
            return self._metrics()
        route = self._routes.get((request.method, path))
        if route is None:
            return face.missing(wrong_method=path in self._paths or path in self._works.paths)
        return route(request)

    def _metrics(self) -> Reply:
        frozen = self._frozen
        page = self.face.metrics() if self.faults.take("frozen_metrics") is None else frozen
        if page is None:
            return self.face.missing(wrong_method=False)
        return Reply(200, page, "text/plain; version=0.0.4; charset=utf-8")

    def _control(self, request: Request) -> Reply:
        match request.method, request.path:
            case "GET", "/sim/faults":
                return self.face.json({"faults": self.faults.listing()})
            case "POST", "/sim/faults":
                try:
                    self.faults.arm(*faulty.parse(request.body))
                except ValueError as error:
                    return self.face.json({"error": str(error)}, 400)
                return self.face.json({"faults": self.faults.listing()})
            case "DELETE", "/sim/faults":
                self.faults.clear(next(iter(parse_qs(request.query).get("kind", [])), None))
                return self.face.json({"faults": self.faults.listing()})
            case "GET", "/sim/books":
                return self.face.json(self._books_document())
            case "DELETE", "/sim/books":
                self.books.clear()
                return Reply(204, b"", "")
            case _:
                return self.face.missing(wrong_method=request.path in {"/sim/faults", "/sim/books"})

    def _books_document(self) -> Document:
        return {
            "name": self.config.name,
            "running": len(self.engine.running),
            "waiting": len(self.engine.waiting),
            "totals": self.books.totals,
            "requests": [entry.document() for entry in self.books],
        }

    def _let_in(self, request: Request) -> bool:
        key = self.config.api_key
        if key is None:
            return True
        return hmac.compare_digest(self.face.presented(request).encode("latin-1"), key.encode())

    # Generation.

    def _generate(self, connection: Connection, request: Request) -> None:
        entry = BookEntry(request.path, request.body, request.headers)
        self.books.open(entry)
        strikes = self.faults.draw()
        if strikes:
            entry.faults = tuple(strikes)
            if "reset" in strikes:
                self.books.close(entry, "broken")
                connection.reset()
                return
        reply = self._stopped_at_the_door(request, strikes)
        if reply is None:
            try:
                reply = self._admit(connection, request, entry, strikes)
            except BadRequest as error:
                reply = self.face.bad_request(error.message, error.param)
        if reply is not None:
            self._refuse(connection, request, entry, reply)

    def _stopped_at_the_door(self, request: Request, strikes: Strikes) -> Reply | None:
        if not self._let_in(request):
            return self.face.unauthorized()
        broken = strikes.get("error_status")
        if broken is None:
            return self.face.turn_away()
        reply = self.face.fail(broken.status, f"Simulated error {broken.status}")
        if broken.body is not None:
            reply.body = broken.body.encode()
        reply.headers = (*reply.headers, *broken.headers.items())
        return reply

    def _admit(self, connection: Connection, request: Request, entry: BookEntry, strikes: Strikes) -> Reply | None:
        """Hand the request to the engine, or return why not; raises BadRequest."""
        work = self._works.read(request.path, request.body)
        entry.model, entry.stream = work.model, work.stream
        model = self.face.served(work.model)
        if model is None:
            return self.face.unknown_model(work.model)
        refusal = self.face.too_long(work.longest, work.limit)
        if refusal is not None:
            return refusal
        reason = self.engine.refusal(work.prompt.tokens)
        if reason is not None:
            return self.face.overloaded(reason)
        self._serial += 1
        answer = Answer(
            id=f"{self._serial_base}{self._serial:024x}",
            created=int(time.time()),
            model=model,
            chat=work.chat,
            choices=work.choices,
            prompt_tokens=work.prompt.tokens,
            prompt_sizes=[prompt.tokens for prompt in work.prompts],
            top=work.top,
        )
        entry.id, entry.prompt_tokens = answer.id, answer.prompt_tokens
        exchange = self._exchange(Call(connection, request, self.face, answer, entry, self.books, strikes), work)
        exchange.begin(self.engine.generation(work.prompt, work.steps, exchange, streamed=work.stream))
        return None

    def _exchange(self, call: Call, work: Work) -> StreamExchange | WholeExchange:
        answer, face = call.answer, self.face
        if work.embedding is not None:
            size = work.embedding.dimensions or self.config.embedding_dimensions
            base64 = work.embedding.encoding_format == "base64"
            return WholeExchange(call, lambda usage: embeddings(work.prompts, answer.model, size, usage, base64=base64))
        asked = work.asked
        if asked is not None:
            if work.stream:
                return ResponsesStream(call, asked)
            items = responses.output(answer, asked)
            return WholeExchange(call, lambda usage: responses.response(answer, asked, items, usage, done=True))
        if work.stream and face.speaks_messages:
            return MessagesStream(call)
        if work.stream:
            return StreamExchange(call, asked_usage=work.asked_usage, continuous=work.continuous_usage)
        if not call.strikes:
            # The choices of equal requests are equal: rendered once, used again.
            if work.rendered is None:
                work.rendered = msgspec.Raw(msgspec.json.encode(face.choices(answer)))
            answer.rendered = work.rendered
        return WholeExchange(call, lambda usage: face.answer(answer, usage))

    def _refuse(self, connection: Connection, request: Request, entry: BookEntry, reply: Reply) -> None:
        """Send an error answer, or for engines that do so an error event inside a 200."""
        in_stream = self.config.refuse_in_stream
        if in_stream is None:
            in_stream = self.face.errors_in_stream
        if in_stream and entry.stream and entry.faults == ():
            event = msgspec.json.encode(self.face.stream_error(reply.status, _message(reply)))
            reply = Reply(200, b"data: %b\n\ndata: [DONE]\n\n" % event, _STREAMED)
        entry.status = reply.status
        self.books.close(entry, "refused")
        connection.answer(reply, keep_alive=request.keep_alive)


def _engine(config: SimConfig, loop: asyncio.AbstractEventLoop) -> Engine:
    if config.profile is None:
        return Engine(config, loop)
    return SteppedEngine(config, loop, PROFILES[config.profile])


def _message(reply: Reply) -> str:
    """Return the words of an error body, whatever its shape."""
    document = msgspec.json.decode(reply.body)
    error = document.get("error", document) if isinstance(document, dict) else document
    if isinstance(error, dict):
        error = error.get("message", "")
    return str(error)
