"""Answering one generation request whole: from the engine's run to bytes, with the faults that strike it.

An exchange reads one run of the engine and writes to one connection. Whatever happens (the end, a fault, a client that
closes), it stops the run and closes the book entry exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from gateway.sim.answers import Answer
from gateway.sim.books import BookEntry, Books, Outcome
from gateway.sim.connection import Connection
from gateway.sim.counters import Counters
from gateway.sim.engine import GenerationRun
from gateway.sim.faces.face import Document, Face
from gateway.sim.faults import Fault, Strikes
from gateway.sim.wire import Reply, Request

Headers = tuple[tuple[str, str], ...]

_OFFSET = 7
"""What ``wrong_usage`` adds when it says nothing else."""

_SLOW_FACTOR = 10.0


@dataclass(slots=True)
class Call:
    """What belongs to one generation request; ``answer`` of an embedding has no choices."""

    connection: Connection
    request: Request
    face: Face
    answer: Answer
    entry: BookEntry
    books: Books
    strikes: Strikes


class Exchange:
    """What whole and streamed answers share; ``run`` is set by ``begin``."""

    def __init__(self, call: Call) -> None:
        self.connection = call.connection
        self.request = call.request
        self.face = call.face
        self.answer = call.answer
        self.entry = call.entry
        self.strikes = call.strikes
        self.headers: Headers = tuple(call.face.answer_headers(call.request))
        self.run: GenerationRun | None = None
        self._books = call.books

    def begin(self, run: GenerationRun) -> None:
        """Take ``run``, which may answer before this returns."""
        self.run = run
        slow = self.strikes.get("slow")
        if slow is not None:
            run.slowness = slow.factor if slow.factor is not None else (1.0 if slow.delay else _SLOW_FACTOR)
            run.delay = slow.delay
        self.connection.exchange = self
        if self.connection.paused:
            run.hold()
        self.entry.status = 200
        self.face.engine.counters.requests += 1
        self.face.engine.submit(run)

    # The connection's side.

    def on_disconnect(self) -> None:
        """Stop: the client is gone."""
        self.leave("cancelled")

    def hold(self) -> None:
        """Stop producing: the client does not read."""
        if self.run is not None:
            self.run.hold()

    def resume(self) -> None:
        """Go on producing."""
        if self.run is not None:
            self.run.resume()

    # The run's side.

    def on_first(self) -> None:
        """Enter what is known once the prompt is read."""
        run = self.run
        if run is not None:
            self.answer.cached_tokens = self.entry.cached_tokens = run.cached_tokens
            self.entry.started_at, self.entry.first_token_at = run.started_at, run.first_at

    def on_steps(self, first: int, last: int) -> None:
        """Whole answers have nothing to say in between."""

    def flush(self) -> None:
        """Whole answers are written at once."""

    # Endings.

    def leave(self, outcome: Outcome) -> None:
        """Stop the run where it is and enter ``outcome``; nothing happens the second time."""
        run, entry = self.run, self.entry
        if run is None or entry.outcome != "running":
            return
        if run.alive:
            entry.phase = run.phase.value
            run.stop()
        entry.started_at, entry.cached_tokens = run.started_at, run.cached_tokens
        entry.completion_tokens = self.answer.produced(run.done)
        entry.reasoning_tokens = self.answer.reasoned(run.done)
        self._books.close(entry, outcome)
        _count(self.face.engine.counters, run, entry, self.answer)

    def usage(self, prompt: int, completion: int, reasoning: int) -> Document | None:
        """Return the usage object to report, as the faults want it; None when there is to be none."""
        if "no_usage" in self.strikes:
            return None
        wrong = self.strikes.get("wrong_usage")
        if wrong is not None:
            prompt, completion = _falsified(prompt, wrong), _falsified(completion, wrong)
        return self.face.usage(prompt, completion, self.answer.cached_tokens, reasoning)


class WholeExchange(Exchange):
    """A JSON answer, made by ``document`` from the usage to report when the run ends."""

    def __init__(self, call: Call, document: Callable[[Document | None], Document]) -> None:
        super().__init__(call)
        self._document = document

    def begin(self, run: GenerationRun) -> None:
        """Take ``run``; a stalled answer never gets past its first token."""
        if "stall" in self.strikes:
            run.limit = 0
        super().begin(run)

    def on_limit(self) -> None:
        """Stall: send the head, or not even that, and stand still."""
        stall = self.strikes["stall"]
        if stall.how == "headers":
            self.connection.answer(self._reply(), sent=0.5 if stall.chunks else 0.0)

    def on_end(self) -> None:
        """Send the answer, as far as the faults let it through."""
        reply = self._reply()
        cut = self.strikes.get("cut_mid_stream")
        if cut is not None or "reset_mid_stream" in self.strikes:
            self.leave("broken")
            self.connection.answer(reply, sent=0.5)
            if cut is not None:
                self.connection.close()
            else:
                self.connection.reset(soon=True)
            return
        self.leave("broken" if "error_in_200" in self.strikes else "completed")
        self.connection.answer(reply, keep_alive=self.request.keep_alive)

    def _reply(self) -> Reply:
        strikes = self.strikes
        error = strikes.get("error_in_200")
        if error is not None:
            words = self.face.error(500, "Internal Server Error")
            return Reply(200, msgspec.json.encode(words) if error.body is None else error.body.encode())
        answer, steps = self.answer, self._steps
        usage = self.usage(answer.prompt_tokens, answer.produced(steps), answer.reasoned(steps))
        document = self._document(usage)
        if usage is None:
            document.pop("usage", None)
        if strikes:
            if "null_fields" in strikes:
                document = with_nulls(document)
            if "big_event" in strikes:
                document["padding"] = "x" * strikes["big_event"].size
        body = msgspec.json.encode(document)
        if "bad_json_event" in strikes:
            body = body[: len(body) // 2]
        return Reply(200, body, headers=self.headers)

    @property
    def _steps(self) -> int:
        return 0 if self.run is None else self.run.steps


def with_nulls(document: Document) -> Document:
    """Return ``document`` with null in every optional place strict clients are known to trip over."""
    nulled: Document = {"system_fingerprint": None, "service_tier": None, "error": None, "usage": None, **document}
    usage = nulled["usage"]
    if isinstance(usage, dict):
        nulled["usage"] = {"prompt_tokens_details": None, "completion_tokens_details": None, "cost": None, **usage}
    choices = document.get("choices")
    if isinstance(choices, list):
        nulled["choices"] = [_choice_with_nulls(choice) for choice in choices]
    return nulled


def _choice_with_nulls(choice: Document) -> Document:
    names = ("content", "refusal", "audio", "function_call", "tool_calls", "reasoning", "reasoning_content", "images")
    nulled: Document = {"logprobs": None, "finish_reason": None, "stop_reason": None, **choice}
    for part in ("message", "delta"):
        inner = choice.get(part)
        if isinstance(inner, dict):
            kept = {name: value for name, value in inner.items() if value != []}
            nulled[part] = {**dict.fromkeys(names), **kept}
    return nulled


def _falsified(tokens: int, fault: Fault) -> int:
    if fault.factor is None and not fault.offset:
        return tokens + _OFFSET
    return max(0, int(tokens * (1.0 if fault.factor is None else fault.factor)) + fault.offset)


Reason = Literal["stop", "length", "abort", "error"]


def _count(counters: Counters, run: GenerationRun, entry: BookEntry, answer: Answer) -> None:
    """Enter an ended run in what ``/metrics`` shows."""
    counters.generation_tokens += entry.completion_tokens
    reason: Reason = "error"
    if entry.outcome == "completed":
        reason = "length" if answer.choices and answer.choices[0].finish == "length" else "stop"
    elif entry.outcome == "cancelled":
        reason = "abort"
    counters.finished[reason] += 1
    if run.first_at:
        counters.queue_time.observe(run.started_at - run.received_at)
        counters.ttft.observe(run.first_at - run.received_at)
        counters.e2e.observe(run.ended_at - run.received_at)
        if run.done > 1:
            counters.itl.observe((run.ended_at - run.first_at) / (run.done - 1), run.done - 1)
