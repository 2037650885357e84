"""Answering one generation request as a stream of server-sent events, with the faults that strike it.

One token is one event. Everything due at one moment leaves in one write; only the ``split`` style of ``malformed_sse``
writes in two. An event that differs from the one before only in its text is made from a template.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.sim.answers import Choice
from gateway.sim.engine import GenerationRun
from gateway.sim.exchange import Call, Exchange, with_nulls
from gateway.sim.faces.face import Document
from gateway.sim.faults import Fault
from gateway.sim.framing import DONE, Framer, OddFramer
from gateway.sim.logprobs import chat_logprobs, text_logprobs

_CONTENT_TYPE = "text/event-stream; charset=utf-8"

_HOLE = b"\x00"
"""Marks the text in a template: JSON never holds a bare NUL."""

_SPLIT = b""
"""Between two parts of ``_out`` that must not leave in one write."""

_ENDING = ("stall", "cut_mid_stream", "reset_mid_stream", "error_in_200")
_INSERTED = ("bad_json_event", "big_event")
_SPECIAL = frozenset({"null_fields", *_INSERTED})


class StreamExchange(Exchange):
    """See the module; ``asked_usage`` and ``continuous`` are the caller's stream options."""

    def __init__(self, call: Call, *, asked_usage: bool, continuous: bool) -> None:
        super().__init__(call)
        self._asked_usage = asked_usage
        self._continuous = continuous and asked_usage and self.face.continuous_usage
        odd = self.strikes.get("malformed_sse")
        self._framer = Framer() if odd is None else OddFramer(odd.styles)
        self._out: list[bytes] = []
        self._head = b""
        self._opened = False
        self._tokens = 0
        self._offsets: dict[int, int] = {}
        self._ending = self._first_ending()
        self._inserts = {name: self.strikes[name].chunks for name in _INSERTED if name in self.strikes}
        self._plain = not self._continuous and self.answer.top is None and _SPECIAL.isdisjoint(self.strikes)
        self._templates: Mapping[int, tuple[bytes, bytes]] = {}
        self._only: Choice | None = None

    def begin(self, run: GenerationRun) -> None:
        """Take ``run``; with a face that sends its headers early they leave before the first token."""
        if self._ending is not None:
            choices = max(1, len(self.answer.choices))
            run.limit = min(-(-self._ending.chunks // choices), max(0, run.steps - 1))
        tokens = self.answer.produced(run.steps)
        self._inserts = {name: min(at, max(0, tokens - 1)) for name, at in self._inserts.items()}
        super().begin(run)
        if self.face.headers_early and run.alive and not self._silent:
            self._open()
            self.flush()

    def on_first(self) -> None:
        """Enter what is known, and prepare the head and the templates."""
        super().on_first()
        if not self._silent:
            self._open()
        if self._plain:
            choices = self.answer.choices
            self._templates = {c.index: self._template(c) for c in choices if c.tool is None and not c.reasoning}
            if len(choices) == 1 and self._templates and "malformed_sse" not in self.strikes:
                self._only = choices[0]

    def on_steps(self, first: int, last: int) -> None:
        """Turn decode steps into events."""
        if first == 0 and self.answer.chat and self.face.opens_with_role:
            for choice in self.answer.choices:
                self._event(choice, self.face.role_delta(), None, None, 0)
        if self._only is not None:
            first = self._joined(self._only, first, last)
        for step in range(first, last):
            for choice in self.answer.choices:
                if step < len(choice.pieces):
                    self._token(choice, step)
        self.entry.completion_tokens = self.answer.produced(last)
        self.entry.reported = self._tokens

    def on_limit(self) -> None:
        """End the stream the way the fault wants it."""
        fault = self._ending
        if fault is None:
            return
        if fault.kind == "stall":
            return
        self.leave("broken")
        if fault.kind == "error_in_200":
            words = self.face.stream_error(500, "Internal Server Error")
            self._send(msgspec.json.encode(words) if fault.body is None else fault.body.encode())
            self._send(DONE)
            self._finish()
            return
        self.flush()
        if fault.kind == "reset_mid_stream":
            self.connection.reset(soon=True)
        elif fault.how == "end":
            self._finish()
        else:
            self.connection.close()

    def on_end(self) -> None:
        """Finish the choices, report usage, say [DONE]."""
        if not self.face.finish_on_last_token:
            for choice in self.answer.choices:
                final: Document = self.face.final_delta() if self.answer.chat else {"text": ""}
                self._event(choice, final, choice.finish, None, len(choice.pieces))
        run = self.run
        if self._asked_usage and run is not None:
            answer, steps = self.answer, run.steps
            usage = self.usage(answer.prompt_tokens, answer.produced(steps), answer.reasoned(steps))
            if usage is not None:
                event = {**self.face.chunk(self.answer, [], asked_usage=True), "usage": usage}
                if "null_fields" in self.strikes:
                    event = with_nulls(event)
                for _ in range(2 if "usage_twice" in self.strikes else 1):
                    self._send(msgspec.json.encode(event))
        cut = self.strikes.get("cut_before_done")
        self.leave("completed" if cut is None else "broken")
        if cut is None:
            self._send(DONE)
        elif cut.how == "fin":
            self.flush()
            self.connection.close()
            return
        self._finish()

    def flush(self) -> None:
        """Write everything that waits."""
        if self._out or self._head:
            self._write(last=False)

    @property
    def _silent(self) -> bool:
        return self._ending is not None and self._ending.how == "silent" and self._ending.chunks == 0

    def _first_ending(self) -> Fault | None:
        endings = [self.strikes[name] for name in _ENDING if name in self.strikes]
        return min(endings, key=lambda fault: fault.chunks, default=None)

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            headers = (("cache-control", "no-cache"), *self.headers)
            self._head = self.connection.start(self.request, 200, _CONTENT_TYPE, headers)

    def _finish(self) -> None:
        """Write what waits and the end of the body."""
        self._write(last=True)
        self.connection.done(keep_alive=self.request.keep_alive and self.request.chunked)

    def _write(self, *, last: bool) -> None:
        """Write head and events that wait as one part of the body, or as several where a split is wanted."""
        head, self._head = self._head, b""
        out, self._out = self._out, []
        while _SPLIT in out:
            at = out.index(_SPLIT)
            self.connection.write(head + self.connection.part(self.request, b"".join(out[:at])))
            head, out = b"", out[at + 1 :]
        self.connection.write(head + self.connection.part(self.request, b"".join(out), last=last))

    def _send(self, payload: bytes) -> None:
        parts = self._framer.frame(payload)
        self._out.append(parts[0])
        for part in parts[1:]:
            self._out.append(_SPLIT)
            self._out.append(part)

    def _token(self, choice: Choice, step: int) -> None:
        """Send the event of one token."""
        last = step == len(choice.pieces) - 1
        finish = choice.finish if last and self.face.finish_on_last_token else None
        template = self._templates.get(choice.index)
        self._tokens += 1
        if template is not None and finish is None:
            self._send(template[0] + choice.encoded()[step] + template[1])
            return
        padding = self._insert() if self._inserts else ""
        delta: Document = self.face.delta(choice, step) if self.answer.chat else {"text": choice.pieces[step]}
        if padding:
            name = next((name for name in ("content", "text") if isinstance(delta.get(name), str)), "padding")
            delta[name] = f"{delta.get(name, '')}{padding}"
        self._event(choice, delta, finish, self._logprobs(choice, step), step + 1)

    def _joined(self, choice: Choice, first: int, last: int) -> int:
        """Send the steps of the only choice that need nothing but its template; return the first that does."""
        end = min(last, len(choice.pieces) - 1) if self.face.finish_on_last_token else last
        if end > first:
            before, after = self._templates[choice.index]
            before, after = b"data: " + before, after + b"\n\n"
            self._out.append(before + (after + before).join(choice.encoded()[first:end]) + after)
            self._tokens += end - first
        return max(first, end)

    def _event(self, choice: Choice, delta: Document, finish: str | None, logprobs: object, made: int) -> None:
        inner = self.face.chunk_choice(self.answer, choice, delta, finish, logprobs)
        event = self.face.chunk(self.answer, [inner], asked_usage=self._asked_usage)
        if self._continuous:
            usage = self.usage(self.answer.own_prompt(choice), made, min(made, choice.reasoning))
            if usage is not None:
                event["usage"] = usage
        if "null_fields" in self.strikes:
            event = with_nulls(event)
        self._send(msgspec.json.encode(event))

    def _insert(self) -> str:
        """Send the broken event when it is due; return the text that makes the next event big when that is due."""
        due = [name for name, at in self._inserts.items() if self._tokens > at]
        for name in due:
            del self._inserts[name]
        if "bad_json_event" in due:
            whole = msgspec.json.encode(self.face.chunk(self.answer, [], asked_usage=self._asked_usage))
            self._send(whole[: len(whole) // 2])
        return "x" * self.strikes["big_event"].size if "big_event" in due else ""

    def _logprobs(self, choice: Choice, step: int) -> object:
        top = self.answer.top
        if top is None:
            return None
        piece = choice.pieces[step]
        if self.answer.chat:
            return {"content": chat_logprobs([piece], top)}
        offset = self._offsets.get(choice.index, 0)
        self._offsets[choice.index] = offset + len(piece)
        return text_logprobs([piece], top, offset)

    def _template(self, choice: Choice) -> tuple[bytes, bytes]:
        """Return the bytes around the text of an event that carries one token of ``choice``."""
        hole = msgspec.Raw(_HOLE)
        delta: Document = {**self.face.delta(choice, 0), "content": hole} if self.answer.chat else {"text": hole}
        inner = self.face.chunk_choice(self.answer, choice, delta, None)
        event = self.face.chunk(self.answer, [inner], asked_usage=self._asked_usage)
        before, after = msgspec.json.encode(event).split(_HOLE)
        return before, after
