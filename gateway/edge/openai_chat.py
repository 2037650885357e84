"""``POST /v1/chat/completions``: OpenAI's chat request, read into a ``Call``."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway.edge.body import shape
from gateway.edge.controls import RoutingShape, read_body
from gateway.edge.links import check_links
from gateway.types.call import Call, Need, Operation

TOKENS_PER_MESSAGE: Final = 4
"""What a chat template adds around each message, roughly."""
TOKENS_PER_IMAGE: Final = 1024
BYTES_PER_TOKEN: Final = 4

_encode: Final = msgspec.json.Encoder().encode
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Message(msgspec.Struct):
    """One message; members that no stop of the gateway needs are left to the engine."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    name: str | None = None


class LengthShape(RoutingShape, kw_only=True):
    """Every name by which callers limit the length of an answer, OpenAI's own and those of engines."""

    max_completion_tokens: Positive | None = None
    max_tokens: Positive | None = None
    max_output_tokens: Positive | None = None
    max_new_tokens: Positive | None = None
    n_predict: Annotated[int, Meta(ge=-2, le=2**31 - 1)] | None = None

    @property
    def length(self) -> int | None:
        """The limit that holds when several are given, or None; of ``n_predict`` -1, -2 and 0 mean no limit."""
        limit = (
            self.max_completion_tokens
            or self.max_tokens
            or self.max_output_tokens
            or self.max_new_tokens
            or self.n_predict
        )
        return limit if limit is not None and limit > 0 else None


class ChatShape(LengthShape):
    """The members of a chat request whose types are checked here; all others go to the engine's field rules."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=50)] | None = None
    logit_bias: dict[str, float] | None = None


def read(body: dict[str, Any], *, openrouter: bool) -> Call:
    """Return the call in ``body``. Raises ``BadRequest``."""
    chat = shape(body, ChatShape)
    needs = Need.NONE
    size = tokens = 0
    for message in chat.messages:
        content = message.content
        if isinstance(content, str):
            size += len(content) if content.isascii() else len(content.encode())
        elif content is not None:
            needs, text, images = _parts(content, needs)
            size += text
            tokens += images * TOKENS_PER_IMAGE
        if message.tool_calls:
            size += len(_encode(message.tool_calls))
    if chat.tools:
        needs |= Need.TOOLS
        size += len(_encode(chat.tools))
    if chat.response_format and chat.response_format.get("type") == "json_schema":
        needs |= Need.JSON_SCHEMA
        size += len(_encode(chat.response_format))
    if chat.logprobs or chat.top_logprobs:
        needs |= Need.LOGPROBS
    choices = chat.n or 1
    if choices > 1:
        needs |= Need.MANY_CHOICES
    call = Call(
        operation=Operation.CHAT,
        body=body,
        model=chat.named,
        stream=bool(chat.stream),
        wants_usage=openrouter or bool(chat.stream_options and chat.stream_options.get("include_usage")),
        choices=choices,
        max_tokens=chat.length,
        input_bytes=size,
        prompt_estimate=tokens + size // BYTES_PER_TOKEN + TOKENS_PER_MESSAGE * len(chat.messages),
        needs=needs,
        openrouter=openrouter,
        user=(chat.user or "")[:128],
    )
    read_body(call, chat)
    return call


def _parts(parts: list[dict[str, Any]], needs: Need) -> tuple[Need, int, int]:
    """Return the needs, the bytes of text and the number of images in content parts. Raises ``BadRequest``."""
    size = images = 0
    for part in parts:
        kind = part.get("type")
        if kind == "image_url":
            needs |= Need.IMAGES
            images += 1
        elif kind == "input_audio":
            needs |= Need.AUDIO
        if kind != "text":
            check_links(part, "messages")
        text = part.get("text")
        if type(text) is str:
            size += len(text) if text.isascii() else len(text.encode())
    return needs, size, images
