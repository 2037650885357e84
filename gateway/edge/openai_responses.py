"""``POST /v1/responses``: OpenAI's Responses request, read into a ``Call`` whose body is the chat form.

Everything is checked here for its type and range, by OpenAI's names. What an answer is asked for beyond text, calls of
functions and JSON, such as tools that an API runs itself, is left to backends that speak Responses: ``Need.RESPONSES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from gateway.edge import openai_chat
from gateway.edge.body import shape
from gateway.edge.controls import RoutingShape
from gateway.edge.openai_chat import BYTES_PER_TOKEN, Positive, Seed
from gateway.edge.openai_responses_input import Conversation
from gateway.engines.fields import CHAT_FIELDS, COMPLETIONS_FIELDS, EMBEDDINGS_FIELDS
from gateway.types.call import Call, Need
from gateway.types.dialect import Dialect
from gateway.types.errors import BadRequest
from gateway.types.responses import ENCRYPTED

_encode: Final = msgspec.json.Encoder().encode
LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDED: Final = frozenset(
    {
        LOGPROBS,
        ENCRYPTED,
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
_MOST_PAIRS: Final = 16
_STORED: Final = frozenset({"container_id", "file_id", "file_ids", "skill_id", "vector_store_ids"})
"""Members of an API's own tools by which a caller would reach what others, or the owner, have stored there."""


class _TextShape(msgspec.Struct):
    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _ReasoningShape(msgspec.Struct):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    max_tokens: Positive | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class ResponsesShape(RoutingShape, kw_only=True):
    """The members of a Responses request whose types are checked here."""

    input: str | list[Any] = ""
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: _TextShape | None = None
    reasoning: _ReasoningShape | None = None
    max_output_tokens: Positive | None = None
    max_tool_calls: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    include: list[str] | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Seed | None = None


_OWN: Final = frozenset(ResponsesShape.__struct_fields__) - frozenset(RoutingShape.__struct_fields__)
_SAME: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "modalities",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "stream",
        "temperature",
        "top_p",
        "user",
    }
)
"""Fields that mean in a chat what they mean here."""
_OTHER: Final = ((CHAT_FIELDS | COMPLETIONS_FIELDS | EMBEDDINGS_FIELDS | _OWN) - _SAME - {"model"}) | {
    "access_programs",
    "background_options",
    "context_management",
    "image",
    "moderation",
}
"""Fields that mean something else there, or nothing; what neither API knows is up to the engine's own rules."""
_BEYOND: Final = ("context_management", "image", "moderation")
"""Fields that only a backend which speaks Responses can obey."""


class ResponsesCall(Call, eq=False, kw_only=True):
    """A call that was asked for in the Responses form.

    Attributes:
        asked: the request as it was read.
        items: its own input, without what went before it.
        history: how many items of the past stand before them in ``native["input"]``.
        keep: takes the id of the request and the response object once the answer has left whole, or None.
        begin: makes the reply when the answer is made in the background (``detached``), else None.
    """

    asked: ResponsesShape
    items: Sequence[dict[str, Any]] = ()
    history: int = 0
    keep: Callable[[bytes, dict[str, Any]], None] | None = None
    begin: Callable[[Any, Any], Any] | None = None


def read(body: dict[str, Any], *, openrouter: bool, history: Sequence[dict[str, Any]] = ()) -> ResponsesCall:
    """Return the call in ``body``, which goes on from ``history``. Raises ``BadRequest``."""
    asked = shape(body, ResponsesShape)
    _refuse_impossible(asked, body)
    said = Conversation(asked.instructions)
    if history:
        said.take(history, "previous_response_id")
    if isinstance(asked.input, str):
        own: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": asked.input}]
        said.messages.append({"role": "user", "content": asked.input})
    else:
        own = asked.input
        said.take(own)
    chat = {name: value for name, value in body.items() if name not in _OTHER and value is not None}
    chat["model"] = asked.named
    chat["messages"] = said.messages
    beyond = said.beyond or _shape_answer(asked, chat)
    for name in _BEYOND:
        if body.get(name):
            beyond = beyond or name
    call = _call(asked, chat, openrouter=openrouter)
    call.native = body if not history else {**body, "input": [*history, *own]}
    call.items = own
    call.history = len(history)
    if beyond:
        call.unsaid = beyond
        call.needs |= Need.RESPONSES
        call.input_bytes += said.unsaid
        call.prompt_estimate += said.unsaid // BYTES_PER_TOKEN
    return call


