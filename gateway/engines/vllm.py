"""vLLM: the V1 engine's names, with those of older releases accepted.

Full is 503 (``--max-num-queued-reqs``, ``--max-num-queued-tokens``); without those limits it queues without bound. A
closed connection aborts the request, streamed or not. To go on with an assistant message it cuts the rendered chat
behind that message; blanks at its end that the chat template took away are then missing.
"""

from __future__ import annotations

from typing import Final

from gateway.engines.fields import CHAT_FIELDS, COMPLETIONS_FIELDS, EMBEDDINGS_FIELDS, RERANK_FIELDS, TOKEN_FIELDS
from gateway.engines.kind import PATHS, Engine, MetricNames, Resume, Thinking
from gateway.types.call import Operation

_SAMPLING: Final = TOKEN_FIELDS | {
    "allowed_token_ids",
    "bad_words",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guided_whitespace_pattern",
    "include_stop_str_in_output",
    "length_penalty",
    "logprob_token_ids",
    "repetition_detection",
    "return_tokens_as_token_ids",
    "spaces_between_special_tokens",
    "structural_tag",
    "structured_outputs",
    "thinking_token_budget",
    "truncate_prompt_tokens",
    "truncation_side",
    "watermarking",
}
_CHAT: Final = frozenset(
    {
        "add_generation_prompt",
        "add_special_tokens",
        "chat_template_kwargs",
        "continue_final_message",
        "documents",
        "include_reasoning",
        "reasoning",
    }
)

VLLM: Final = Engine(
    kind="vllm",
    ready_path="/health",
    models_path="/v1/models",
    metrics_path="/metrics",
    metrics=MetricNames(
        running=("vllm:num_requests_running",),
        waiting=("vllm:num_requests_waiting",),
        kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        cache_config=("vllm:cache_config_info",),
        preemptions=("vllm:num_preemptions_total", "vllm:num_preemptions"),
    ),
    paths=PATHS,
    overload_statuses=frozenset({429, 503}),
    asks_usage=True,
    continuous_usage=True,
    always_stream=False,
    delta_is_token=False,
    counts_all_choices=True,
    length_field="max_tokens",
    fields={
        Operation.CHAT: CHAT_FIELDS | _SAMPLING | _CHAT,
        Operation.COMPLETIONS: COMPLETIONS_FIELDS | _SAMPLING | {"add_special_tokens", "response_format"},
        Operation.RERANK: RERANK_FIELDS,
        Operation.EMBEDDINGS: EMBEDDINGS_FIELDS | {"add_special_tokens", "truncate_prompt_tokens", "truncation_side"},
    },
    passes_unknown=False,
    context_error=("maximum context length", "context length is only", "maximum input length", "maximum model length"),
    resume=Resume(
        verbatim=False,
        fields={"continue_final_message": True, "add_generation_prompt": False},
        reasoning="reasoning_content",
    ),
    minds_names=True,
    counter="tokenize",
    thinking=Thinking(hiding_field="include_reasoning"),
)
