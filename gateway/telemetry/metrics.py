"""The catalogue: every metric Weir has, declared once; ``docs/metrics.md`` explains each, and a test compares both.

No metric has a label for a team, a key or a user: those are for the ledger, which has no cardinality to fear. Model,
endpoint and backend labels must be names of the configuration, never a caller's text. Nothing here can fail a
request; a family whose source fails is missing from the scrape.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import astuple

from gateway.telemetry.instruments import Fold, Registry
from gateway.types.failure import Cause
from gateway.types.tokens import Usage

UNKNOWN: Final = "unknown"
"""Label of a request for a model that is not in the configuration."""

PARTS: Final = Usage.__struct_fields__[2:]
"""Token classes that are parts of ``prompt`` or ``completion``."""

REQUEST_BUCKETS: Final = tuple(0.01 * 2**i for i in range(17))
"""10 ms to 655 s, doubling, a superset of those of OpenTelemetry's GenAI metrics."""
FIRST_TOKEN_BUCKETS: Final = tuple(0.0025 * 2**i for i in range(16))
"""2.5 ms to 82 s, doubling."""
INTER_TOKEN_BUCKETS: Final = tuple(0.000625 * 2**i for i in range(13))
"""0.6 ms to 2.6 s, doubling."""
QUEUE_BUCKETS: Final = tuple(0.005 * 2**i for i in range(15))
"""5 ms to 82 s, doubling."""
OVERHEAD_BUCKETS: Final = tuple(0.000025 * 2**i for i in range(15))
"""25 us to 0.4 s, doubling."""
ROUTE_BUCKETS: Final = tuple(0.000005 * 2**i for i in range(13))
"""5 us to 20 ms, doubling."""


