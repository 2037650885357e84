"""Recorded traces: OpenTelemetry spans under the GenAI names, exported by OTLP/HTTP from a background thread.

A request is a span of kind SERVER; its children are its stops (INTERNAL) and its attempts (CLIENT), so that an
engine's own spans hang under the attempt that reached it. Tokens are on the request's span only: a tool that adds up
all spans counts them once. A collector that is slow, full or away costs spans, never a request.

Names: OpenTelemetry's semantic conventions for generative AI as of 2026 (``gen_ai.*``), which are still marked as in
development; those of our own begin with ``weir.``.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from time import time_ns
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Tracer as OtelTracer

from gateway.telemetry.traces import AttemptTrace, RequestTrace, Stop, TraceContext, Tracer, header_lines, parse
from gateway.types import ids
from gateway.types.failure import Cause
from gateway.types.tokens import NO_USAGE, Usage

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_STATUS: Final = "http.response.status_code"
REQUEST_ID: Final = "weir.request_id"
STATUS: Final = "weir.status"
ATTEMPT: Final = "weir.attempt"
ROUTE: Final = "weir.route"
DECISION_KEPT: Final = "weir.decision_kept"

USAGE: Final = {
    "prompt": "gen_ai.usage.input_tokens",
    "completion": "gen_ai.usage.output_tokens",
    "cache_read": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_write.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "audio_prompt": "gen_ai.usage.audio.input_tokens",
    "audio_completion": "gen_ai.usage.audio.output_tokens",
    "image_prompt": "gen_ai.usage.image.input_tokens",
    "image_completion": "gen_ai.usage.image.output_tokens",
    "cache_write_1h": "gen_ai.usage.cache_write_1h.input_tokens",
}
"""Attribute by field of ``Usage``; as there, the first two are totals and the others parts."""

OPERATIONS: Final = {"completions": "text_completion"}
"""Our names of operations where the conventions have another."""

_PATH: Final = "/v1/traces"
_EXPORT_SECONDS: Final = 5.0
_LONGEST: Final = 128
_UNEVENTFUL: Final = frozenset({"ok", "client_cancel"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Exporter(OTLPSpanExporter):
    """An exporter that can be stopped twice: by the processor after its last batch, and by whoever cannot wait."""

    _stopped = False

    def shutdown(self) -> None:
        """Give up what is being sent or tried again."""
        if not self._stopped:
            self._stopped = True
            super().shutdown()  # type: ignore[no-untyped-call]  # the library gives it no types


def _address(endpoint: str) -> str:
    """Return where a collector takes spans."""
    base = endpoint.rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


def takes_spans(endpoint: str, seconds: float) -> bool:
    """Return whether a collector takes spans as a tracer sends them, headers, certificates and all. Blocks."""
    exporter = _Exporter(_address(endpoint), timeout=seconds)
    try:
        return exporter.export(()) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()


class SpanTracer(Tracer):
    """Records spans and exports them.

    Args:
        endpoint: base URL of the collector.
        version: version of Weir.
    """

    __slots__ = ("_exporter", "_provider", "_tracer")

    def __init__(self, endpoint: str, version: str) -> None:
        self._exporter = _Exporter(_address(endpoint), timeout=_EXPORT_SECONDS)
        ours = Resource({"service.name": "weir", "service.version": version})
        self._provider = TracerProvider(
            resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("weir", version)

    def start(self, traceparent: str, operation: str, model: str, tracestate: str = "") -> RequestTrace:
        """A request begins; see ``Tracer``."""
        parent = parse(traceparent) if traceparent else None
        operation = OPERATIONS.get(operation, operation)
        model = _safe(model)
        span = self._tracer.start_span(
            f"{operation} {model}",
            Context() if parent is None else _remote(parent, tracestate),
            SpanKind.SERVER,
            {OPERATION: operation, REQUEST_MODEL: model},
        )
        if not span.is_recording():
            return RequestTrace(AttemptTrace(_lines(span)))
        return RequestSpan(self._tracer, span, operation)

    def shutdown(self, seconds: float = 5.0) -> None:
        """Export what is left; see ``Tracer``."""
        # In a thread, because an export that hangs or is tried again may last longer than a process may take to stop.
        flush = threading.Thread(target=self._provider.shutdown, name="trace-shutdown", daemon=True)
        flush.start()
        flush.join(seconds)
        self._exporter.shutdown()


class RequestSpan(RequestTrace):
    """A request that is recorded."""

    __slots__ = ("_attempts", "_context", "_operation", "_span", "_stop", "_tracer")

    def __init__(self, tracer: OtelTracer, span: Span, operation: str) -> None:
        self._tracer = tracer
        self._span = span
        self._operation = operation
        self._context = set_span_in_context(span, Context())
        self._stop: Span | None = None
        self._attempts: list[AttemptSpan] = []

    def stop(self, name: Stop) -> None:
        """The request has come to the stop ``name``; see ``RequestTrace``."""
        if not self._span.is_recording():
            return
        now = time_ns()
        if self._stop is not None:
            self._stop.end(now)
        self._stop = self._tracer.start_span(name.value, self._context, SpanKind.INTERNAL, start_time=now)

    def routed(self, route: str, *, kept: bool) -> None:
        """The request was routed; see ``RequestTrace``."""
        self._span.set_attribute(ROUTE, route)
        self._span.set_attribute(DECISION_KEPT, kept)

    def attempt(self, number: int, provider: str, model: str, url: str) -> AttemptTrace:
        """An attempt begins; see ``RequestTrace``."""
        host, port = _server(url)
        span = self._tracer.start_span(
            f"{self._operation} {model}",
            self._context,
            SpanKind.CLIENT,
            {
                OPERATION: self._operation,
                PROVIDER: provider,
                REQUEST_MODEL: model,
                SERVER_ADDRESS: host,
                SERVER_PORT: port,
                ATTEMPT: number,
            },
        )
        attempt = AttemptSpan(span)
        self._attempts.append(attempt)
        return attempt

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
        """The request is over; see ``RequestTrace``."""
        span = self._span
        if not span.is_recording():
            return
        for attempt in self._attempts:
            attempt.end(Cause.ABORTED)
        if self._stop is not None:
            self._stop.end()
        span.set_attribute(STATUS, status)
        if request_id:
            span.set_attribute(REQUEST_ID, ids.text(request_id))
        if model:
            span.set_attribute(RESPONSE_MODEL, model)
            span.set_attribute(PROVIDER, provider)
        if finish_reason:
            span.set_attribute(FINISH_REASONS, (_safe(finish_reason),))
        if ttft is not None:
            span.set_attribute(FIRST_CHUNK, ttft)
        for part, attribute in USAGE.items():
            if count := getattr(usage, part):
                span.set_attribute(attribute, count)
        if status not in _UNEVENTFUL:
            _mark_failed(span, status)
        span.end()


class AttemptSpan(AttemptTrace):
    """An attempt that is recorded."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        super().__init__(_lines(span))
        self._span = span

    def end(self, cause: Cause | None = None, http_status: int = 0) -> None:
        """The attempt is over; see ``AttemptTrace``. Further calls do nothing."""
        span = self._span
        if not span.is_recording():
            return
        if http_status:
            span.set_attribute(HTTP_STATUS, http_status)
        if cause is Cause.ABORTED:
            span.set_attribute(STATUS, cause.value)
        elif cause is not None:
            _mark_failed(span, cause.value)
        span.end()


def _mark_failed(span: Span, error_type: str) -> None:
    span.set_attribute(ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))


def _remote(context: TraceContext, state: str) -> Context:
    """Return the caller's context as OpenTelemetry's."""
    return set_span_in_context(
        NonRecordingSpan(
            SpanContext(
                int(context.trace_id, 16),
                int(context.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(context.flags),
                trace_state=TraceState.from_header([state]) if state else None,
            )
        ),
        Context(),
    )


def _lines(span: Span) -> bytes:
    """Return the header lines that make ``span`` the parent of what a backend records."""
    context = span.get_span_context()
    ours = TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags & 1)
    return header_lines(ours, context.trace_state.to_header())


def _safe(text: str) -> str:
    """Return a caller's or engine's text as an attribute: short, and nothing that would spoil the batch it is in."""
    return text[:_LONGEST].encode("utf-8", "replace").decode("utf-8")


@lru_cache(1024)
def _server(url: str) -> tuple[str, int]:
    """Return host and port of a backend's address."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