def _call(asked: ResponsesShape, chat: dict[str, Any], *, openrouter: bool) -> ResponsesCall:
    """Return the call for the request in the chat form, measured as any chat is."""
    if asked.max_output_tokens is not None:
        chat["max_completion_tokens"] = asked.max_output_tokens
    plain = openai_chat.read(chat, openrouter=openrouter)
    members = asdict(plain)
    members["dialect"] = Dialect.RESPONSES
    members["wants_usage"] = True
    members["user"] = (asked.safety_identifier or asked.user or "")[:128]
    return ResponsesCall(**members, asked=asked)


def _refuse_impossible(asked: ResponsesShape, body: dict[str, Any]) -> None:
    """Raise ``BadRequest`` for what no backend could do for this caller."""
    if not asked.input and asked.previous_response_id is None:
        raise BadRequest("input is missing" if "input" not in body else "input is empty", param="input")
    for name, why in (
        ("conversation", "conversations are not kept here: use previous_response_id"),
        ("prompt", "prompts are not kept here: send instructions and input"),
        ("access_programs", "there are no access programs here"),
    ):
        if body.get(name):
            raise BadRequest(f"{name}: {why}", param=name)
    for index, name in enumerate(asked.include or ()):
        if name not in _INCLUDED:
            raise BadRequest(
                f"include[{index}] is {name[:64]!r}, which is not one of {', '.join(sorted(_INCLUDED))}",
                param=f"include[{index}]",
            )
    if asked.metadata is not None and len(asked.metadata) > _MOST_PAIRS:
        raise BadRequest(f"metadata may have {_MOST_PAIRS} pairs at most", param="metadata")


def _shape_answer(asked: ResponsesShape, chat: dict[str, Any]) -> str:
    """Say in the chat form what shape the answer shall have; return the place of what it cannot say, or ``""``."""
    beyond = ""
    if asked.tools:
        beyond = _tools(asked, chat)
    elif asked.tool_choice is not None and asked.tool_choice not in ("none", "auto"):
        raise BadRequest("tool_choice asks for a tool, but there are no tools", param="tool_choice")
    if asked.text is not None:
        if asked.text.format is not None:
            _format(asked.text.format, chat)
        if asked.text.verbosity is not None:
            chat["verbosity"] = asked.text.verbosity
    if asked.reasoning is not None:
        _reasoning(asked.reasoning, chat)
    if asked.top_logprobs or LOGPROBS in (asked.include or ()):
        chat["logprobs"] = True
        if asked.top_logprobs:
            chat["top_logprobs"] = asked.top_logprobs
    if asked.stream_options is not None and not asked.stream:
        raise BadRequest("stream_options: set stream to true with it", param="stream_options")
    return beyond


def _reasoning(asked: _ReasoningShape, chat: dict[str, Any]) -> None:
    if asked.effort is not None:
        chat["reasoning_effort"] = asked.effort
    more = {name: getattr(asked, name) for name in ("max_tokens", "enabled", "exclude")}
    more = {name: value for name, value in more.items() if value is not None}
    if more:
        chat["reasoning"] = more if asked.effort is None else {"effort": asked.effort, **more}


def _format(asked: dict[str, Any], chat: dict[str, Any]) -> None:
    kind = asked.get("type")
    if kind == "json_object":
        chat["response_format"] = {"type": "json_object"}
    elif kind == "json_schema":
        name, schema = asked.get("name"), asked.get("schema")
        if type(name) is not str or not name:
            raise BadRequest("text.format.name must be a text", param="text.format.name")
        if type(schema) is not dict:
            raise BadRequest("text.format.schema must be an object", param="text.format.schema")
        named: dict[str, Any] = {"name": name, "schema": schema}
        for member, wanted in (("strict", bool), ("description", str)):
            value = asked.get(member)
            if value is not None:
                if type(value) is not wanted:
                    raise BadRequest(f"text.format.{member} has the wrong type", param=f"text.format.{member}")
                named[member] = value
        chat["response_format"] = {"type": "json_schema", "json_schema": named}
    elif kind != "text":
        raise BadRequest("text.format.type is text, json_object or json_schema", param="text.format.type")


