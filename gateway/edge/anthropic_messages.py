"""``POST /v1/messages``: Anthropic's request, read into a ``Call`` whose body is the chat form.

Everything is checked here for its type and range, by Anthropic's names and in its words for where something is
(``messages.0.content.1.text``). ``DROPPED`` names what the chat form cannot say and what is lost over a backend that
does not speak messages; what would change the meaning if it were lost (``NATIVE_ONLY``) is left to backends that do:
``Need.MESSAGES``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from gateway.edge import openai_chat
from gateway.edge.anthropic_turns import Conversation
from gateway.edge.controls import RoutingShape
from gateway.engines.resume import BEGUN
from gateway.types.call import Call, Need
from gateway.types.dialect import Dialect
from gateway.types.errors import BadRequest

DROPPED: Final[Mapping[str, str]] = {
    "context_management": "clearing old turns is the provider's work",
    "container": "tools of the provider keep their state there",
    "inference_geo": "where a backend stands is chosen by routing",
    "speed": "one speed per endpoint",
    "diagnostics": "what a provider says of its cache",
    "`fallbacks` that are `default`": "other models of the provider's choice; a list is obeyed, as `models` is",
    "user_profile_id": "there is no such member",
    "service_tier": "`auto` and `standard_only` are the provider's own tiers",
    "citations": "answers of the chat form have no place for passages of documents",
    "document.context": "files of the chat form have a name and no context",
    "tool.input_examples": "functions of the chat form have no examples",
    "tool.eager_input_streaming": "arguments are streamed as the engine makes them",
    "thinking.signature": "it goes along as `reasoning_details`, and only Anthropic can read it",
    "thinking without a signature": "it goes along as `reasoning`",
    "redacted_thinking": "it goes along as `reasoning_details`, and only Anthropic can read it",
    "tool_result.is_error": "the result's text begins with `Error: ` instead",
    "an image in a tool_result": "it stands in a user message behind the results",
    "the order of text and tools within a turn": "a chat message has its text first, then its calls",
}
"""What gets lost, or is said another way, over a backend that speaks chat."""
NATIVE_ONLY: Final[Mapping[str, str]] = {
    "compaction": "the provider would sum the conversation up, and seal it",
    "mcp_servers": "the provider would call them",
    "a tool with a `type` of Anthropic's": "`bash_…`, `text_editor_…`, `computer_…`, `web_search_…` and the like",
    "a block of a tool that the provider runs": "`server_tool_use`, `web_search_tool_result` and the like",
    "a source of type `file`": "files that were uploaded to the provider",
    "a block of a type that is not known here": "nobody can tell what would be lost",
}
"""What only a backend that speaks messages can answer; without one the request is refused with its place."""
NO_THREADS: Final = "thread_unsupported_request"
"""The ``error_code`` at which Anthropic's clients send the whole conversation instead, as their tool runners do."""

_PLACE: Final = re.compile(r" - at `\$([^`]*)`$")
_INDEX: Final = re.compile(r"\[(\d+|\.\.\.)\]")
_USUAL_BUDGET: Final = 1024
_EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})
Shape = TypeVar("Shape", bound=msgspec.Struct)


class _MessageShape(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class _MetadataShape(msgspec.Struct):
    user_id: Annotated[str, Meta(max_length=512)] | None = None


class _ThinkingShape(msgspec.Struct):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=_USUAL_BUDGET)] | None = None


class _ChoiceShape(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _OutputShape(msgspec.Struct):
    effort: str | None = None
    format: dict[str, Any] | None = None


class _ToolShape(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1, max_length=128)] = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None
    strict: bool | None = None


class PromptShape(RoutingShape, kw_only=True):
    """The members of a request that say what is read: those that counting its tokens has, too."""

    messages: Annotated[list[_MessageShape], Meta(min_length=1, max_length=100_000)]
    system: str | list[dict[str, Any]] | None = None
    tools: list[_ToolShape] | None = None
    tool_choice: _ChoiceShape | None = None
    thinking: _ThinkingShape | None = None
    output_config: _OutputShape | None = None
    output_format: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None
    mcp_servers: list[dict[str, Any]] | None = None


