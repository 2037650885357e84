"""Responses made in the background: the answer is made to its end whether or not its caller stays.

A ``Run`` stands between the reply and the caller's connection. The caller is told the id once the keeper has the
response, streamed or not; before that every error is an ordinary one, and a caller who leaves ends the request. After
that errors are the response's own (``failed``), and only ``cancel`` or the end of the process end it. What the caller
would have read is handed to the keeper as it comes, so that any process can give it to whoever asks. A keeper that is
away delays that and ends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from gateway.edge.clerk import Clerk
from gateway.edge.exchange import Exchange
from gateway.edge.idempotency import Recording
from gateway.edge.openai_responses import ResponsesCall
from gateway.edge.openai_responses_reply import ResponsesReply, named, respond_error
from gateway.types.background import BEGIN, FINISH, PROGRESS, Piece, Progress
from gateway.types.errors import Unavailable, WeirError
from gateway.types.ids import RequestId
from gateway.types.method import Asking
from gateway.types.reply import Flow
from gateway.types.responses import NewTurn, Turn

EARLY_S: Final = 0.25
"""Seconds in which a refusal is told in place of an id."""
BEAT_S: Final = 0.25
"""Seconds between two words to the keeper of what runs."""
MOST_EVENTS: Final = 16 * 2**20
"""Bytes of a stream that are kept, and about the most that the keeper is told of at once."""
LAST_S: Final = 3.0
"""Seconds that a process which stops waits until its runs have handed over their ends."""
_END: Final = b"\n\n"
_encode: Final = msgspec.json.Encoder().encode


class Runs:
    """The runs of one process.

    Args:
        books: the keeper.
        clerk: hands over what is finished.
        writer: the journal of this process, by which keepers see whether it lives.

    Attributes:
        running: runs whose callers were told of them and that have not ended, by their requests.
    """

    def __init__(self, books: Asking, clerk: Clerk, writer: str) -> None:
        self.running: dict[bytes, Run] = {}
        self.books = books
        self._clerk = clerk
        self._writer = writer
        self._beat: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    def begin(
        self, key_id: str, previous: bytes | None, items: Callable[[bytes], bytes]
    ) -> Callable[[Exchange, ResponsesCall], ResponsesReply]:
        """Return what makes the reply to a request whose answer is made in the background.

        Args:
            key_id: public id of its inference key.
            previous: the request that it goes on from, or None.
            items: takes its own id and returns its own input as it is kept.
        """

        def reply(exchange: Exchange, call: ResponsesCall) -> ResponsesReply:
            new = NewTurn(exchange.request_id, key_id, previous, Turn(items(exchange.request_id), b"{}"))
            return Run(self, exchange, call, new).reply

        return reply

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` beside all else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def accept(self, run: Run) -> None:
        """Have the keeper keep a new run. Raises ``WeirError``."""
        first = run.turn(run.reply.document_now())
        kept = await self.books.ask(BEGIN, (first, self._writer, run.reply.call.stream, run.routed.is_set()))
        if not kept:
            raise Unavailable("the response cannot be kept, which one that is made in the background has to be")
        self.running[run.request_id] = run
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_task(self._tell())

    async def end(self, run: Run, response: Mapping[str, Any]) -> None:
        """Hand over a finished response and the last of its events."""
        self.running.pop(run.request_id, None)
        async with self._lock:  # what is on its way to the keeper says less
            last = run.turn(response)
            size = len(last.turn.items) + len(last.turn.response) + sum(len(data) for _, data in run.pieces)
            lost = {"code": "server_error", "message": "the response was made and could not be kept"}
            small = run.turn({**run.reply.document_now(), "status": "failed", "output": [], "error": lost})
            task = self._clerk.post(FINISH, (last, run.pieces), size, at_last=(small, []))
        if task is not None:
            await asyncio.wait((task,))

    async def stop(self) -> None:
        """Wait a moment for what is being handed over."""
        if self._beat is not None:
            self._beat.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LAST_S)

    async def _tell(self) -> None:
        """Tell the keeper of what runs, and learn what is to end, while anything runs."""
        while self.running:
            await asyncio.sleep(BEAT_S)
            async with self._lock:
                said = self._news()
                try:
                    ended = await self.books.ask(PROGRESS, (said,)) if said else []
                except WeirError:
                    continue  # the keeper is away: it is told the next time
                for each in said:
                    if each.request_id in self.running:
                        self.running[each.request_id].told(each)
            for request_id in ended:
                run = self.running.get(request_id)
                if run is not None:
                    self.spawn(run.cancel())

    def _news(self) -> list[Progress]:
        """Return what is new of the runs; when that is a great deal, the rest comes the next time."""
        said: list[Progress] = []
        room = MOST_EVENTS
        for run in self.running.values():
            if room <= 0:
                break
            said.append(run.progress())
            room -= sum(len(data) for _, data in run.pieces)
        return said


class Run:
    """One run; to its reply it is an exchange (see ``gateway.edge.exchange.Exchange``) whose caller never leaves.

    Attributes:
        request_id, path, headers, body, arrived: of the caller's exchange.
        gone: whether the run is over without an answer.
        begun: see ``Exchange``.
        key_id: public id of the inference key.
        reply: what answers.
        pieces: events that the keeper may not have yet.
        routed: set when it is known who will answer.
    """

    def __init__(self, runs: Runs, exchange: Exchange, call: ResponsesCall, new: NewTurn) -> None:
        self.request_id: RequestId = exchange.request_id
        self.path: bytes = exchange.path
        self.headers: Mapping[bytes, bytes] = exchange.headers
        self.body = b""
        self.arrived: float = exchange.arrived
        self.gone = False
        self.begun = False
        self.key_id = new.key_id
        self.pieces: list[Piece] = []
        self.routed = asyncio.Event()
        self._runs = runs
        self._new = new
        self._caller: Exchange | None = exchange
        self._flow: Flow | None = None
        self._events = 0
        self._size = 0
        self._held: list[bytes] = []
        self._closed = False
        self._taken = False
        self._over = False
        self._told = False
        self._accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Task[None] | None = None
        self.reply = BackgroundReply(self, call)
        exchange.steer(self)
        runs.spawn(self._accept())

    def turn(self, response: Mapping[str, Any]) -> NewTurn:
        """Return what is kept with ``response``."""
        new = self._new
        return NewTurn(new.request_id, new.key_id, new.previous, Turn(new.turn.items, _encode(response)))

    # To the reply: an exchange

    def steer(self, flow: Flow) -> None:
        """See ``Exchange``. The caller's connection steers nothing any more."""
        self._flow = flow
        if self.gone:
            flow.abort()

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """A whole answer: whoever wants it fetches it."""

    def open(self, headers: bytes) -> None:
        """See ``Exchange``."""
        self.begun = True
        if self._caller is not None:
            self._caller.open(headers)

    def write(self, data: bytes) -> None:
        """See ``Exchange``. Events are numbered as the reply numbers them: one after the other."""
        self._size += len(data)
        if self._size <= MOST_EVENTS:
            for event in data.split(_END)[:-1]:
                self.pieces.append((self._events, event + _END))
                self._events += 1
        if not self._accepted.done():
            self._held.append(data)
        elif self._caller is not None:
            self._caller.write(data)

    def framed(self) -> None:
        """See ``Exchange``: every event is kept."""

    def close(self, data: bytes) -> None:
        """See ``Exchange``."""
        self.write(data)
        self._closed = True
        if self._accepted.done() and self._caller is not None:
            self._caller.close(b"")

    # To the caller's connection: a flow

    def abort(self) -> None:
        """The caller left: what it was told the id of goes on."""
        self._caller = None
        if not self._taken:
            self._stop()
        self.resume()

    def pause(self) -> None:
        """The caller does not read."""
        if self._flow is not None and self._caller is not None:
            self._flow.pause()

    def resume(self) -> None:
        """The caller reads again, or has left."""
        if self._flow is not None:
            self._flow.resume()

    # The run

    def refuse(self, error: WeirError, headers: bytes, explained: dict[str, Any] | None) -> bool:
        """Tell the caller an error in place of an id; return False when it was told the id."""
        if self._taken:
            return False
        self._over = True
        self.routed.set()
        if self._caller is not None:
            self._tell_error(error, headers, explained)
        return True

    def finish(self, response: Mapping[str, Any]) -> None:
        """Keep the finished ``response``."""
        if not self._over:
            self._over = True
            self._ended = self._runs.spawn(self._end(response))

    async def cancel(self) -> None:
        """End the run and keep what there is as ``cancelled``; returns once that is handed over."""
        if not self._over:
            response, events = self.reply.cancelled()
            if self.begun and not self._closed:
                self.close(events)
            self.finish(response)
            self._stop()
        if self._ended is not None:
            await asyncio.shield(self._ended)

    def progress(self) -> Progress:
        """Return what is new to the keeper."""
        begun = self.routed.is_set() and not self._told
        return Progress(self.request_id, self.key_id, begun, tuple(self.pieces))

    def told(self, said: Progress) -> None:
        """The keeper knows ``said``."""
        del self.pieces[: len(said.pieces)]
        self._told = self._told or said.begun

    def _stop(self) -> None:
        self.gone = True
        if self._flow is not None:
            self._flow.abort()

    async def _accept(self) -> None:
        """Tell the caller the id once it is known who answers, or after a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EARLY_S):
                await self.routed.wait()
        if self._over or self.gone:
            return
        self._taken = True
        try:
            await self._runs.accept(self)
        except WeirError as error:
            self._over = True
            self._accepted.cancel()
            self._stop()
            if self._caller is not None:
                self._tell_error(error)
            return
        self._accepted.set_result(None)
        caller = self._caller
        if caller is None:
            return
        if not self.reply.call.stream:
            self._caller = None
            self.reply.accept(caller)
            if isinstance(caller, Recording):
                await caller.keep()
            return
        for data in self._held:
            caller.write(data)
        self._held.clear()
        if self._closed:
            caller.close(b"")

    async def _end(self, response: Mapping[str, Any]) -> None:
        await self._accepted
        await self._runs.end(self, response)

    def _tell_error(self, error: WeirError, headers: bytes = b"", explained: dict[str, Any] | None = None) -> None:
        caller, self._caller = self._caller, None
        assert caller is not None
        if caller.begun:
            caller.close(self.reply.failure(error)[1])
        else:
            respond_error(caller, error, headers, explained)


class BackgroundReply(ResponsesReply):
    """See ``gateway.types.reply.Reply``; answers into ``run``."""

    __slots__ = ("_run",)

    def __init__(self, run: Run, call: ResponsesCall) -> None:
        super().__init__(run, call)
        self._run = run

    def route(self, text: str) -> None:
        """See ``Reply``."""
        super().route(text)
        self._run.routed.set()

    def fail(self, error: WeirError) -> None:
        """See ``Reply``. An error after the caller was told the id is the response's own."""
        error = named(error, self.call)
        if self._run.refuse(error, self._route, self._explained):
            return
        response, events = self.failure(error)
        if self.call.stream:
            self.open()
            self._exchange.close(events)
        self._run.finish(response)

    def failure(self, error: WeirError) -> tuple[dict[str, Any], bytes]:
        """Return the response of an answer that broke, and the events that say so."""
        return self._failure(error)

    def document_now(self) -> dict[str, Any]:
        """Return the response while it is being made: ``queued`` or ``in_progress``."""
        if not self._frame:
            self._start(self.call.model, "")
        return self._document("in_progress" if self._run.routed.is_set() else "queued", [])

    def cancelled(self) -> tuple[dict[str, Any], bytes]:
        """Return the response that ends here, and the events that close what is open of it."""
        self._output.finish("incomplete")
        return self.document_now() | {"status": "cancelled", "output": self._output.items}, self._events.take()

    def accept(self, caller: Exchange) -> None:
        """Tell the caller the id."""
        caller.respond(200, self._json_lines(), _encode(self.document_now()))

    def _keep(self, response: Mapping[str, Any]) -> None:
        self._run.finish(self._kept(response))