def _tools(asked: ResponsesShape, chat: dict[str, Any]) -> str:
    """Say the tools and which to use; return the place of the first that only an API of Responses has, or ``""``."""
    beyond = ""
    tools = []
    for index, tool in enumerate(asked.tools or ()):
        kind = tool.get("type")
        if kind == "function":
            tools.append({"type": "function", "function": _function(tool, f"tools[{index}]")})
        elif type(kind) is not str:
            raise BadRequest(f"tools[{index}].type must be a text", param=f"tools[{index}].type")
        else:
            _refuse_stored(tool, f"tools[{index}]")
            beyond = beyond or f"tools[{index}].type"
    choice = asked.tool_choice
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise BadRequest("tool_choice is none, auto, required or an object", param="tool_choice")
        chat["tool_choice"] = choice
    elif choice is not None:
        kind = choice.get("type")
        if kind == "function":
            chat["tool_choice"] = {"type": "function", "function": {"name": _chosen(choice, tools, "tool_choice")}}
        elif kind == "allowed_tools":
            tools = _allowed(choice, tools)
            chat["tool_choice"] = choice.get("mode", "auto")
        elif type(kind) is not str:
            raise BadRequest("tool_choice.type must be a text", param="tool_choice.type")
        else:
            beyond = beyond or "tool_choice.type"
    if tools:
        chat["tools"] = tools
    else:
        chat.pop("tool_choice", None)
    return beyond


def _refuse_stored(thing: Any, place: str) -> None:
    """Raise ``BadRequest`` when a tool names what is stored in the account behind, which callers share."""
    if type(thing) is list:
        for index, each in enumerate(thing):
            _refuse_stored(each, f"{place}[{index}]")
    elif type(thing) is dict:
        for name, value in thing.items():
            if value and (name in _STORED or (name == "container" and type(value) is str)):
                raise BadRequest(
                    f"{place}.{name}: nothing that is stored there is for callers", param=f"{place}.{name}"
                )
            _refuse_stored(value, f"{place}.{name}")


def _function(tool: dict[str, Any], place: str) -> dict[str, Any]:
    name = tool.get("name")
    if type(name) is not str or not 0 < len(name) <= 256:
        raise BadRequest(f"{place}.name must be a text of 1 to 256 characters", param=f"{place}.name")
    function: dict[str, Any] = {"name": name}
    for member, wanted in (("description", str), ("parameters", dict), ("strict", bool)):
        value = tool.get(member)
        if value is not None:
            if type(value) is not wanted:
                raise BadRequest(f"{place}.{member} has the wrong type", param=f"{place}.{member}")
            function[member] = value
    return function


def _chosen(choice: dict[str, Any], tools: list[dict[str, Any]], place: str) -> str:
    name = choice.get("name")
    if not any(tool["function"]["name"] == name for tool in tools):
        raise BadRequest(f"{place}.name names no function of tools", param=f"{place}.name")
    return str(name)


def _allowed(choice: dict[str, Any], tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of ``tools`` that may be used: the chat APIs of engines know no such list."""
    mode, listed = choice.get("mode", "auto"), choice.get("tools")
    if mode not in ("auto", "required"):
        raise BadRequest("tool_choice.mode is auto or required", param="tool_choice.mode")
    if type(listed) is not list or not all(type(each) is dict for each in listed):
        raise BadRequest("tool_choice.tools must be an array of objects", param="tool_choice.tools")
    names = {
        _chosen(each, tools, f"tool_choice.tools[{index}]")
        for index, each in enumerate(listed)
        if each.get("type") == "function"
    }
    return [tool for tool in tools if tool["function"]["name"] in names]
