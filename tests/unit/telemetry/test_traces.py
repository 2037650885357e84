"""Promises of tracing: free when off, right parents and GenAI names when on, never in a request's way."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as OtlpStatus

from gateway.telemetry import spans
from gateway.telemetry.traces import RequestTrace, Stop, TraceContext, Tracer, open_tracer, parse
from gateway.types import ids
from gateway.types.failure import Cause
from gateway.types.tokens import Usage

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
MODEL = "qwen/qwen3-32b"


class Collector:
    """A real OTLP/HTTP receiver on loopback.

    Attributes:
        url: base URL.
        requests: exports as they came.
        paths: the paths they came to.
        status: what it answers with.
    """

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.paths.append(self.path)
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[Span]:
        """All spans that came, by start."""
        found = [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector for one test."""
    running = Collector()
    yield running
    running.close()


@pytest.fixture
def tracer(collector: Collector) -> Iterator[Tracer]:
    """A tracer that exports to the collector."""
    running = open_tracer(collector.url, "1.2.3")
    yield running
    running.shutdown()


def plain(value: AnyValue) -> Any:
    """Return an attribute's value as Python's."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, str(kind))


def attributes(span: Span) -> dict[str, Any]:
    """Return a span's attributes."""
    return {attribute.key: plain(attribute.value) for attribute in span.attributes}


def by_name(collector: Collector) -> dict[str, Span]:
    """Return the spans that came, by name and kind."""
    spans = {f"{span.name} {Span.SpanKind.Name(span.kind)[10:]}": span for span in collector.spans}
    assert len(spans) == len(collector.spans)
    return spans


def failover(tracer: Tracer, traceparent: str = TRACEPARENT) -> list[bytes]:
    """Play a request whose first attempt fails; return what each attempt sends to its backend."""
    trace = tracer.start(traceparent, "chat", MODEL)
    trace.stop(Stop.ADMIT)
    trace.stop(Stop.QUEUE)
    trace.stop(Stop.ROUTE)
    trace.stop(Stop.ATTEMPT)
    first = trace.attempt(1, "own", "Qwen/Qwen3-32B", "http://10.0.0.11:8000/v1")
    first.end(Cause.RESET)
    second = trace.attempt(2, "dashscope", "qwen3-32b", "https://dashscope.test/compatible-mode/v1")
    trace.stop(Stop.STREAM)
    second.end(None, 200)
    trace.stop(Stop.SETTLE)
    trace.end(
        "ok",
        request_id=ids.RequestId(bytes(16)),
        model=MODEL,
        provider="dashscope",
        finish_reason="stop",
        usage=Usage(100, 20, cache_read=64, reasoning=5),
        ttft=0.25,
    )
    return [first.headers(), second.headers()]


