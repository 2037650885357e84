"""What can be broken in a simulated backend, and what is broken right now.

A fault is armed at the start or while the backend runs. It may strike for ever, for the next ``count`` times, for
``seconds``, or only with a ``probability``. Values that make no sense raise ``ValueError`` (``msgspec.ValidationError``
is one) and leave what was armed as it was.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

FaultKind = Literal[
    "refuse",
    "reset",
    "reset_mid_stream",
    "slow",
    "stall",
    "cut_mid_stream",
    "cut_before_done",
    "error_status",
    "wrong_usage",
    "no_usage",
    "usage_twice",
    "malformed_sse",
    "bad_json_event",
    "error_in_200",
    "frozen_metrics",
    "unhealthy",
    "big_event",
    "null_fields",
]

Style = Literal["crlf", "no_space", "comments", "no_blank", "split"]

STYLES: tuple[Style, ...] = ("crlf", "no_space", "comments", "no_blank", "split")

Mode = Literal["closed", "rst", "headers", "silent", "fin", "end"]

_MODES: Mapping[str, tuple[Mode, ...]] = {
    "refuse": ("closed", "rst"),
    "stall": ("headers", "silent"),
    "cut_mid_stream": ("fin", "end"),
    "cut_before_done": ("end", "fin"),
}

_AFTER_CHUNKS: Mapping[str, int] = {
    "reset_mid_stream": 1,
    "cut_mid_stream": 1,
    "bad_json_event": 1,
    "big_event": 0,
    "stall": 0,
    "error_in_200": 0,
}

PROBE_FAULTS = frozenset({"refuse", "frozen_metrics", "unhealthy"})
"""Faults that are not drawn per generation request."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One thing that goes wrong.

    Attributes:
        kind: what goes wrong.
        count: strikes for the next ``count`` requests (``refuse``: connections, ``unhealthy`` and ``frozen_metrics``:
            probes), then it is gone; None has no end.
        probability: share of the requests it strikes; those it spares do not use up the count.
        seconds: it is gone this long after it was armed; None has no end.
        after_chunks: token chunks that leave before it strikes (with several choices in whole decode steps). The
            default is 1 for ``reset_mid_stream``, ``cut_mid_stream`` and ``bad_json_event``, else 0. A strike always
            comes before the answer is finished.
        mode: ``refuse``: "closed" (the default: no listener, connect fails, the port is kept) or "rst" (accepted, then
            reset); ``stall``: "headers" (the default) or "silent" (not even headers); ``cut_mid_stream``: "fin" (the
            default: the connection ends inside the body) or "end" (the body ends as HTTP wants it, without a finish);
            ``cut_before_done``: "end" (the default) or "fin".
        factor: ``slow``: both latencies times this. ``wrong_usage``: token counts times this.
        delay: ``slow``: seconds added before the first token.
        offset: ``wrong_usage``: added to the token counts after ``factor``.
        status: ``error_status``: the HTTP status.
        body: ``error_status`` and ``error_in_200``: sent as it is, instead of the engine's own words.
        headers: ``error_status``: more response headers, for example Retry-After.
        styles: ``malformed_sse``: what is odd about the event stream; the events take turns.
        size: ``big_event``: bytes added to one event (or to the JSON answer).
    """

    kind: FaultKind
    count: int | None = None
    probability: float = 1.0
    seconds: float | None = None
    after_chunks: int | None = None
    mode: Mode | None = None
    factor: float | None = None
    delay: float = 0.0
    offset: int = 0
    status: int = 500
    body: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    styles: tuple[Style, ...] = STYLES
    size: int = 1024 * 1024

    def __post_init__(self) -> None:
        if not 0.0 < self.probability <= 1.0:
            raise ValueError("probability must be above 0 and at most 1")
        if self.count is not None and self.count < 1:
            raise ValueError("count must be at least 1")
        if self.mode is not None and self.mode not in _MODES.get(self.kind, ()):
            raise ValueError(f"{self.kind} has no mode {self.mode!r}")
        if self.kind == "refuse" and self.how == "closed" and (self.count is not None or self.probability < 1.0):
            raise ValueError("a closed listener cannot count connections: use seconds, or mode 'rst'")
        if not 100 <= self.status <= 599:
            raise ValueError("status must be an HTTP status")
        if any(set(name + value) & {"\r", "\n"} for name, value in self.headers.items()):
            raise ValueError("headers must be single lines")
        for value in (self.seconds, self.after_chunks, self.factor, self.delay, self.size):
            if value is not None and value < 0:
                raise ValueError("times, sizes, chunks and factors must not be negative")

    @property
    def how(self) -> Mode | None:
        """The mode, or the default of the kind."""
        return self.mode or next(iter(_MODES.get(self.kind, ())), None)

    @property
    def chunks(self) -> int:
        """Token chunks before the strike, or the default of the kind."""
        return _AFTER_CHUNKS.get(self.kind, 0) if self.after_chunks is None else self.after_chunks


class _Armed:
    """A fault with what is left of it."""

    __slots__ = ("ends", "fault", "left")

    def __init__(self, fault: Fault, now: float) -> None:
        self.fault = fault
        self.left = fault.count
        self.ends = None if fault.seconds is None else now + fault.seconds


Strikes = Mapping[str, Fault]
"""The faults that strike one request, by kind."""

NONE: Strikes = {}


class Faults:
    """The faults armed in one backend; one fault of a kind at a time, a later one replaces it.

    ``on_change`` is called after every change of what is armed; the server uses it to close and open its listener.
    """

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable coin tosses, not a secret
        self._armed: dict[str, _Armed] = {}
        self.on_change: Callable[[], None] | None = None
        self.arm(*faults)

    def arm(self, *faults: Fault) -> None:
        """Arm ``faults``, each in place of an older one of its kind."""
        now = time.monotonic()
        for fault in faults:
            self._armed[fault.kind] = _Armed(fault, now)
        self._changed()

    def clear(self, kind: str | None = None) -> None:
        """Disarm the fault of ``kind``, or all."""
        if kind is None:
            self._armed.clear()
        else:
            self._armed.pop(kind, None)
        self._changed()

    def active(self, kind: str) -> Fault | None:
        """Return the armed fault of ``kind`` without using it up."""
        armed = self._armed.get(kind)
        if armed is None:
            return None
        if armed.ends is not None and time.monotonic() >= armed.ends:
            self.clear(kind)
            return None
        return armed.fault

    def take(self, kind: str) -> Fault | None:
        """Return the fault of ``kind`` if it strikes now, and count the strike."""
        fault = self.active(kind)
        if fault is None or (fault.probability < 1.0 and self._random.random() >= fault.probability):
            return None
        armed = self._armed[kind]
        if armed.left is not None:
            armed.left -= 1
            if armed.left <= 0:
                self.clear(kind)
        return fault

    def draw(self) -> Strikes:
        """Return the faults that strike the generation request that came in now."""
        if not self._armed:
            return NONE
        drawn = ((kind, self.take(kind)) for kind in list(self._armed) if kind not in PROBE_FAULTS)
        return {kind: fault for kind, fault in drawn if fault is not None}

    def listing(self) -> list[dict[str, object]]:
        """Return what is armed as JSON-like objects, with ``remaining`` strikes and seconds where they end."""
        now = time.monotonic()
        rows: list[dict[str, object]] = []
        for kind in list(self._armed):
            fault = self.active(kind)
            if fault is None:
                continue
            armed = self._armed[kind]
            row: dict[str, object] = msgspec.to_builtins(fault)
            if armed.left is not None:
                row["remaining"] = armed.left
            if armed.ends is not None:
                row["remaining_seconds"] = round(armed.ends - now, 3)
            rows.append(row)
        return rows

    def earliest_end(self) -> float | None:
        """Return the monotonic time at which the next fault ends by itself, or None."""
        return min((armed.ends for armed in self._armed.values() if armed.ends is not None), default=None)

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


class _FaultList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    faults: tuple[Fault, ...]


def parse(raw: bytes) -> Sequence[Fault]:
    """Read faults from JSON: one object, a list of them, or ``{"faults": [...]}``.

    Raises ValueError with what is wrong.
    """
    try:
        document = msgspec.json.decode(raw)
        if isinstance(document, dict) and "faults" in document:
            return msgspec.convert(document, _FaultList).faults
        if isinstance(document, list):
            return msgspec.convert(document, tuple[Fault, ...])
        return (msgspec.convert(document, Fault),)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
