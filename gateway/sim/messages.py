"""Requests in Anthropic's messages, read as strictly as Anthropic does where a translator could go wrong.

A request comes to the chat request that asks for the same, so that equal questions get equal answers from every face.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from gateway.sim.requests import (
    BadRequest,
    ChatRequest,
    Function,
    JsonSchema,
    Message,
    NamedFunction,
    ResponseFormat,
    Tool,
    ToolChoice,
)

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_LEAST_BUDGET = 1024


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]


class Named(msgspec.Struct):
    """A tool; of another ``type`` than custom it is the provider's own."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    """``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    def chat(self) -> str | ToolChoice:
        """Return the choice in the chat form."""
        if self.type == "tool":
            return ToolChoice(NamedFunction(self.name or ""))
        return {"auto": "auto", "any": "required", "none": "none"}[self.type]


class Thinking(msgspec.Struct, forbid_unknown_fields=True):
    """``thinking``."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: str | None = None


class Output(msgspec.Struct, forbid_unknown_fields=True):
    """``output_config``."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Any] | None = None


class MessagesRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/messages``; counting tokens asks for the same without ``max_tokens``."""

    model: str
    messages: list[Turn]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    system: str | list[dict[str, Any]] | None = None
    tools: list[Named] | None = None
    tool_choice: Choice | None = None
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    thinking: Thinking | None = None
    output_config: Output | None = None
    metadata: dict[str, str | None] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    cache_control: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None
    container: Any = None
    mcp_servers: list[dict[str, Any]] | None = None

    def chat(self) -> ChatRequest:
        """Return the chat request that asks for the same; raises BadRequest."""
        _check(self)
        messages = [] if not self.system else [Message("system", self.system)]
        messages += [Message(turn.role, turn.content) for turn in self.messages]
        tools = [Tool(Function(tool.name, tool.input_schema)) for tool in self.tools or ()]
        form = self.output_config.format if self.output_config is not None else None
        bound = None if form is None else ResponseFormat("json_schema", JsonSchema(form.get("schema"), "output"))
        return ChatRequest(
            model=self.model,
            messages=messages,
            stream=self.stream,
            max_tokens=self.max_tokens,
            stop=self.stop_sequences,
            tools=tools or None,
            tool_choice=None if self.tool_choice is None else self.tool_choice.chat(),
            response_format=bound,
            continue_final_message=self.messages[-1].role == "assistant" or None,
        )


MESSAGES = msgspec.json.Decoder(MessagesRequest)


def _check(request: MessagesRequest) -> None:
    """Raise BadRequest for what Anthropic refuses although its shape is right."""
    if not request.messages or request.messages[0].role != "user":
        raise BadRequest('messages: first message must use the "user" role', "messages")
    last = len(request.messages) - 1
    for place, turn in enumerate(request.messages):
        blocks = [{"type": "text", "text": turn.content}] if isinstance(turn.content, str) else turn.content
        if not blocks and place < last:
            raise BadRequest(f"messages.{place}: messages must have non-empty content", f"messages.{place}")
        for number, block in enumerate(blocks):
            _check_block(block, f"messages.{place}.content.{number}")
        if place and turn.role == request.messages[place - 1].role:
            raise BadRequest(f"messages.{place}: roles must alternate", f"messages.{place}")
    if request.messages[last].role == "assistant":
        content = request.messages[last].content
        text = content if isinstance(content, str) else content[-1].get("text", "") if content else ""
        if text != text.rstrip():
            raise BadRequest("messages: final assistant content cannot end with trailing whitespace", "messages")
    _check_thinking(request)


def _check_thinking(request: MessagesRequest) -> None:
    thinking = request.thinking
    if thinking is None or thinking.type != "enabled":
        return
    budget = thinking.budget_tokens or 0
    if not _LEAST_BUDGET <= budget < request.max_tokens:
        words = f"thinking.budget_tokens: must be at least {_LEAST_BUDGET} and less than max_tokens"
        raise BadRequest(words, "thinking.budget_tokens")
    if request.temperature not in {None, 1} or request.top_k is not None:
        raise BadRequest("temperature: may only be set to 1 when thinking is enabled", "temperature")
    if request.tool_choice is not None and request.tool_choice.type in {"any", "tool"}:
        raise BadRequest("tool_choice: thinking may not be enabled when tool use is forced", "tool_choice")


def _check_block(block: dict[str, Any], path: str) -> None:
    kind = block.get("type")
    if kind == "text" and not str(block.get("text", "")).strip():
        raise BadRequest(f"{path}: text content blocks must contain non-whitespace text", path)
    if kind == "tool_use" and not isinstance(block.get("input"), dict):
        raise BadRequest(f"{path}.input: Input should be a valid dictionary", path)
    for name in ("id", "tool_use_id"):
        if name in block and not _ID.fullmatch(str(block[name])):
            raise BadRequest(f"{path}.{name}: String should match pattern '^[a-zA-Z0-9_-]+$'", path)
    if kind == "thinking" and not block.get("signature"):
        raise BadRequest(f"{path}.signature: Invalid `signature` in `thinking` block", path)
