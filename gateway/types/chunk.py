"""Stream chunks in canonical form: what goes from the attempt through the meter to the caller or the folder.

Nearly every chunk of a stream is the next piece of one choice's text and nothing else. Such a chunk is a ``TextChunk``,
which is decoded, checked and written by its declared types, with no look at each member; every other chunk is the
dictionary it was decoded to. Nothing here can fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, Protocol, final

import msgspec
from msgspec import UNSET, UnsetType

PROBE: Final = "the words go here"
"""Words that an event is rendered with to see what is around them."""
MOST_PASSED: Final = 64
"""Pieces of text that may pass untold."""


class TextDelta(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What a text chunk adds; members that engines send as null without meaning are declared as such."""

    role: Literal["assistant"] | None = None
    content: str | UnsetType | None = UNSET
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class TextChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The one choice of a text chunk; it has not finished."""

    delta: TextDelta
    index: int = 0
    finish_reason: None = None
    logprobs: None = None
    stop_reason: None = None
    matched_stop: None = None
    token_ids: None = None


class TextUsage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What an engine has counted so far, as those say it that are asked to with every chunk."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None
    reasoning_tokens: int | None = None

    def document(self) -> dict[str, Any]:
        """Return it as the object it was read from; members that were missing are null, or 0."""
        return msgspec.structs.asdict(self)


@final
class TextChunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The next piece of one choice's text.

    Attributes:
        choices: the choice.
        id: the engine's own id of the answer.
        system_fingerprint: passed on when the engine has one.
        usage: the engine's count so far; some engines are asked to send it with every chunk.
    """

    choices: tuple[TextChoice]
    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    usage: TextUsage | None = None
    service_tier: None = None
    error: None = None
    prompt_token_ids: None = None


Chunk = dict[str, Any] | TextChunk


class Direct(msgspec.Struct, gc=False):
    """How pieces of text that differ in nothing but their words get to the caller without their sink.

    Attributes:
        before: bytes of the event before the words.
        after: bytes behind them.
        write: takes the event, in a piece of a chunked body.
        tokens: most completion tokens that usage can say; one that says more is no such piece.
        bounds: returns how many pieces may pass until ``Sink.passed`` is due, and until when in monotonic seconds;
            0 once none may pass any more.
    """

    before: bytes
    after: bytes
    write: Callable[[bytes], None]
    tokens: int = 0
    bounds: Callable[[], tuple[int, float]] = lambda: (MOST_PASSED, math.inf)


class Passed(NamedTuple):
    """Pieces of text that have passed.

    Attributes:
        pieces: their words.
        member: of the delta that they were.
        last: monotonic seconds at which the last of them came.
        usage: what an engine had counted by then, where it says so with every piece.
    """

    pieces: list[str]
    member: str
    last: float
    usage: TextUsage | None


class Sink(Protocol):
    """Takes what an answer says, in order."""

    def send(self, chunks: list[Chunk]) -> None:
        """Take chunks."""

    def say(self, chunk: TextChunk) -> None:
        """Take a piece of text that came alone, as nearly all do: the same as ``send([chunk])``, without detours."""

    def direct(self, probe: TextChunk) -> Direct | None:
        """Return how pieces like ``probe``, whose words are ``PROBE``, may pass by this sink; None when they may not.

        What has passed is told by ``passed``, before anything else comes.
        """

    def passed(self, run: Passed) -> None:
        """Take note of pieces that have passed: the same as ``say`` of each, but that they have been sent."""


@final
class ListSink:
    """A sink that hands everything to one function, as a list."""

    __slots__ = ("send",)

    def __init__(self, send: Callable[[list[Chunk]], None]) -> None:
        self.send = send

    def say(self, chunk: TextChunk) -> None:
        """See ``Sink``."""
        self.send([chunk])

    def direct(self, probe: TextChunk) -> None:
        """See ``Sink``."""

    def passed(self, run: Passed) -> None:
        """See ``Sink``."""
