"""Body fields of inference requests: which ones callers may send, and which ones never leave the gateway.

Engines trust whoever reaches them, so a field that names another tenant's state, the host's files or network, or the
gateway's own backends is a hole when callers can set it. ``FORBIDDEN`` holds those by name with the reason; they are
dropped for every kind, whatever its pass-list says. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_ANOTHER_TENANT: Final = "names or shares state of other requests in the engine"
_KV_TRANSFER: Final = "steers the transfer of KV cache blocks between hosts"
_PLACEMENT: Final = "chooses the worker inside the engine and so undoes its balancing"
_CODE: Final = "is code or a template that the engine would run"
_HOST: Final = "reaches files, adapters or media readers of the engine's host"
_DESTINATION: Final = "names a destination or credentials, which only the configuration may"
_QUEUE: Final = "jumps the engine's queue ahead of other callers"
_IDENTITY: Final = "replaces the request's identity, which the gateway gives"
_INTERNALS: Final = "returns or changes internals of the engine that no answer needs"
_UNCOUNTED: Final = "changes how many tokens are made without showing in the limit that was reserved"
_GATEWAY: Final = "is addressed to the gateway, not to a backend"

FORBIDDEN: Final[Mapping[str, str]] = {
    # llama.cpp
    "id_slot": _ANOTHER_TENANT,
    "slot_id": _ANOTHER_TENANT,
    "n_cache_reuse": _ANOTHER_TENANT,
    "n_cmpl": _UNCOUNTED,
    "lora": _HOST,
    "chat_format": _INTERNALS,
    "chat_parser": _INTERNALS,
    "backend_sampling": _INTERNALS,
    # vLLM
    "kv_transfer_params": _KV_TRANSFER,
    "ec_transfer_params": _KV_TRANSFER,
    "vllm_xargs": _KV_TRANSFER,
    "mm_processor_kwargs": _HOST,
    "media_io_kwargs": _HOST,
    "chat_template": _CODE,
    "logits_processors": _CODE,
    "prompt_embeds": _CODE,
    "use_beam_search": _UNCOUNTED,
    "best_of": _UNCOUNTED,
    "stream_interval": _INTERNALS,
    # SGLang
    "bootstrap_host": _KV_TRANSFER,
    "bootstrap_port": _KV_TRANSFER,
    "bootstrap_room": _KV_TRANSFER,
    "disagg_prefill_dp_rank": _KV_TRANSFER,
    "data_parallel_rank": _PLACEMENT,
    "routed_dp_rank": _PLACEMENT,
    "custom_logit_processor": _CODE,
    "custom_params": _CODE,
    "session_params": _ANOTHER_TENANT,
    "extra_key": _ANOTHER_TENANT,
    "ngram_corpus_id": _ANOTHER_TENANT,
    "custom_labels": _INTERNALS,
    "return_hidden_states": _INTERNALS,
    "return_routed_experts": _INTERNALS,
    "lora_path": _HOST,
    "images_config": _HOST,
    # several engines
    "cache_salt": _ANOTHER_TENANT,
    "priority": _QUEUE,
    "rid": _IDENTITY,
    "request_id": _IDENTITY,
    "adapter_id": _HOST,
    "adapter_source": _HOST,
    "api_token": _DESTINATION,
    # client libraries in the role of a backend, and their proxies
    "api_base": _DESTINATION,
    "base_url": _DESTINATION,
    "api_key": _DESTINATION,
    "api_version": _DESTINATION,
    "organization": _DESTINATION,
    "custom_llm_provider": _DESTINATION,
    "deployment_id": _DESTINATION,
    "model_list": _DESTINATION,
    "user_config": _DESTINATION,
    "fallbacks": _DESTINATION,
    "context_window_fallback_dict": _DESTINATION,
    "headers": _DESTINATION,
    "extra_headers": _DESTINATION,
    "extra_query": _DESTINATION,
    "extra_body": _DESTINATION,
    "proxy_server_request": _DESTINATION,
    "litellm_params": _DESTINATION,
    "vertex_credentials": _DESTINATION,
    "vertex_project": _DESTINATION,
    "vertex_location": _DESTINATION,
    "aws_access_key_id": _DESTINATION,
    "aws_secret_access_key": _DESTINATION,
    "aws_session_token": _DESTINATION,
    "aws_region_name": _DESTINATION,
    "aws_role_name": _DESTINATION,
    "aws_bedrock_runtime_endpoint": _DESTINATION,
    "azure_ad_token": _DESTINATION,
    "mock_response": _INTERNALS,
    # requests in OpenRouter's form
    "provider": _GATEWAY,
    "models": _GATEWAY,
    "route": _GATEWAY,
    "preset": _GATEWAY,
    "cache_enabled": _GATEWAY,
    "cache_ttl_seconds": _GATEWAY,
    "plugins": _GATEWAY,
    "transforms": _GATEWAY,
    "usage": _GATEWAY,
    "trace": _GATEWAY,
    "session_id": _GATEWAY,
    "debug": _GATEWAY,
    "echo_upstream_body": _GATEWAY,
}

FORBIDDEN_TEMPLATE_ARGUMENTS: Final = frozenset(
    {
        "chat_template",
        "conversation",
        "max_length",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "truncation",
    }
)
"""Members of ``chat_template_kwargs`` that are arguments of the renderer itself, not variables of the template:
a caller's template is code, and ``tokenize`` makes the engine's front end tokenize a whole prompt on its event loop."""

LENGTH_FIELDS: Final = (
    "max_tokens",
    "max_completion_tokens",
    "n_predict",
    "max_new_tokens",
    "max_output_tokens",
)
"""Every name under which an engine takes the length limit of an answer."""

SET_FIELDS: Final = frozenset({"model", "stream", "stream_options", *LENGTH_FIELDS})
"""Fields that callers may send and that the gateway then sets itself."""

CHAT_FIELDS: Final = SET_FIELDS | {
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "messages",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
}
"""Every parameter of OpenAI's ``/chat/completions``."""

COMPLETIONS_FIELDS: Final = SET_FIELDS | {
    "echo",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "n",
    "presence_penalty",
    "prompt",
    "seed",
    "stop",
    "suffix",
    "temperature",
    "top_p",
    "user",
}
"""OpenAI's ``/completions`` without ``best_of``, which makes tokens that the reserved limit does not cover."""

EMBEDDINGS_FIELDS: Final = frozenset({"dimensions", "encoding_format", "input", "model", "user"})
"""Every parameter of OpenAI's ``/embeddings``."""

RERANK_FIELDS: Final = frozenset({"documents", "model", "query", "return_documents", "top_n"})
"""What everybody takes who offers ``/rerank``."""

SAMPLING_FIELDS: Final = frozenset({"ignore_eos", "min_p", "top_k"})
"""What vLLM, SGLang and llama.cpp all take beyond OpenAI's parameters, for chats and completions."""

TOKEN_FIELDS: Final = SAMPLING_FIELDS | {
    "min_tokens",
    "repetition_penalty",
    "return_token_ids",
    "skip_special_tokens",
    "stop_token_ids",
}
"""What vLLM and SGLang both take."""
