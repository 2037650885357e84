"""Text Generation Inference: full is 429 at once (``--max-concurrent-requests``), a failed generation 424.

It stops a request when its response channel closes. It gives one choice per chat and has no embeddings; bad input,
too long prompts among it, is 422. Its gauges have no KV usage, but the tokens of the running batch and the most
tokens a batch can hold. An assistant message at the end of a chat loses its last blanks or is taken for a whole turn,
so only text completions are gone on with. It renders and tokenizes a chat (``/chat_tokenize``), and its templates take
no variables from callers: whether it thinks cannot be said.
"""

from __future__ import annotations

from typing import Final

from gateway.engines.fields import CHAT_FIELDS, COMPLETIONS_FIELDS
from gateway.engines.kind import PATHS, Engine, MetricNames, Resume
from gateway.types.call import Operation

TGI: Final = Engine(
    kind="tgi",
    ready_path="/health",
    models_path="/v1/models",
    metrics_path="/metrics",
    metrics=MetricNames(
        running=("tgi_batch_current_size",),
        waiting=("tgi_queue_size",),
        kv_used_tokens=("tgi_batch_current_max_tokens",),
        kv_total_tokens=("tgi_batch_max_total_tokens",),
    ),
    paths={operation: PATHS[operation] for operation in (Operation.CHAT, Operation.COMPLETIONS)},
    overload_statuses=frozenset({429}),
    asks_usage=True,
    continuous_usage=False,
    always_stream=False,
    delta_is_token=True,
    counts_all_choices=True,
    length_field="max_tokens",
    fields={
        Operation.CHAT: (CHAT_FIELDS - {"n"}) | {"guideline", "tool_prompt"},
        Operation.COMPLETIONS: (COMPLETIONS_FIELDS - {"n"}) | {"repetition_penalty"},
    },
    passes_unknown=False,
    context_error=("`inputs` tokens + `max_new_tokens` must be", "`inputs` must have less than"),
    neutral=(("top_p", 1),),
    resume=Resume(chat=False),
    counter="chat_tokenize",
)