class MessagesShape(PromptShape, kw_only=True):
    """The members of a Messages request whose types are checked here."""

    max_tokens: openai_chat.Positive
    metadata: _MetadataShape | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=64)] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    fallbacks: list[dict[str, Any]] | Literal["default"] | None = None
    compaction: dict[str, Any] | None = None


_ROUTING: Final = frozenset(RoutingShape.__struct_fields__) - {"model"}


def read(body: dict[str, Any], *, openrouter: bool) -> Call:
    """Return the call in ``body``. Raises ``BadRequest``."""
    asked = shaped(body, MessagesShape)
    chat, said = _prompt(asked, body)
    chat["max_tokens"] = asked.max_tokens
    for name, value in (
        ("stop", asked.stop_sequences),
        ("stream", asked.stream),
        ("temperature", asked.temperature),
        ("top_p", asked.top_p),
        ("top_k", asked.top_k),
        ("user", asked.user or (asked.metadata.user_id if asked.metadata is not None else None)),
    ):
        if value is not None and value != []:
            chat[name] = value
    if asked.compaction is not None:
        said.only("compaction", "summing up the conversation")
    if isinstance(asked.fallbacks, list) and asked.fallbacks and "models" not in chat:
        chat["models"] = [_fallback(each, place) for place, each in enumerate(asked.fallbacks)]
    if asked.thinking is not None and asked.thinking.type == "enabled":
        _check_budget(asked.thinking.budget_tokens, asked.max_tokens)
    return _call(chat, body, said, openrouter=openrouter)


def read_prompt(body: dict[str, Any], *, openrouter: bool) -> Call:
    """Return the call whose prompt is to be counted. Raises ``BadRequest``."""
    chat, said = _prompt(shaped(body, PromptShape), body)
    chat["max_tokens"] = 1
    return _call(chat, body, said, openrouter=openrouter)


