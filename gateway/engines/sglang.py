"""SGLang: metrics need ``--enable-metrics``; full is 503 "The request queue is full." (``--max-queued-requests``).

It polls for disconnected clients and aborts their requests. An assistant message to go on with is put behind the
rendered chat as it is. Its tokenizer can be asked for texts (``/tokenize``), not for chats.
"""

from __future__ import annotations

from typing import Final

from gateway.engines.fields import CHAT_FIELDS, COMPLETIONS_FIELDS, EMBEDDINGS_FIELDS, RERANK_FIELDS, TOKEN_FIELDS
from gateway.engines.kind import PATHS, Engine, MetricNames, Resume, Thinking
from gateway.types.call import Operation

_SAMPLING: Final = TOKEN_FIELDS | {
    "ebnf",
    "no_stop_trim",
    "regex",
}
_CHAT: Final = frozenset(
    {
        "chat_template_kwargs",
        "continue_final_message",
        "reasoning",
        "separate_reasoning",
        "stream_reasoning",
    }
)

SGLANG: Final = Engine(
    kind="sglang",
    ready_path="/health",
    models_path="/v1/models",
    metrics_path="/metrics",
    metrics=MetricNames(
        running=("sglang:num_running_reqs",),
        waiting=("sglang:num_queue_reqs",),
        kv_usage=("sglang:token_usage",),
        kv_total_tokens=("sglang:max_total_num_tokens",),
        preemptions=("sglang:num_retracted_requests_total",),
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
        Operation.COMPLETIONS: COMPLETIONS_FIELDS | _SAMPLING | {"json_schema", "response_format"},
        Operation.RERANK: RERANK_FIELDS,
        Operation.EMBEDDINGS: EMBEDDINGS_FIELDS,
    },
    passes_unknown=False,
    context_error=("context length", "maximum allowed length", "input is too long"),
    resume=Resume(fields={"continue_final_message": True}),
    thinking=Thinking(),
    counter="texts",
)
