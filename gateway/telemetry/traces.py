"""Traces: W3C context in and out, one span per stop of a request and one per attempt.

The classes here are the interface and, at the same time, tracing that is off: they record nothing and allocate
nothing, except to pass a caller's ``traceparent`` and ``tracestate`` on to the backend unchanged. ``open_tracer``
returns the recording ones (``gateway.telemetry.spans``) when an OTLP collector is configured; only then is
OpenTelemetry imported. No prompt, key or answer is ever part of a span, and no method here raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.types.errors import Unavailable
from gateway.types.failure import Cause
from gateway.types.tokens import NO_USAGE, Usage


class Stop(StrEnum):
    """The stops of a request, in order."""

    ADMIT = "admit"
    QUEUE = "queue"
    ROUTE = "route"
    ATTEMPT = "attempt"
    STREAM = "stream"
    SETTLE = "settle"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """What a ``traceparent`` says: the ids in hexadecimal, and the flags (bit 0: sampled)."""

    trace_id: str
    span_id: str
    flags: int

    def __str__(self) -> str:
        """Return the context as a ``traceparent`` of version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
_LONGEST: Final = 256


def parse(traceparent: str) -> TraceContext | None:
    """Return the context in ``traceparent``, or None when it holds none.

    After W3C Trace Context, §3.2: what a later version appends is left out.
    """
    match = _TRACEPARENT.fullmatch(traceparent.strip(" \t")) if len(traceparent) <= _LONGEST else None
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return TraceContext(match[2], match[3], int(match[4], 16))


def header_lines(context: TraceContext, state: str = "") -> bytes:
    """Return the header lines that hand ``context`` to a backend, and the ``state`` that came with it."""
    lines = f"traceparent: {context}\r\n"
    if state:
        lines += f"tracestate: {state}\r\n"
    return lines.encode("ascii")


class AttemptTrace:
    """The trace of one attempt. This one records nothing.

    Args:
        line: header lines for the backend, each ended by CRLF, or ``b""``.
    """

    __slots__ = ("_line",)

    def __init__(self, line: bytes) -> None:
        self._line = line

    def headers(self) -> bytes:
        """Return the header lines that hand the context to the backend, each ended by CRLF; ``b""`` without one."""
        return self._line

    def end(self, cause: Cause | None = None, http_status: int = 0) -> None:
        """The attempt is over.

        Args:
            cause: why it failed, or None when it did not.
            http_status: what the backend answered, 0 when it did not.
        """


class RequestTrace:
    """The trace of one request. This one records nothing.

    Args:
        attempt: what each attempt of the request is traced by.
    """

    __slots__ = ("_attempt",)

    def __init__(self, attempt: AttemptTrace) -> None:
        self._attempt = attempt

    def stop(self, name: Stop) -> None:
        """The request has come to the stop ``name``; the stop before it is over."""

    def routed(self, route: str, *, kept: bool) -> None:
        """The request was routed.

        Args:
            route: the decision, as ``x-weir-route`` has it.
            kept: whether the whole decision is kept, for ``weir route replay``.
        """

    def attempt(self, number: int, provider: str, model: str, url: str) -> AttemptTrace:  # noqa: ARG002 - interface
        """An attempt begins.

        Args:
            number: 1-based.
            provider: slug of the provider.
            model: the model as the backend knows it.
            url: address of the backend.
        """
        return self._attempt

    def end(
        self,
        status: str,
        *,
        request_id: bytes = b"",
        model: str = "",
        provider: str = "",
        finish_reason: str = "",
        usage: Usage = NO_USAGE,
        ttft: float | None = None,
    ) -> None:
        """The request is over, and with it whatever of it has not ended. Further calls do nothing.

        Args:
            status: as in ``GatewayMetrics.request``; anything but ``ok`` and ``client_cancel`` is an error.
            request_id: the gateway's id of the request.
            model: model id that answered, ``""`` when none did.
            provider: provider that answered.
            finish_reason: of the first choice.
            usage: tokens as metered.
            ttft: seconds from the whole request to the first output, or None.
        """


class Tracer:
    """Where traces begin. This one records nothing."""

    __slots__ = ()

    def start(self, traceparent: str, operation: str, model: str, tracestate: str = "") -> RequestTrace:  # noqa: ARG002 - interface
        """A request begins.

        Args:
            traceparent: the caller's ``traceparent`` header, ``""`` without one; what is not one is ignored.
            operation: ``chat``, ``completions`` or ``embeddings``.
            model: the model as the caller named it.
            tracestate: the caller's ``tracestate`` header in printable ASCII, or ``""``; nothing without a context.
        """
        if not traceparent:
            return _NOTHING
        context = parse(traceparent)
        return _NOTHING if context is None else RequestTrace(AttemptTrace(header_lines(context, tracestate)))

    def shutdown(self, seconds: float = 5.0) -> None:
        """Export what is left, for at most ``seconds``. Blocks; call it in a thread of its own."""


_NOTHING: Final = RequestTrace(AttemptTrace(b""))


def open_tracer(endpoint: str | None, version: str) -> Tracer:
    """Return the tracer of this process; call it once, after any fork.

    Sampling, batch sizes, headers for the collector and the like are set by OpenTelemetry's own environment variables.

    Args:
        endpoint: base URL of an OTLP/HTTP collector, such as ``http://localhost:4318``; None turns tracing off.
        version: version of Weir, for the resource.

    Raises:
        Unavailable: those variables are of no use.
    """
    if endpoint is None:
        return Tracer()
    from gateway.telemetry.spans import SpanTracer  # noqa: PLC0415 - OpenTelemetry is loaded only where it is used

    try:
        return SpanTracer(endpoint, version)
    except ValueError as error:  # names the number that does not fit, not the variable
        raise Unavailable(f"what OTEL_* in the environment say of traces cannot be: {error}") from error