def shaped(body: dict[str, Any], kind: type[Shape]) -> Shape:
    """Return ``body`` read as ``kind``. Raises ``BadRequest`` in Anthropic's words for where something is."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        path = _INDEX.sub(r".\1", place[1]).lstrip(".") if place else ""
        message = _PLACE.sub("", text)
        missing = re.fullmatch(r"Object missing required field `(.*)`", message)
        if missing:
            path = f"{path}.{missing[1]}" if path else missing[1]
            message = "field required"
        refuse(path, message[:1].lower() + message[1:])


def refuse(path: str, message: str) -> NoReturn:
    """Raise the error that ``message`` is wrong at ``path``."""
    raise BadRequest(f"{path}: {message}" if path else message, param=path or None)


def _prompt(asked: PromptShape, body: Mapping[str, Any]) -> tuple[dict[str, Any], Conversation]:
    """Return the members of a chat request that say what is read, and how the turns went."""
    if body.get("thread") is not None:
        # What a provider holds belongs to an account that callers share, under ids that they are not told.
        words = "thread: conversations are not held here: send all of it, without a thread"
        raise BadRequest(words, param="thread", metadata={"details": {"error_code": NO_THREADS}})
    said = Conversation()
    if asked.system:
        said.system(asked.system)
    for place, message in enumerate(asked.messages):
        path = f"messages.{place}.content"
        if message.role == "system":
            said.system(message.content, path)
        else:
            said.turn(message.role, message.content, path)
    chat: dict[str, Any] = {name: body[name] for name in _ROUTING if name in body}
    chat["model"] = asked.model
    chat["messages"] = said.messages
    if not said.messages:
        said.messages.append({"role": "user", "content": ""})  # all that is said, only messages can say
    if said.begun:
        chat |= BEGUN
    if asked.tools:
        _tools(chat, asked, said)
    if asked.cache_control:
        chat["cache_control"] = asked.cache_control
    if asked.mcp_servers:
        said.only("mcp_servers", "servers that the provider would call")
    _output(chat, asked)
    return chat, said


def _tools(chat: dict[str, Any], asked: PromptShape, said: Conversation) -> None:
    tools = []
    for place, tool in enumerate(asked.tools or ()):
        if tool.type not in {None, "custom"}:
            said.only(f"tools.{place}", f"a tool of type {tool.type!r}")
            continue
        if not tool.name:
            refuse(f"tools.{place}.name", "field required")
        if tool.input_schema is None:
            refuse(f"tools.{place}.input_schema", "field required")
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.strict is not None:
            function["strict"] = tool.strict
        form = {"type": "function", "function": function}
        if tool.cache_control is not None:
            form["cache_control"] = tool.cache_control
        tools.append(form)
    if tools:
        chat["tools"] = tools
    choice = asked.tool_choice
    if choice is None:
        return
    if choice.type == "tool":
        if not choice.name:
            refuse("tool_choice.name", "field required")
        if all(tool.name != choice.name for tool in asked.tools or ()):
            refuse("tool_choice.name", f"there is no tool {choice.name[:64]!r}")
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        chat["tool_choice"] = {"auto": "auto", "any": "required", "none": "none"}[choice.type]
    if choice.disable_parallel_tool_use is not None:
        chat["parallel_tool_calls"] = not choice.disable_parallel_tool_use


def _output(chat: dict[str, Any], asked: PromptShape) -> None:
    """Say how much is to be thought, and the form of the answer."""
    thinking, output = asked.thinking, asked.output_config
    effort = output.effort if output is not None else None
    if effort is not None and effort not in _EFFORTS:
        refuse("output_config.effort", f"must be one of {', '.join(sorted(_EFFORTS))}")
    if thinking is not None and thinking.type == "disabled":
        chat["reasoning"] = {"enabled": False}
    elif thinking is not None:
        wish: dict[str, Any] = {"enabled": True}
        if thinking.budget_tokens is not None:
            wish["max_tokens"] = thinking.budget_tokens
        elif effort is not None:
            wish["effort"] = effort
        chat["reasoning"] = wish
    if effort is not None:
        chat["verbosity"] = "high" if effort in {"xhigh", "max"} else effort
    form = output.format if output is not None and output.format is not None else asked.output_format
    if form is None:
        return
    path = "output_config.format" if output is not None and output.format is not None else "output_format"
    if form.get("type") != "json_schema":
        refuse(f"{path}.type", "must be 'json_schema'")
    if not isinstance(form.get("schema"), dict):
        refuse(f"{path}.schema", "expected an object")
    chat["response_format"] = {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": form["schema"], "strict": True},
    }


def _check_budget(budget: int | None, max_tokens: int) -> None:
    if budget is None:
        refuse("thinking.budget_tokens", "field required")
    if budget >= max_tokens:
        refuse("thinking.budget_tokens", f"must be less than max_tokens, which is {max_tokens}")


def _fallback(entry: Mapping[str, Any], place: int) -> str:
    model = entry.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= 256:
        refuse(f"fallbacks.{place}.model", "expected a string of 1 to 256 characters")
    return model


def _call(chat: dict[str, Any], body: dict[str, Any], said: Conversation, *, openrouter: bool) -> Call:
    if chat["model"] is None:
        del chat["model"]
    call = openai_chat.read(chat, openrouter=openrouter)
    call.wants_usage = True
    call.dialect = Dialect.MESSAGES
    call.native = body
    call.service_tier = ""
    if said.beyond:
        call.needs |= Need.MESSAGES
        call.unsaid = said.beyond
    call.input_bytes += said.unsaid
    call.prompt_estimate += said.unsaid // openai_chat.BYTES_PER_TOKEN
    call.prompt_estimate += said.documents * openai_chat.TOKENS_PER_IMAGE
    return call