class TestContext:
    """W3C trace context, read and written."""

    @given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
    def test_written_context_is_read_back(self, trace_id: int, span_id: int, flags: int) -> None:
        """What is written is read again as the same."""
        context = TraceContext(f"{trace_id:032x}", f"{span_id:016x}", flags)
        assert parse(str(context)) == context

    @pytest.mark.parametrize(
        "traceparent",
        [
            "",
            "00",
            TRACEPARENT[:-1],
            TRACEPARENT + "0",
            TRACEPARENT + "-",
            TRACEPARENT.upper(),
            TRACEPARENT.replace("-", "_"),
            "ff" + TRACEPARENT[2:],
            f"00-{'0' * 32}-{CALLER}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            TRACEPARENT + "\r\nx-evil: 1",
            f"cc{TRACEPARENT[2:]}-x\r\nx-evil: 1",
            f"cc{TRACEPARENT[2:]}-{'x' * 10_000}",
            "00-٤bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ],
    )
    def test_what_is_no_context_is_ignored(self, traceparent: str) -> None:
        """A header that breaks the rules is no context, and never reaches a backend."""
        assert parse(traceparent) is None
        assert Tracer().start(traceparent, "chat", MODEL).attempt(1, "p", "m", "http://x").headers() == b""

    def test_later_version_is_read_as_this_one(self) -> None:
        """A version to come is read by the fields known today; what it adds is left out."""
        assert str(parse(f"cc{TRACEPARENT[2:]}-what-comes")) == TRACEPARENT

    @given(st.text(st.characters(codec=None), max_size=80))
    def test_any_text_is_parsed(self, text: str) -> None:
        """No text makes the parser fail, and a context always makes a clean header line."""
        context = parse(text)
        assert context is None or len(str(context)) == 55


class TestOff:
    """No collector is configured."""

    def test_nothing_is_made(self) -> None:
        """Without a collector and a caller's context every request and attempt shares one object."""
        tracer = open_tracer(None, "1")
        traces = [tracer.start("", "chat", MODEL) for _ in range(3)]
        attempts = [trace.attempt(1, "own", "m", "http://x") for trace in traces]
        assert len({id(thing) for thing in traces}) == len({id(thing) for thing in attempts}) == 1
        assert failover(tracer, "") == [b"", b""]
        tracer.shutdown()

    def test_callers_context_is_passed_on(self) -> None:
        """A caller's own trace reaches the backend unchanged, on every attempt."""
        tracer = open_tracer(None, "1")
        line = f"traceparent: {TRACEPARENT}\r\n".encode()
        assert failover(tracer) == [line, line]

    def test_callers_state_is_passed_on(self) -> None:
        """What other tracing systems have noted goes along with the context, and never without one."""
        tracer = open_tracer(None, "1")
        told = tracer.start(TRACEPARENT, "chat", MODEL, STATE).attempt(1, "own", "m", "http://x").headers()
        assert told == f"traceparent: {TRACEPARENT}\r\ntracestate: {STATE}\r\n".encode()
        assert tracer.start("", "chat", MODEL, STATE).attempt(1, "own", "m", "http://x").headers() == b""

    def test_opentelemetry_is_not_loaded(self) -> None:
        """A process without tracing does not pay for its libraries."""
        script = (
            "import sys; from gateway.telemetry.traces import open_tracer; open_tracer(None, '1'); "
            "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


class TestOn:
    """Spans arrive at a real collector."""

    def test_parents_are_right(self, collector: Collector, tracer: Tracer) -> None:
        """The request hangs under the caller's span, its stops and attempts under the request, all in one trace."""
        failover(tracer)
        tracer.shutdown()
        spans = by_name(collector)
        assert set(spans) == {
            f"chat {MODEL} SERVER",
            "chat Qwen/Qwen3-32B CLIENT",
            "chat qwen3-32b CLIENT",
            *(f"{stop} INTERNAL" for stop in Stop),
        }
        request = spans.pop(f"chat {MODEL} SERVER")
        assert request.trace_id.hex() == TRACE
        assert request.parent_span_id.hex() == CALLER
        for span in spans.values():
            assert span.trace_id == request.trace_id
            assert span.parent_span_id == request.span_id
        assert collector.paths == ["/v1/traces"]

    def test_context_goes_out(self, collector: Collector, tracer: Tracer) -> None:
        """Each attempt hands its backend its own span as the parent, sampled."""
        lines = failover(tracer)
        tracer.shutdown()
        spans = by_name(collector)
        for line, name in zip(lines, ("chat Qwen/Qwen3-32B CLIENT", "chat qwen3-32b CLIENT"), strict=True):
            assert line == f"traceparent: 00-{TRACE}-{spans[name].span_id.hex()}-01\r\n".encode()

    def test_state_goes_out(self, collector: Collector, tracer: Tracer) -> None:
        """The caller's state is in its span and reaches the backend beside the attempt as the parent."""
        trace = tracer.start(TRACEPARENT, "chat", MODEL, STATE)
        line = trace.attempt(1, "own", "m", "http://x").headers()
        trace.end("ok")
        tracer.shutdown()
        assert line.endswith(f"\r\ntracestate: {STATE}\r\n".encode())
        assert by_name(collector)[f"chat {MODEL} SERVER"].trace_state == STATE

    def test_stops_follow_each_other(self, collector: Collector, tracer: Tracer) -> None:
        """A stop ends where the next begins, and all lie within the request."""
        failover(tracer)
        tracer.shutdown()
        spans = by_name(collector)
        request = spans[f"chat {MODEL} SERVER"]
        stops = [spans[f"{stop} INTERNAL"] for stop in Stop]
        for before, after in pairwise(stops):
            assert before.end_time_unix_nano == after.start_time_unix_nano
        assert request.start_time_unix_nano <= stops[0].start_time_unix_nano
        assert stops[-1].end_time_unix_nano <= request.end_time_unix_nano

    def test_names_are_those_of_the_conventions(self, collector: Collector, tracer: Tracer) -> None:
        """Operation, provider, models, usage, address and error have OpenTelemetry's names."""
        failover(tracer)
        tracer.shutdown()
        spans = by_name(collector)
        assert attributes(spans[f"chat {MODEL} SERVER"]) == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "dashscope",
            "gen_ai.request.model": MODEL,
            "gen_ai.response.model": MODEL,
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 64,
            "gen_ai.usage.reasoning.output_tokens": 5,
            "weir.request_id": ids.text(bytes(16)),
            "weir.status": "ok",
        }
        assert attributes(spans["chat Qwen/Qwen3-32B CLIENT"]) == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "own",
            "gen_ai.request.model": "Qwen/Qwen3-32B",
            "server.address": "10.0.0.11",
            "server.port": 8000,
            "error.type": "reset",
            "weir.attempt": 1,
        }
        second = attributes(spans["chat qwen3-32b CLIENT"])
        assert (second["server.address"], second["server.port"]) == ("dashscope.test", 443)
        assert second["http.response.status_code"] == 200
        assert "error.type" not in second
        assert spans["chat Qwen/Qwen3-32B CLIENT"].status.code == OtlpStatus.STATUS_CODE_ERROR
        assert spans["chat qwen3-32b CLIENT"].status.code == OtlpStatus.STATUS_CODE_UNSET

    def test_tokens_are_told_once(self, collector: Collector, tracer: Tracer) -> None:
        """Only one span of a request has usage, so that adding up spans counts no token twice."""
        failover(tracer)
        tracer.shutdown()
        telling = [span for span in collector.spans if any("usage" in name for name in attributes(span))]
        assert [span.kind for span in telling] == [Span.SPAN_KIND_SERVER]

    def test_every_token_class_has_a_name(self, collector: Collector, tracer: Tracer) -> None:
        """No class of tokens is lost on the way into a span."""
        usage = Usage(*range(1, 10))
        tracer.start("", "completions", MODEL).end("ok", model=MODEL, usage=usage)
        tracer.shutdown()
        (span,) = collector.spans
        told = {name: count for name, count in attributes(span).items() if name.startswith("gen_ai.usage.")}
        assert sorted(told.values()) == list(range(1, 10))
        assert span.name == f"text_completion {MODEL}"

    @pytest.mark.parametrize(
        ("status", "is_error"), [("ok", False), ("client_cancel", False), ("upstream_error", True), ("not_found", True)]
    )
    def test_error_is_marked(self, collector: Collector, tracer: Tracer, status: str, is_error: bool) -> None:
        """A request that ended badly is an error with its type; a caller who left is none."""
        tracer.start("", "chat", MODEL).end(status)
        tracer.shutdown()
        (span,) = collector.spans
        assert (span.status.code == OtlpStatus.STATUS_CODE_ERROR) == is_error
        assert attributes(span).get("error.type") == (status if is_error else None)
        assert span.parent_span_id == b""

    def test_torn_request_leaves_no_open_span(self, collector: Collector, tracer: Tracer) -> None:
        """When a request is torn down, its stop and attempt end with it; a second end changes nothing."""
        trace = tracer.start("", "chat", MODEL)
        trace.stop(Stop.ATTEMPT)
        attempt = trace.attempt(1, "own", "m", "http://[::1]:8000")
        trace.end("client_cancel")
        trace.end("ok")
        trace.stop(Stop.SETTLE)
        attempt.end(Cause.ERROR)
        tracer.shutdown()
        spans = by_name(collector)
        assert set(spans) == {f"chat {MODEL} SERVER", "attempt INTERNAL", "chat m CLIENT"}
        assert attributes(spans[f"chat {MODEL} SERVER"])["weir.status"] == "client_cancel"
        aborted = attributes(spans["chat m CLIENT"])
        assert aborted["weir.status"] == "aborted"
        assert aborted["server.address"] == "::1"
        assert "error.type" not in aborted

    def test_unsampled_caller_is_respected(self, collector: Collector, tracer: Tracer) -> None:
        """A caller who does not sample gets no spans, and the backend is told so."""
        unsampled = f"00-{TRACE}-{CALLER}-00"
        assert type(tracer.start(unsampled, "chat", MODEL)) is RequestTrace  # the one that records nothing
        lines = failover(tracer, unsampled)
        tracer.shutdown()
        assert collector.spans == []
        for line in lines:
            context = parse(line.decode().removeprefix("traceparent: ").strip("\r\n"))
            assert context is not None
            assert (context.trace_id, context.flags) == (TRACE, 0)

    def test_hostile_model_name_spoils_no_batch(self, collector: Collector, tracer: Tracer) -> None:
        """A model name that no UTF-8 can carry, or without end, costs neither its span nor its neighbours."""
        for model in ("\ud800", "x" * 1_000_000, "a\x00\nb"):
            tracer.start("", "chat", model).end("not_found")
        failover(tracer)
        tracer.shutdown()
        assert len(collector.spans) == 3 + 9
        assert max(len(span.name) for span in collector.spans) < 200

    def test_resource_names_the_service(self, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
        """Spans come from ``weir`` in its version, unless the operator's environment says another name."""
        for name in (None, "weir-eu"):
            if name is not None:
                monkeypatch.setenv("OTEL_SERVICE_NAME", name)
            tracer = open_tracer(f"{collector.url}/v1/traces", "1.2.3")
            tracer.start("", "chat", MODEL).end("ok")
            tracer.shutdown()
            resource = {
                pair.key: plain(pair.value) for pair in collector.requests[-1].resource_spans[0].resource.attributes
            }
            assert resource["service.name"] == (name or "weir")
            assert resource["service.version"] == "1.2.3"
        assert collector.paths == ["/v1/traces"] * 2

    def test_spans_leave_in_the_background(self, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
        """Spans are exported while the process runs on, not only at its end."""
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        tracer = open_tracer(collector.url, "1")
        tracer.start("", "chat", MODEL).end("ok")
        wait_for(lambda: len(collector.spans) == 1)
        tracer.shutdown()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestBadCollector:
    """The collector is away, slow or refuses."""

    def test_absent_collector_is_harmless(self) -> None:
        """With nobody listening, requests go on as if there were no tracing."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        tracer = open_tracer(url, "1")
        failover(tracer)
        tracer.shutdown(0.1)

    def test_hanging_collector_does_not_hold_up_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A collector that takes a connection and never answers delays shutdown by no more than its limit."""
        monkeypatch.setattr(spans, "_EXPORT_SECONDS", 60)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            tracer = open_tracer(f"http://127.0.0.1:{mute.getsockname()[1]}", "1")
            failover(tracer)
            began = time.monotonic()
            tracer.shutdown(0.1)
            assert time.monotonic() - began < 30  # the export itself would give up after a minute

    @pytest.mark.parametrize("status", [400, 503])
    def test_refusal_does_not_hold_up_the_end(
        self, collector: Collector, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A collector that refuses costs its spans and nothing else."""
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        collector.status = status
        tracer = open_tracer(collector.url, "1")
        failover(tracer)
        wait_for(lambda: bool(collector.requests))
        tracer.shutdown(0.5)

    def test_shutdown_may_be_called_twice(self, collector: Collector, tracer: Tracer) -> None:
        """A second shutdown, and requests after it, do no harm."""
        tracer.shutdown()
        failover(tracer)
        tracer.shutdown()
        assert collector.spans == []
