"""What the edge knows of a reply beyond what the relay does, and what the replies of all dialects have in common."""

from __future__ import annotations

from typing import Any, Final, Generic, Protocol, TypeVar

from gateway.edge.exchange import Exchange
from gateway.edge.tool_calls import ToolCalls
from gateway.types.call import Call, Need
from gateway.types.chunk import Direct, Passed, TextChunk
from gateway.types.reply import Flow, Reply

COMFORT: Final = b": OPENROUTER PROCESSING\n\n"
"""The comment that OpenRouter sends while nothing has come yet; some clients know it by its words."""
CallT = TypeVar("CallT", bound=Call)


class CallerReply(Reply, Protocol):
    """A reply that knows what it answers."""

    @property
    def call(self) -> Call:
        """What is answered."""


class OpeningReply(CallerReply, Protocol):
    """A reply that can begin its stream before there is anything to say."""

    @property
    def comfort(self) -> bytes:
        """What its caller is told meanwhile: whole lines that clients of its dialect pass over."""

    def open(self) -> None:
        """Start the stream, unless it has been started."""


class DialectReply(Generic[CallT]):
    """The part of ``gateway.types.reply.Reply`` that is the same in every dialect.

    Attributes:
        call: what is answered.
        comfort: what its caller is told while nothing has come.
    """

    __slots__ = ("_exchange", "_explained", "_route", "_tool_calls", "arrived", "call", "request_id")
    comfort: bytes = COMFORT

    def __init__(self, exchange: Exchange, call: CallT) -> None:
        self._exchange = exchange
        self.call = call
        self._route = b""
        self._explained: dict[str, Any] | None = None
        self._tool_calls = ToolCalls(call.body["tools"]) if Need.TOOLS in call.needs else None
        self.request_id = exchange.request_id
        self.arrived = exchange.arrived

    @property
    def gone(self) -> bool:
        """Whether the caller has left."""
        return self._exchange.gone

    @property
    def calls_sound(self) -> bool | None:
        """See ``Reply``."""
        return self._tool_calls.sound if self._tool_calls is not None else None

    def steer(self, flow: Flow) -> None:
        """See ``Reply``."""
        self._exchange.steer(flow)

    def direct(self, probe: TextChunk) -> Direct | None:  # noqa: ARG002 - a reply that can render it overrides this
        """See ``Reply``."""
        return None

    def passed(self, run: Passed) -> None:
        """See ``Reply``."""

    def route(self, text: str) -> None:
        """See ``Reply``."""
        self._route = b"x-weir-route: %s\r\n" % text.encode("ascii", "replace")
        if self.call.shortened is not None:
            self._route += b"x-weir-max-tokens: %d\r\n" % self.call.shortened

    def explain(self, metadata: dict[str, Any]) -> None:
        """See ``Reply``."""
        self._explained = metadata
