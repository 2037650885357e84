"""Answering one request as a stream of events that have names, as Anthropic's messages and OpenAI's responses do.

One token is one event. Faults that belong to OpenAI's chunks (``null_fields``, ``usage_twice``) change nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.sim.answers import Choice
from gateway.sim.exchange import Call
from gateway.sim.framing import DONE
from gateway.sim.streaming import StreamExchange

_NAME = re.compile(rb'\{"type":"([a-z_.]+)"')


class NamedStream(StreamExchange):
    """See the module; what the events are is a subclass's.

    Attributes:
        _kind: what is open, ``""`` when nothing is.
    """

    def __init__(self, call: Call) -> None:
        super().__init__(call, asked_usage=True, continuous=False)
        self._plain = False
        self._kind = ""

    def on_steps(self, first: int, last: int) -> None:
        """Turn decode steps into events."""
        if first == 0:
            self._begin_stream()
        for step in range(first, min(last, len(self.answer.choices[0].pieces))):
            self._piece(self.answer.choices[0], step)
        self.entry.completion_tokens = self.answer.produced(last)
        self.entry.reported = self._tokens

    def _end_stream(self, tell_last: Callable[[], None]) -> None:
        """End the stream with what ``tell_last`` tells, unless it is to break before that."""
        cut = self.strikes.get("cut_before_done")
        self.leave("completed" if cut is None else "broken")
        if cut is None:
            tell_last()
        elif cut.how == "fin":
            self.flush()
            self.connection.close()
            return
        self._finish()

    def _begin_stream(self) -> None:
        """Tell what comes before the first piece."""
        raise NotImplementedError

    def _piece(self, choice: Choice, step: int) -> None:
        """Tell one decode step of ``choice``."""
        raise NotImplementedError

    def _send(self, payload: bytes) -> None:
        """Send an event with its name before it; nothing says [DONE] here."""
        if payload == DONE:
            return
        before = len(self._out)
        super()._send(payload)
        name = _NAME.match(payload)
        if name is not None:
            self._out[before] = b"event: %b\n%b" % (name[1], self._out[before])
