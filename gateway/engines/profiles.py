"""External APIs that speak OpenAI's protocol, each with what it does differently: data, and the fitting of a body.

A profile is in force for a backend of kind ``openai`` by its name in the configuration or by the host of its URL
(``gateway.config.external``). Fields that an API refuses are dropped and those it calls otherwise are renamed, in the
request and in its messages; nothing here raises. Where each fact comes from is in ``sources``; ``docs/upstreams.md``
shows the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

from gateway.engines.catalogue import ENGINES
from gateway.engines.fields import SET_FIELDS
from gateway.engines.kind import Engine
from gateway.types.call import Operation

Reasoning = Literal["reasoning_effort", "thinking", "enable_thinking", "reasoning"]
"""How an API is asked to reason: OpenAI's word, DeepSeek's object, DashScope's switch, OpenRouter's object."""

_OURS: Final = frozenset({"reasoning", "reasoning_details"})
_MARKS: Final = frozenset({"cache_control"})
_NOTHING: Final[frozenset[str]] = frozenset()
_CHAT_ONLY: Final = frozenset({Operation.CHAT})
_ALL: Final = frozenset({Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS, Operation.RERANK})


@dataclass(frozen=True, slots=True)
class Profile:
    """What is true of one external API.

    Attributes:
        name: in the configuration.
        title: what people call it.
        operations: what it offers.
        choices: whether it gives more than one choice.
        length_field: the name of the length limit of a chat; ``""`` takes the one the caller used.
        only: the fields of a chat that it takes, or None when it takes any.
        refuses: fields of a chat that it refuses, or misunderstands.
        renames: fields that it calls otherwise.
        words: values of fields that it calls otherwise.
        message_refuses: members of a message that it refuses.
        part_refuses: members of a part of a message's content that it refuses.
        tool_refuses: members of a function, as tools describe it, that it refuses.
        developers: it knows the role ``developer``.
        usage_option: it must be asked for usage in a stream (``stream_options``); if not, usage comes unasked.
        always_stream: whole answers are fetched as a stream, because it refuses some requests otherwise.
        reasoning: how it is asked to reason.
        reasoning_name: where reasoning stands in its answers.
        cached_name: where it says how many prompt tokens came from its cache.
        overloads: statuses that mean that it is full, not that it is broken.
        too_long: words, in lower case, with which it says that a prompt is too long, beyond the usual ones.
        length_statuses: statuses that with such words concern the request, though elsewhere they concern the key.
        limits: the headers in which it says what is left.
        sources: where this is written.
    """

    name: str
    title: str
    operations: frozenset[Operation] = _ALL
    choices: bool = True
    length_field: str = "max_tokens"
    only: frozenset[str] | None = None
    refuses: frozenset[str] = _NOTHING
    renames: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[tuple[str, str], str] = field(default_factory=dict)
    message_refuses: frozenset[str] = _OURS
    part_refuses: frozenset[str] = _MARKS
    tool_refuses: frozenset[str] = _NOTHING
    developers: bool = False
    usage_option: bool = True
    always_stream: bool = False
    reasoning: Reasoning = "reasoning_effort"
    reasoning_name: str = "reasoning_content"
    cached_name: str = "prompt_tokens_details.cached_tokens"
    overloads: frozenset[int] = frozenset({429, 503, 529})
    too_long: tuple[str, ...] = ()
    length_statuses: frozenset[int] = frozenset()
    limits: str = "x-ratelimit-remaining-requests, -tokens"
    sources: tuple[str, ...] = ()

    def fit(self, body: dict[str, Any]) -> None:
        """Bring the body of a chat into the form that this API takes; changes ``body``, but nothing inside it."""
        if self.reasoning != "reasoning" and "reasoning" in body:
            _ask_to_reason(body, body.pop("reasoning"), self.reasoning)
        for name in self.refuses & body.keys():
            del body[name]
        for name, theirs in self.renames.items():
            if name in body:
                body.setdefault(theirs, body.pop(name))
        for (name, word), theirs in self.words.items():
            if body.get(name) == word:
                body[name] = theirs
        messages = body.get("messages")
        if type(messages) is list:
            body["messages"] = [self._message(message) for message in messages]
        if self.tool_refuses and type(body.get("tools")) is list:
            body["tools"] = [self._tool(tool) for tool in body["tools"]]

    def _tool(self, tool: Any) -> Any:
        """Return ``tool`` without what the API refuses."""
        function = tool.get("function") if type(tool) is dict else None
        if type(function) is not dict or not self.tool_refuses & function.keys():
            return tool
        return {
            **tool,
            "function": {name: value for name, value in function.items() if name not in self.tool_refuses},
        }

    def _message(self, message: Any) -> Any:
        """Return ``message`` without what the API refuses."""
        if type(message) is not dict:
            return message
        refused = self.message_refuses & message.keys()
        if refused:
            message = {name: value for name, value in message.items() if name not in refused}
        parts = message.get("content")
        if type(parts) is list and any(type(part) is dict and self.part_refuses & part.keys() for part in parts):
            clean = [
                {name: value for name, value in part.items() if name not in self.part_refuses}
                if type(part) is dict
                else part
                for part in parts
            ]
            message = {**message, "content": clean}
        return message


def _ask_to_reason(body: dict[str, Any], wish: Any, way: Reasoning) -> None:
    """Say OpenRouter's ``reasoning`` object in the words of an API; what the caller says in those words stays."""
    if type(wish) is not dict:
        return
    effort, budget, enabled = wish.get("effort"), wish.get("max_tokens"), wish.get("enabled")
    off = effort == "none" or enabled is False
    if way == "enable_thinking":
        body.setdefault("enable_thinking", not off)
        if type(budget) is int and not off:
            body.setdefault("thinking_budget", budget)
        return
    if way == "thinking":
        body.setdefault("thinking", {"type": "disabled" if off else "enabled"})
        if off:
            body.pop("reasoning_effort", None)
            return
    if type(effort) is str and (way != "thinking" or effort != "none"):
        body.setdefault("reasoning_effort", effort)


