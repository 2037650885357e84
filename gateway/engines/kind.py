"""The shape of an engine's description.

An ``Engine`` is data: the rest of the gateway asks it instead of testing for a kind by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from gateway.types.call import Operation
from gateway.types.dialect import Dialect

PATHS: Final[Mapping[Operation, str]] = MappingProxyType(
    {
        Operation.CHAT: "/v1/chat/completions",
        Operation.COMPLETIONS: "/v1/completions",
        Operation.EMBEDDINGS: "/v1/embeddings",
        Operation.RERANK: "/v1/rerank",
    }
)
"""Where an engine that speaks OpenAI's API offers each operation."""


@dataclass(frozen=True, slots=True)
class MetricNames:
    """Names of the gauges in an engine's Prometheus text, newest first; the first one present is used.

    Values of one name are summed over its label sets (data-parallel engines report one each), ``kv_usage`` is the
    maximum. An engine without ``kv_usage`` may have ``kv_used_tokens`` and ``kv_total_tokens``, whose ratio it is.
    ``kv_total_tokens`` is the size of the KV cache, too; where there is none, ``cache_config`` has the labels
    ``block_size`` and ``num_gpu_blocks``. ``preemptions`` counts requests thrown out for want of room.
    """

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    kv_usage: tuple[str, ...] = ()
    kv_used_tokens: tuple[str, ...] = ()
    kv_total_tokens: tuple[str, ...] = ()
    cache_config: tuple[str, ...] = ()
    preemptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resume:
    """How an engine goes on with an answer that another replica began. Text completions take the text in the prompt.

    Attributes:
        chat: whether it goes on with an assistant message at the end of a chat.
        verbatim: that message reaches the model to its last blank; if not, the chat template may cut blanks off.
        fields: body fields that ask for it.
        template_arguments: members of ``chat_template_kwargs`` without which it is refused.
        reasoning: name under which that message takes the reasoning before the text, or ``""`` when it takes none.
        always: an assistant message at the end of a chat is gone on with even unasked.
    """

    chat: bool = True
    verbatim: bool = True
    fields: Mapping[str, object] = field(default_factory=dict)
    template_arguments: Mapping[str, object] = field(default_factory=dict)
    reasoning: str = ""
    always: bool = False


@dataclass(frozen=True, slots=True)
class Thinking:
    """How an engine whose chat templates have a switch for it is asked to think (``gateway.engines.thinking``).

    Attributes:
        budget_field: its name for the most tokens to think, or ``""`` when it takes none that every installation obeys.
        hiding_field: its name for whether thoughts are shown, or ``""`` when they always are.
    """

    budget_field: str = ""
    hiding_field: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """What is true of one engine kind.

    Attributes:
        kind: name in the configuration.
        ready_path: GET answers 200 when the engine can serve, or None when there is no such path.
        models_path: GET lists the models, OpenAI's shape.
        metrics_path: Prometheus text, or None.
        metrics: names in that text.
        paths: path of each operation the engine has; an operation that is missing is not offered.
        overload_statuses: statuses that mean "full, try another replica"; they do not count against health.
        asks_usage: whether ``stream_options.include_usage`` must be sent to get usage in a stream.
        continuous_usage: whether ``stream_options.continuous_usage_stats`` gives usage on every chunk.
        always_stream: a cancelled whole answer would run on, so JSON answers are streamed and folded here.
        delta_is_token: each streamed delta is one token, so deltas can be counted.
        counts_all_choices: usage counts every choice; if not, choices are counted here.
        length_field: the one body field that carries the length limit of a chat answer.
        fields: body fields that callers may send, by operation, with those that the gateway sets itself; anything
            else is dropped unless ``passes_unknown``. An operation without ``n`` gives one choice only.
        passes_unknown: unknown fields reach the engine (external OpenAI-like APIs only), except forbidden ones.
        context_error: words, in lower case, in the body of a refusal that mean the prompt is too long.
        probe_pause: fewest seconds between two probes; asked more often, the engine is late to notice callers who left.
        neutral: fields with a value that changes nothing and that the engine refuses nevertheless; they are dropped.
        resume: how it goes on with an answer begun elsewhere, or None when it cannot.
        external: somebody else runs it and bills every request, so none is sent to it twice for speed.
        minds_names: it answers 404 to a model that it does not list; others answer to any name, or list some of theirs.
        speaks: the dialect of its API; a backend may know others besides (``BackendSpec.dialects``).
        key_line: the header line that presents the key, which stands for ``%s``.
        fixed_lines: header lines that every request to it has; a speech (``gateway.upstream.speech``) has its own.
        counter: how it counts the tokens of a prompt that is not answered (``gateway.upstream.count``), or None.
        callers_length: of OpenAI's two names for the length limit of a chat, the one that the caller used is passed on.
        developers: it knows the role ``developer``; to others the system says the same.
        fit: brings the body of a chat into the form that it takes, or None when it takes it as it is.
        thinking: how it is asked to think by way of chat templates, or None when it is not.
        request_errors: words, in lower case, of a 5xx that mean that the request is at fault, not the engine.
        length_statuses: statuses that mean a prompt too long when ``context_error`` says so, else a matter of the key.
    """

    kind: str
    ready_path: str | None
    models_path: str
    metrics_path: str | None
    metrics: MetricNames
    paths: Mapping[Operation, str]
    overload_statuses: frozenset[int]
    asks_usage: bool
    continuous_usage: bool
    always_stream: bool
    delta_is_token: bool
    counts_all_choices: bool
    length_field: str
    fields: Mapping[Operation, frozenset[str]]
    passes_unknown: bool
    context_error: tuple[str, ...]
    probe_pause: float = 0.0
    neutral: tuple[tuple[str, float], ...] = ()
    resume: Resume | None = None
    external: bool = False
    minds_names: bool = False
    speaks: Dialect = Dialect.CHAT
    key_line: str = "authorization: Bearer %s\r\n"
    fixed_lines: str = ""
    counter: Literal["messages", "tokenize", "template", "chat_tokenize", "texts"] | None = None
    callers_length: bool = False
    developers: bool = False
    fit: Callable[[dict[str, Any]], None] | None = None
    thinking: Thinking | None = None
    length_statuses: frozenset[int] = frozenset()
    request_errors: tuple[str, ...] = ()

    def greeting(self, key: str | None) -> str:
        """Return the header lines, each ended by CRLF, that present ``key`` and all that the engine wants to see."""
        return self.fixed_lines + self.presented(key)

    def presented(self, key: str | None) -> str:
        """Return the header line that presents ``key``, or nothing."""
        return "" if key is None else self.key_line % key


def joined(base: str, path: str) -> str:
    """Return the path of an engine's ``path`` (``/v1/…``, ``/health``) below a backend's URL path ``base``.

    People give the URL of an OpenAI-like API with or without ``/v1`` at its end; probes live beside ``/v1``, not
    below it.
    """
    root = base.rstrip("/").removesuffix("/v1")
    return root + path
