"""What the edge knows of a reply beyond what the relay does."""

from __future__ import annotations

from typing import Protocol

from gateway.types.call import Call
from gateway.types.reply import Reply


class CallerReply(Reply, Protocol):
    """A reply that knows what it answers."""

    @property
    def call(self) -> Call:
        """What is answered."""


class OpeningReply(CallerReply, Protocol):
    """A reply that can begin its stream before there is anything to say."""

    def open(self) -> None:
        """Start the stream, unless it has been started."""
