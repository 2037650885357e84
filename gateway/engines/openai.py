"""External APIs that speak OpenAI's protocol: nothing is known of their load, and their fields are their own.

Full is 429, which carries ``Retry-After`` as a rule, or 529; a 503 is an outage there and counts against health.
"""

from __future__ import annotations

from typing import Final

from gateway.engines.fields import CHAT_FIELDS, COMPLETIONS_FIELDS, EMBEDDINGS_FIELDS, RERANK_FIELDS
from gateway.engines.kind import PATHS, Engine, MetricNames
from gateway.types.call import Operation

OPENAI: Final = Engine(
    kind="openai",
    ready_path=None,
    models_path="/v1/models",
    metrics_path=None,
    metrics=MetricNames(),
    paths=PATHS,
    overload_statuses=frozenset({429, 529}),
    asks_usage=True,
    continuous_usage=False,
    always_stream=False,
    delta_is_token=False,
    counts_all_choices=True,
    length_field="max_tokens",
    fields={
        Operation.CHAT: CHAT_FIELDS,
        Operation.COMPLETIONS: COMPLETIONS_FIELDS,
        Operation.RERANK: RERANK_FIELDS,
        Operation.EMBEDDINGS: EMBEDDINGS_FIELDS,
    },
    passes_unknown=True,
    context_error=("context_length_exceeded", "maximum context length", "context length", "context window"),
    external=True,
    callers_length=True,
)
