"""The simulated backend's own books: every generation request it saw, and what it really produced for it.

Tests compare them with what the gateway metered. Times are seconds of the machine's monotonic clock, the same in all
processes of one host. The newest requests are kept one by one; the totals count all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

Outcome = Literal["running", "completed", "cancelled", "refused", "broken"]


@dataclass(slots=True, eq=False)
class BookEntry:
    """One generation request (chat, text completion or embedding).

    Attributes:
        id: the id in the answer; TGI sends none, here it has one.
        path: the path asked for.
        model: the model asked for.
        stream: whether a stream was asked for.
        status: HTTP status of the answer; 0 when nothing was answered.
        outcome: "completed" (all tokens produced), "cancelled" (the client closed), "refused" (an error answer),
            "broken" (a fault ended it) or "running".
        phase: where a cancelled or broken request was: "queued", "prefill" or "decode".
        prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens: as produced, also while it runs; faults that
            falsify usage do not touch them.
        reported: token chunks handed to the connection (streams only).
        faults: kinds of the faults that struck it.
        received_at, started_at, first_token_at, ended_at: monotonic seconds, 0.0 while not reached. ``ended_at`` of a
            cancelled request is the moment the closed connection was noticed.
    """

    path: str
    raw_body: bytes = field(repr=False)
    raw_headers: list[tuple[bytes, bytes]] = field(repr=False)
    id: str = ""
    model: str = ""
    stream: bool = False
    status: int = 0
    outcome: Outcome = "running"
    phase: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    reported: int = 0
    faults: tuple[str, ...] = ()
    received_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    first_token_at: float = 0.0
    ended_at: float = 0.0

    @property
    def cancelled(self) -> bool:
        """Whether the client went before the end."""
        return self.outcome == "cancelled"

    @property
    def seconds(self) -> float:
        """Seconds from arrival to the end, or until now."""
        return (self.ended_at or time.monotonic()) - self.received_at

    @property
    def headers(self) -> dict[str, str]:
        """The request headers, names in lower case; of a repeated one the last."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.raw_headers}

    @property
    def body(self) -> object:
        """The request body as JSON; as text when it is none."""
        try:
            return msgspec.json.decode(self.raw_body)
        except (ValueError, RecursionError):
            return self.raw_body.decode("utf-8", "replace")

    def document(self) -> dict[str, object]:
        """Return the entry as ``GET /sim/books`` shows it."""
        return {
            "id": self.id,
            "path": self.path,
            "model": self.model,
            "stream": self.stream,
            "status": self.status,
            "outcome": self.outcome,
            "cancelled": self.cancelled,
            "phase": self.phase,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "reported": self.reported,
            "faults": self.faults,
            "received_at": self.received_at,
            "started_at": self.started_at,
            "first_token_at": self.first_token_at,
            "ended_at": self.ended_at,
            "seconds": self.seconds,
            "headers": self.headers,
            "body": self.body,
        }


@dataclass(slots=True)
class Totals:
    """Sums over every request that has ended; ``requests`` also counts those still running."""

    requests: int = 0
    completed: int = 0
    cancelled: int = 0
    refused: int = 0
    broken: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Books:
    """The newest ``limit`` entries, oldest first, and totals over all."""

    def __init__(self, limit: int) -> None:
        self._entries: deque[BookEntry] = deque(maxlen=limit)
        self.totals = Totals()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[BookEntry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> BookEntry:
        return self._entries[index]

    def open(self, entry: BookEntry) -> None:
        """Enter a request that just came in."""
        self._entries.append(entry)
        self.totals.requests += 1

    def close(self, entry: BookEntry, outcome: Outcome) -> None:
        """Enter the end of a request; a second end is ignored."""
        if entry.outcome != "running":
            return
        entry.outcome = outcome
        entry.ended_at = time.monotonic()
        totals = self.totals
        setattr(totals, outcome, getattr(totals, outcome) + 1)
        totals.prompt_tokens += entry.prompt_tokens
        totals.cached_tokens += entry.cached_tokens
        totals.completion_tokens += entry.completion_tokens

    def find(self, request_id: str) -> BookEntry | None:
        """Return the newest entry with the id ``request_id``, or None."""
        return next((entry for entry in reversed(self._entries) if entry.id == request_id), None)

    def clear(self) -> None:
        """Forget everything; requests that still run end in the new totals without having begun there."""
        self._entries.clear()
        self.totals = Totals()
