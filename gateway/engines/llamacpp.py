"""llama.cpp's server: metrics need ``--metrics``; it queues without bound and answers 503 while it loads.

A streamed answer stops as soon as its connection closes, a whole one may run to its end, hence ``always_stream``. Usage
counts one choice only, however many were asked for. While every slot is busy a request gets no byte, not even headers.
It goes on with an assistant message at the end of a chat, put behind the rendered chat as it is, unless
``--no-prefill-assistant`` says otherwise, and refuses that while thinking is on. Whole answers then repeat the message,
streams as a rule do not. In prefill it looks for callers who left only after a second in which nobody asked it
anything, its metrics included. What it finds wrong only once it has begun to handle a request is 500.
"""

from __future__ import annotations

from typing import Final

from gateway.engines.fields import CHAT_FIELDS, COMPLETIONS_FIELDS, EMBEDDINGS_FIELDS, RERANK_FIELDS, SAMPLING_FIELDS
from gateway.engines.kind import PATHS, Engine, MetricNames, Resume, Thinking
from gateway.types.call import Operation

_SAMPLING: Final = SAMPLING_FIELDS | {
    "cache_prompt",
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
    "dynatemp_range",
    "grammar",
    "json_schema",
    "min_keep",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "n_probs",
    "post_sampling_probs",
    "repeat_last_n",
    "repeat_penalty",
    "samplers",
    "top_n_sigma",
    "typical_p",
    "xtc_probability",
    "xtc_threshold",
}
_CHAT: Final = frozenset(
    {
        "add_generation_prompt",
        "chat_template_kwargs",
        "parse_tool_calls",
        "reasoning",
        "reasoning_format",
        "thinking_budget_tokens",
    }
)

LLAMACPP: Final = Engine(
    kind="llamacpp",
    ready_path="/health",
    models_path="/v1/models",
    metrics_path="/metrics",
    metrics=MetricNames(
        running=("llamacpp:requests_processing",),
        waiting=("llamacpp:requests_deferred",),
        kv_usage=("llamacpp:kv_cache_usage_ratio",),
    ),
    paths=PATHS,
    overload_statuses=frozenset({429, 503}),
    asks_usage=True,
    continuous_usage=False,
    always_stream=True,
    delta_is_token=True,
    counts_all_choices=False,
    length_field="max_tokens",
    fields={
        Operation.CHAT: CHAT_FIELDS | _SAMPLING | _CHAT,
        Operation.COMPLETIONS: COMPLETIONS_FIELDS | _SAMPLING,
        Operation.RERANK: RERANK_FIELDS,
        Operation.EMBEDDINGS: EMBEDDINGS_FIELDS,
    },
    passes_unknown=False,
    probe_pause=1.5,
    context_error=("exceeds the available context size", "exceed_context_size"),
    request_errors=(
        "failed to parse tool call arguments",
        "image input is not supported",
        "audio input is not supported",
        "unknown reasoning format",
    ),
    resume=Resume(template_arguments={"enable_thinking": False}, always=True),
    counter="template",
    thinking=Thinking(budget_field="thinking_budget_tokens"),
)
