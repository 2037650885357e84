"""APIs that do not answer in OpenAI's chat form: how a request is said to one, and how its answer is understood.

``speech_of`` returns None for the chat form itself, whose path through ``attempt``, ``trial`` and ``backends`` has
nothing to do with this module. A speech knows no connection and no key; its translators never raise: what an API says
against its own rules is a ``Failure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from gateway.fleet.snapshot import Candidate
from gateway.types.call import Call
from gateway.types.chunk import Chunk
from gateway.types.dialect import Dialect
from gateway.types.failure import Failure
from gateway.upstream.anthropic import MESSAGES
from gateway.upstream.responses import RESPONSES


class Translator(Protocol):
    """Understands one answer; made anew for every attempt.

    Attributes:
        ended: the stream has said its end, and nothing that follows matters.
    """

    ended: bool

    def event(self, document: dict[str, Any]) -> list[Chunk] | Failure:
        """Return the canonical chunks that say what an event of the stream says; none for a sign of life.

        The first chunk of an answer should come as soon as the API has begun to work on it, and have the API's ``id``.
        """

    def answer(self, document: dict[str, Any]) -> dict[str, Any] | Failure:
        """Return the canonical form of a whole answer that came with status 200."""


class Speech(Protocol):
    """How requests are said to an API; one object for all of them.

    Attributes:
        dialect: what it speaks.
        path: where it takes them, below the root of the backend (``/v1/…``).
    """

    @property
    def dialect(self) -> Dialect:
        """See the attributes."""

    @property
    def path(self) -> str:
        """See the attributes."""

    def body(
        self,
        candidate: Candidate,
        call: Call,
        content: dict[str, Any],
        *,
        max_tokens: int | None,
        stream: bool,
    ) -> dict[str, Any]:
        """Return what the API is sent; neither ``call`` nor ``content`` is changed.

        Args:
            candidate: who gets it.
            call: what is asked.
            content: the request in this very dialect when the caller spoke it too (``call.dialect``), else in the
                chat form; options for the provider are merged in.
            max_tokens: the one length limit, or None when there is none.
            stream: whether the API shall stream.
        """

    def lines(self, call: Call) -> bytes:
        """Return header lines for this request, each ended by CRLF; mostly none."""

    def translator(self, call: Call) -> Translator:
        """Return what understands the answer to ``call``."""


SPEECHES: Final[Mapping[Dialect, Speech]] = {Dialect.MESSAGES: MESSAGES, Dialect.RESPONSES: RESPONSES}
"""Every dialect but the chat form."""


def speech_of(candidate: Candidate, call: Call) -> Speech | None:
    """Return how ``call`` is said to ``candidate``: as its caller said it if the backend knows that, else as it must.

    None means the chat form.
    """
    replica = candidate.replica
    if call.dialect is replica.engine.speaks or call.dialect in replica.backend.dialects:
        return SPEECHES.get(call.dialect)
    return SPEECHES.get(replica.engine.speaks)