_OPENAI: Final = Profile(
    name="openai",
    title="OpenAI",
    operations=_ALL - {Operation.RERANK},
    length_field="max_completion_tokens",
    message_refuses=_OURS | {"reasoning_content"},
    developers=True,
    reasoning_name="",
    sources=(
        "https://platform.openai.com/docs/api-reference/chat/create",
        "https://github.com/openai/openai-python/issues/2046",
        "https://platform.openai.com/docs/guides/error-codes",
    ),
)
_COHERE: Final = Profile(
    name="cohere",
    title="Cohere",
    operations=frozenset({Operation.CHAT, Operation.EMBEDDINGS}),
    choices=False,
    only=SET_FIELDS
    | {
        "frequency_penalty",
        "logprobs",
        "messages",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    },
    words=MappingProxyType(
        {
            ("reasoning_effort", "minimal"): "none",
            ("reasoning_effort", "low"): "high",
            ("reasoning_effort", "medium"): "high",
            ("reasoning_effort", "xhigh"): "high",
        }
    ),
    message_refuses=_OURS | {"reasoning_content"},
    tool_refuses=frozenset({"strict"}),
    reasoning_name="",
    overloads=frozenset({429}),
    too_long=("too many tokens", "total number of tokens"),
    limits="",
    sources=(
        "https://docs.cohere.com/docs/compatibility-api",
        "https://github.com/cohere-ai/cohere-developer-experience/pull/606",
        "https://github.com/OpenRouterTeam/openrouter-examples/issues/71",
        "https://openrouter.ai/docs/api-reference/streaming",
    ),
)
_DASHSCOPE: Final = Profile(
    name="dashscope",
    title="DashScope (Qwen)",
    operations=frozenset({Operation.CHAT, Operation.EMBEDDINGS}),
    part_refuses=_NOTHING,
    always_stream=True,
    reasoning="enable_thinking",
    overloads=frozenset({429}),
    too_long=("range of input length",),
    limits="",
    sources=(
        "https://www.alibabacloud.com/help/en/model-studio/deep-thinking",
        "https://github.com/QuantumNous/new-api/pull/1109",
    ),
)
_DEEPSEEK: Final = Profile(
    name="deepseek",
    title="DeepSeek",
    operations=_CHAT_ONLY,
    reasoning="thinking",
    cached_name="prompt_cache_hit_tokens",
    overloads=frozenset({429, 503}),
    limits="",
    sources=(
        "https://api-docs.deepseek.com/quick_start/error_codes",
        "https://api-docs.deepseek.com/guides/thinking_mode",
    ),
)
_MISTRAL: Final = Profile(
    name="mistral",
    title="Mistral",
    operations=frozenset({Operation.CHAT, Operation.EMBEDDINGS}),
    only=(SET_FIELDS - {"stream_options", "max_completion_tokens"})
    | {
        "frequency_penalty",
        "guardrails",
        "messages",
        "metadata",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_mode",
        "random_seed",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "safe_prompt",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    },
    renames=MappingProxyType({"seed": "random_seed"}),
    words=MappingProxyType({("tool_choice", "required"): "any"}),
    message_refuses=_OURS | {"name", "reasoning_content", "refusal"},
    usage_option=False,
    reasoning_name="content[].thinking",
    overloads=frozenset({429}),
    limits="",
    sources=(
        "https://docs.mistral.ai/api/",
        "https://github.com/editor-code-assistant/eca/issues/231",
        "https://github.com/charmbracelet/crush/issues/1590",
        "https://github.com/BerriAI/litellm/issues/6696",
    ),
)
_GROQ: Final = Profile(
    name="groq",
    title="Groq",
    operations=_CHAT_ONLY,
    choices=False,
    length_field="max_completion_tokens",
    refuses=frozenset({"logit_bias", "logprobs", "top_logprobs"}),
    message_refuses=_OURS | {"name", "reasoning_content"},
    reasoning_name="reasoning",
    overloads=frozenset({429, 498}),
    too_long=("reduce the length of the messages",),
    sources=("https://console.groq.com/docs/openai", "https://console.groq.com/docs/errors"),
)
_TOGETHER: Final = Profile(
    name="together",
    title="Together",
    reasoning_name="reasoning",
    overloads=frozenset({429, 503}),
    too_long=("input token count", "`inputs` tokens"),
    length_statuses=frozenset({403}),
    limits="",
    sources=("https://docs.together.ai/docs/error-codes",),
)
_FIREWORKS: Final = Profile(
    name="fireworks",
    title="Fireworks",
    always_stream=True,
    overloads=frozenset({429, 503}),
    sources=(
        "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
        "https://github.com/nullclaw/nullclaw/pull/231",
        "https://github.com/musistudio/claude-code-router/issues/377",
        "https://github.com/langchain-ai/langchain/pull/36977",
    ),
)
_OPENROUTER: Final = Profile(
    name="openrouter",
    title="OpenRouter",
    message_refuses=_NOTHING,
    part_refuses=_NOTHING,
    developers=True,
    reasoning="reasoning",
    reasoning_name="reasoning, reasoning_details",
    overloads=frozenset({429, 503}),
    limits="",
    sources=("https://openrouter.ai/docs/api-reference/streaming", "https://openrouter.ai/docs/api-reference/errors"),
)
PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (_COHERE, _DASHSCOPE, _DEEPSEEK, _FIREWORKS, _GROQ, _MISTRAL, _OPENAI, _OPENROUTER, _TOGETHER)
    }
)
"""Every profile by its name."""


@cache
def engine_of(kind: str, profile: str = "") -> Engine:
    """Return the description of ``kind``, narrowed to the external API ``profile`` where there is one."""
    engine = ENGINES[kind]
    found = PROFILES.get(profile)
    if found is None:
        return engine
    fields = {operation: engine.fields[operation] for operation in found.operations if operation in engine.fields}
    chat = fields[Operation.CHAT] if found.only is None else found.only
    fields[Operation.CHAT] = chat - found.refuses - (_NOTHING if found.choices else {"n"})
    return replace(
        engine,
        paths={operation: path for operation, path in engine.paths.items() if operation in fields},
        fields=fields,
        length_field=found.length_field or engine.length_field,
        passes_unknown=found.only is None,
        asks_usage=found.usage_option,
        always_stream=found.always_stream,
        overload_statuses=found.overloads,
        context_error=engine.context_error + found.too_long,
        fit=found.fit,
        length_statuses=found.length_statuses,
        callers_length=not found.length_field,
        developers=found.developers,
    )
