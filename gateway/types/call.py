"""A caller's request, read once by its dialect, as the rest of the gateway sees it."""

from __future__ import annotations

from enum import IntFlag, StrEnum
from typing import Any, Final

import msgspec

from gateway.types.dialect import Dialect
from gateway.types.preferences import Preferences
from gateway.types.priority import Priority


class Operation(StrEnum):
    """What kind of answer is asked for."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"


WHOLE: Final = (Operation.EMBEDDINGS, Operation.RERANK)
"""What is never streamed, and makes no tokens."""


class Need(IntFlag):
    """What a request asks of a model beyond plain text."""

    NONE = 0
    TOOLS = 1
    JSON_SCHEMA = 2
    IMAGES = 4
    AUDIO = 8
    LOGPROBS = 16
    EMBEDDINGS = 32
    COMPLETIONS = 64
    MANY_CHOICES = 128
    RESPONSES = 256
    """What only OpenAI's responses can say."""
    MESSAGES = 512
    """What only Anthropic's messages can say."""
    RERANK = 1024
    CHAT = 2048
    """Plain chat, said only where a model is asked for it that may have no chat."""


class Call(msgspec.Struct, eq=False):
    """One inference request.

    Attributes:
        operation: what is asked for.
        body: the decoded body in OpenAI's shape for that operation; owned by this request.
        model: the model as the caller named it.
        stream: whether the caller wants a stream.
        wants_usage: whether the caller gets usage in a stream.
        choices: how many choices the answer will have (``n`` times the number of prompts).
        max_tokens: the caller's limit on the length of each choice, or None.
        input_bytes: bytes of the prompt's text, an upper bound for byte-level tokenizers.
        prompt_estimate: estimated prompt tokens.
        needs: features the answer depends on.
        openrouter: whether the OpenRouter form of answers and errors is wanted (paths under ``/api/v1``).
        prompts: how many prompts there are; text completions and embeddings may have several, reranking one a document.
        app: calling application, ``""`` when it did not say or said something unusable.
        user: the caller's end-user id, or ``""``.
        traceparent: W3C trace context that came with the request, or ``""``.
        tracestate: what tracing systems on the way have added to it, or ``""``.
        preferences: what the caller asks of routing, or None when nothing.
        preset: the routing preset the caller names, or None.
        session: what the caller calls this conversation, or ``""``.
        priority: the request's band.
        slo_ttft: seconds within which the caller wants the first token, or None.
        slo_itl: seconds between two tokens that the caller wants at most, or None.
        deadline: seconds from its arrival after which an answer that has not begun is of no use, or None.
        explains: whether the caller wants to be told how the request was routed (``openrouter_metadata``).
        service_tier: the service tier that the caller asks for, ``""`` for the default one.
        shortened: what ``max_tokens`` became because a budget leaves no more, or None.
        dialect: how the caller asked and is answered; ``body`` is in OpenAI's chat form whatever it is.
        native: the body as the caller wrote it, when ``dialect`` is not chat.
        betas: features of Anthropic's API that the caller wants switched on, by their names with commas, or ``""``.
        api_version: version of Anthropic's API that the caller writes for, or ``""``.
        unsaid: where the request says what only its own dialect can, and what that is; ``""`` when it nowhere does.
        detached: whether its answer is made even when nobody waits for it; it is never one that was made before.
        counted: tokens of the prompt as every engine that may answer counts them, at most, or None while nobody asked.
    """

    operation: Operation
    body: dict[str, Any]
    model: str
    stream: bool
    wants_usage: bool
    choices: int
    max_tokens: int | None
    input_bytes: int
    prompt_estimate: int
    needs: Need
    openrouter: bool
    prompts: int = 1
    app: str = ""
    user: str = ""
    traceparent: str = ""
    tracestate: str = ""
    preferences: Preferences | None = None
    preset: str | None = None
    session: str = ""
    priority: Priority = Priority.STANDARD
    slo_ttft: float | None = None
    slo_itl: float | None = None
    deadline: float | None = None
    explains: bool = False
    service_tier: str = ""
    shortened: int | None = None
    dialect: Dialect = Dialect.CHAT
    native: dict[str, Any] | None = None
    betas: str = ""
    api_version: str = ""
    unsaid: str = ""
    detached: bool = False
    counted: int | None = None