class GatewayMetrics(Registry):
    """All metrics of a Weir process.

    What is counted where it happens has an attribute here with ``add`` or ``observe``; what is kept elsewhere is
    bound: ``metrics.bind("weir_unshipped_bytes", lambda: shipper.unshipped)``.

    Args:
        version: version of Weir, for ``weir_build_info``.
    """

    def __init__(self, version: str) -> None:
        super().__init__()
        self._declare_requests()
        self._declare_backends()
        self._declare_gate()
        self._declare_keeping()
        self._declare_metering()
        self._declare_process(version)

    # Declarations, in the order of docs/metrics.md

    def _declare_requests(self) -> None:
        self.requests = self.counter(
            "weir_requests_total", "Requests that ended, by how.", "operation", "model", "status"
        )
        self.request_duration = self.histogram(
            "weir_request_duration_seconds",
            "Time from the whole request to the end of its answer.",
            "operation",
            "model",
            buckets=REQUEST_BUCKETS,
        )
        self.time_to_first_token = self.histogram(
            "weir_time_to_first_token_seconds",
            "Time from the whole request to the first output of its answer.",
            "model",
            "endpoint",
            buckets=FIRST_TOKEN_BUCKETS,
        )
        self.inter_token = self.histogram(
            "weir_inter_token_seconds",
            "Mean time between the tokens of an answer.",
            "model",
            "endpoint",
            buckets=INTER_TOKEN_BUCKETS,
        )
        self.tokens = self.counter(
            "weir_tokens_total",
            "Tokens of metered answers; prompt and completion are totals, the other classes parts of them.",
            "model",
            "class",
        )
        self.overhead = self.histogram(
            "weir_overhead_seconds",
            "Time a request spent in the gateway and not waiting for a backend.",
            buckets=OVERHEAD_BUCKETS,
        )
        self.gauge("weir_inflight_requests", "Inference requests that are being answered.")
        self.gauge("weir_open_connections", "Open connections of callers.")

    def _declare_backends(self) -> None:
        self.attempts = self.counter(
            "weir_attempts_total", "Upstream tries that ended, by outcome.", "backend", "outcome"
        )
        self.upstream_failures = self.counter(
            "weir_upstream_failures_total", "Upstream tries that failed, by cause.", "backend", "cause"
        )
        self.continuations = self.counter(
            "weir_continuations_total", "Streams that broke before their end, by what became of them.", "outcome"
        )
        self.replayed_tokens = self.counter(
            "weir_replayed_tokens_total",
            "Tokens that backends read or made once more to go on with answers that had broken.",
            "model",
        )
        self.hedges = self.counter(
            "weir_hedges_total", "Requests sent to a second backend because the first was slow to begin.", "outcome"
        )
        self.drains = self.counter(
            "weir_drains_total", "Answers read on after the caller had left, because the backend bills on.", "outcome"
        )
        self.gauge("weir_drains_active", "Answers that are being read on after their callers have left.")
        self.gauge("weir_retry_budget_remaining", "Retries that may still be made in the current window.")
        self.gauge("weir_backend_up", "Whether a backend may be sent requests: 1 or 0.", "backend", fold=Fold.MIN)
        self.gauge("weir_backend_in_flight", "Requests sent to a backend and not ended.", "backend")
        self.gauge("weir_backend_waiting", "Requests queued on a backend, as it reported.", "backend", fold=Fold.MAX)
        self.gauge(
            "weir_backend_kv_usage",
            "Share of a backend's KV cache in use, 0 to 1, as it reported.",
            "backend",
            fold=Fold.MAX,
        )
        self.gauge(
            "weir_backend_saturation", "How full a backend is: 1 when something is used up.", "backend", fold=Fold.MAX
        )
        self.gauge(
            "weir_backend_ttft_error",
            "Running median of the relative error of predicted times to first token.",
            "backend",
            fold=Fold.MAX,
        )
        self.backend_ejections = self.counter(
            "weir_backend_ejections_total", "Times a backend was ejected for failing.", "backend"
        )
        self._declare_upstream_keys()
        self.usage_disagreements = self.counter(
            "weir_usage_disagreements_total",
            "Answers whose usage, as the backend reported it, is far from the tokens that were seen.",
            "backend",
        )

    def _declare_upstream_keys(self) -> None:
        self.counter(
            "weir_upstream_key_requests_total",
            "Requests made with one of several keys of a backend, by how they ended: ok, refused (the key), failed.",
            "backend",
            "upstream_key",
            "outcome",
        )
        self.gauge(
            "weir_upstream_key_resting",
            "Whether one of several keys of a backend rests because it was refused: 1 or 0.",
            "backend",
            "upstream_key",
            fold=Fold.MAX,
        )

    def _declare_gate(self) -> None:
        self.route_drops = self.counter(
            "weir_route_drops_total", "Candidates that routing dropped, by filter.", "filter"
        )
        self.route_seconds = self.histogram(
            "weir_route_seconds", "Time of one routing decision.", buckets=ROUTE_BUCKETS
        )
        self.route_decisions = self.counter(
            "weir_route_decisions_total",
            "Routing decisions that were drawn to be kept, by what became of them.",
            "outcome",
        )
        self.limit_refusals = self.counter(
            "weir_limit_refusals_total", "Requests refused because of a limit of their key or a budget.", "limit"
        )
        self.budget_shortened = self.counter(
            "weir_budget_shortened_total", "Requests whose answer was shortened to what a budget had left."
        )
        self.budget_excess = self.counter(
            "weir_budget_excess_usd_total", "What answers came to beyond what was reserved for them; nobody is charged."
        )
        self.gauge("weir_budget_holds", "Requests that hold something of a budget.")
        self.gauge("weir_budget_stale_usd", "Leased of budgets and perhaps spent by a process that was lost.")
        self.gauge(
            "weir_shared_limits_away",
            "Whether limits hold on each host alone because Redis cannot be used: 1 or 0.",
            fold=Fold.MAX,
        )
        self.counter("weir_budget_alerts_total", "Budget alerts sent to the webhook, by outcome of the try.", "outcome")
        self.auth_failures = self.counter(
            "weir_auth_failures_total", "Requests refused for their key, by reason.", "reason"
        )
        self.gauge(
            "weir_admission_queued", "Requests that wait for room on the replicas of their model.", "model", "band"
        )
        self.admission_wait = self.histogram(
            "weir_admission_wait_seconds",
            "Time requests waited for room, of those that had to.",
            "model",
            "band",
            buckets=QUEUE_BUCKETS,
        )
        self.admission_refusals = self.counter(
            "weir_admission_refusals_total",
            "Requests turned away because the replicas of their model were full.",
            "model",
            "band",
            "reason",
        )

    def _declare_keeping(self) -> None:
        self.repetitions = self.counter(
            "weir_repetitions_total",
            "Requests with an Idempotency-Key, or that asked for the response cache, by what became of them.",
            "outcome",
        )
        self.contents = self.counter(
            "weir_contents_total",
            "Answers of teams whose prompts and answers are stored, by what became of that.",
            "outcome",
        )
        self.unkept = self.counter(
            "weir_unkept_total", "What was to be kept of answers and could not be handed to the keeper.", "method"
        )

    def _declare_metering(self) -> None:
        self.counter("weir_journal_bytes_total", "Bytes appended to the metering journal.")
        self.counter("weir_journal_records_total", "Records appended to the metering journal.")
        self.counter("weir_journal_syncs_total", "Group commits of the metering journal.")
        self.counter("weir_journal_sync_seconds_total", "Time spent in group commits.")
        self.counter("weir_journal_failures_total", "Writes and syncs of the metering journal that failed.")
        self.gauge(
            "weir_journal_failed",
            "Whether the journal cannot be written, so that requests are refused: 1 or 0.",
            fold=Fold.MAX,
        )
        self.gauge("weir_unshipped_bytes", "Journal bytes not yet in the ledger.")
        self.gauge("weir_oldest_unshipped_seconds", "Age of the oldest record not yet in the ledger.", fold=Fold.MAX)
        self.counter("weir_shipper_records_total", "Journal records the shipper has moved to the ledger.")
        self.counter("weir_shipper_seconds_total", "CPU time of the shipper.")
        self.orphans = self.counter("weir_orphans_total", "Attempts ended by recovery because their process had died.")
        self.counter("weir_segments_quarantined_total", "Journal segments put aside for a person to look at.")
        self.ledger_conflicts = self.counter(
            "weir_ledger_conflicts_total", "Ledger rows delivered again and left as they were."
        )
        self.gauge(
            "weir_database_away",
            "Whether this gateway started without its database and it is not there yet: 1 or 0.",
            fold=Fold.MAX,
        )
        self.gauge("weir_outbox_items", "Deliveries to sinks of exports, by state.", "state", fold=Fold.MAX)
        self.counter("weir_outbox_tries_total", "Tries to deliver to a sink of exports, by outcome.", "outcome")

    def _declare_process(self, version: str) -> None:
        self.config_reloads = self.counter(
            "weir_config_reloads_total", "Reloads of the configuration, by outcome.", "outcome"
        )
        for outcome in ("accepted", "refused"):  # an alert on the increase would not see a series begin
            self.config_reloads.add((outcome,), 0)
        self.gauge("weir_config_version", "Version of the configuration in force.", fold=Fold.MIN)
        build = self.gauge("weir_build_info", "Always 1; the label names the build.", "version", fold=Fold.MAX)
        build.bind(lambda: {(version,): 1.0})

    # What one event adds to several metrics

    def request(self, operation: str, model: str, status: str, duration: float) -> None:
        """Count a request that ended.

        Args:
            operation: ``chat``, ``completions`` or ``embeddings``, or a word for a request that was not read so far.
            model: model id of the configuration, or ``""`` when the caller named none that is in it.
            status: ``ok`` or ``client_cancel``, else the ``error_type`` of the error the caller was told.
            duration: seconds from the whole request to the end of the answer.
        """
        model = model or UNKNOWN
        self.requests.add((operation, model, status))
        self.request_duration.observe((operation, model), duration)

    def answer(self, model: str, endpoint: str, usage: Usage, ttft: float | None, generation: float) -> None:
        """Count the tokens and the pace of a metered answer; once per request, never for a failed attempt.

        Args:
            model: model id of the configuration.
            endpoint: slug of the endpoint.
            usage: tokens as metered.
            ttft: seconds from the whole request to the first output, or None when none was seen.
            generation: seconds from the first output to the last, 0 for an answer that came in one piece.
        """
        self.tokens.add((model, "prompt"), usage.prompt)
        self.tokens.add((model, "completion"), usage.completion)
        counts = astuple(usage)[2:]
        if any(counts):
            for part, count in zip(PARTS, counts, strict=True):
                if count:
                    self.tokens.add((model, part), count)
        if ttft is not None:
            self.time_to_first_token.observe((model, endpoint), ttft)
        if generation > 0 and usage.completion > 1:
            self.inter_token.observe((model, endpoint), generation / (usage.completion - 1))

    def attempt(self, backend: str, cause: Cause | None) -> None:
        """Count an upstream try that ended: well (``cause`` None), or why not.

        A refusal of the request itself, a caller who left and a lost race are outcomes, not failures of the backend.
        """
        if cause is None:
            self.attempts.add((backend, "ok"))
        elif cause is Cause.REFUSED or cause is Cause.ABORTED or cause is Cause.HEDGED:
            self.attempts.add((backend, cause.value))
        else:
            self.attempts.add((backend, "failed"))
            self.upstream_failures.add((backend, cause.value))
