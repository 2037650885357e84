"""Request bodies of the simulated endpoints, checked while they are decoded.

``decode`` raises ``BadRequest`` for everything that is not a request, in words that name the field; fields an engine
would read but a simulation cannot use are ignored.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from gateway.sim import text
from gateway.sim.text import Prompt


class BadRequest(Exception):
    """The body is not a request: ``message`` says why, ``param`` names the field where it is known."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Message(msgspec.Struct):
    """One chat message."""

    role: str
    content: str | list[Any] | None = None
    tool_calls: list[Any] | None = None


class Function(msgspec.Struct):
    """A function the model may call."""

    name: str
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """An entry of ``tools``."""

    function: Function
    type: str = "function"


class NamedFunction(msgspec.Struct):
    """The function a ``tool_choice`` object names."""

    name: str


class ToolChoice(msgspec.Struct):
    """A ``tool_choice`` that names its function."""

    function: NamedFunction
    type: str = "function"


class JsonSchema(msgspec.Struct):
    """The schema of a ``response_format``."""

    schema_: dict[str, Any] | None = msgspec.field(default=None, name="schema")
    name: str | None = None


class ResponseFormat(msgspec.Struct):
    """``response_format``; TGI's own form has the schema in ``value``."""

    type: str
    json_schema: JsonSchema | None = None
    value: dict[str, Any] | None = None

    @property
    def schema(self) -> dict[str, Any] | None:
        """The schema, wherever it stands; None when any JSON object will do."""
        if self.json_schema is not None:
            return self.json_schema.schema_
        return self.value

    @property
    def is_json(self) -> bool:
        """Whether the answer must be JSON."""
        return self.type in {"json_object", "json_schema", "json"}


class StreamOptions(msgspec.Struct):
    """``stream_options`` of a streamed request."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Generation(msgspec.Struct):
    """What chat and text completion requests share."""

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    response_format: ResponseFormat | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings that are not empty."""
        given = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return tuple(stop for stop in given if stop)

    @property
    def choices(self) -> int:
        """How many answers each prompt gets."""
        return 1 if self.n is None else self.n

    @property
    def limit(self) -> int | None:
        """The most completion tokens the caller wants, or None."""
        return self.max_tokens


class ChatRequest(Generation):
    """Body of ``POST /v1/chat/completions``."""

    messages: list[Message] = msgspec.field(default_factory=list)
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    continue_final_message: bool | None = None

    @property
    def begun(self) -> str:
        """The text of the assistant message that the answer goes on with, or ``""``."""
        last = self.messages[-1] if self.messages and self.continue_final_message else None
        return last.content if last is not None and last.role == "assistant" and isinstance(last.content, str) else ""

    def before(self) -> Prompt:
        """Return the prompt without the message that the answer goes on with."""
        return msgspec.structs.replace(self, messages=self.messages[:-1]).prompts()[0]

    @property
    def limit(self) -> int | None:
        """The most completion tokens the caller wants; the newer of the two names wins."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top(self) -> int | None:
        """How many alternatives per token are wanted; None when no log-probabilities are."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def prompts(self) -> list[Prompt]:
        """Return the one prompt of the conversation."""
        parts: list[str] = []
        tokens = text.TOKENS_PER_MESSAGE * len(self.messages)
        for message in self.messages:
            words, size = text.message_text(message.content)
            tokens += size
            parts.append(message.role)
            parts.append(words)
            if message.tool_calls:
                calls = msgspec.json.encode(message.tool_calls).decode()
                tokens += text.count(calls)
                parts.append(calls)
        if self.tools:
            tools = msgspec.json.encode(self.tools).decode()
            tokens += text.count(tools)
            parts.insert(0, tools)
        return [Prompt("\n".join(parts), tokens)]

    def wanted_function(self) -> Function | None:
        """Return the function this answer calls, or None; raises BadRequest when a named one does not exist."""
        if not self.tools or self.tool_choice == "none":
            return None
        if isinstance(self.tool_choice, ToolChoice):
            named = self.tool_choice.function.name
            function = next((tool.function for tool in self.tools if tool.function.name == named), None)
            if function is None:
                raise BadRequest(f"tool_choice names {named!r}, which is not among the tools", "tool_choice")
            return function
        asked = next((m for m in reversed(self.messages) if m.role == "user"), None)
        words = "" if asked is None else text.message_text(asked.content)[0]
        if self.tool_choice == "required" or "tool" in words:
            return self.tools[0].function
        return None


class CompletionRequest(Generation):
    """Body of ``POST /v1/completions``."""

    prompt: str | list[Any] = ""
    logprobs: int | None = None

    @property
    def top(self) -> int | None:
        """How many alternatives per token are wanted; None when no log-probabilities are."""
        return self.logprobs

    def prompts(self) -> list[Prompt]:
        """Return one prompt per text or list of token ids."""
        return _inputs(self.prompt)


class EmbeddingRequest(msgspec.Struct):
    """Body of ``POST /v1/embeddings``."""

    input: str | list[Any]
    model: str = ""
    dimensions: int | None = None
    encoding_format: str | None = None

    def prompts(self) -> list[Prompt]:
        """Return one prompt per text or list of token ids."""
        return _inputs(self.input)


class TokenizeRequest(msgspec.Struct):
    """Body of ``POST /tokenize``: a text, texts (SGLang), or a conversation (vLLM, TGI)."""

    model: str = ""
    prompt: str | list[str] | None = None
    messages: list[Message] | None = None


def _inputs(given: str | list[Any]) -> list[Prompt]:
    if isinstance(given, str):
        return [Prompt(given, text.count(given))]
    if given and all(isinstance(item, int) for item in given):
        return [_token_ids(given)]
    return [_input(item) for item in given]


def _input(item: object) -> Prompt:
    if isinstance(item, str):
        return Prompt(item, text.count(item))
    if isinstance(item, list) and all(isinstance(number, int) for number in item):
        return _token_ids(item)
    raise BadRequest("each input must be a string or a list of token ids", "input")


def _token_ids(ids: list[int]) -> Prompt:
    return Prompt(" ".join(map(str, ids)), len(ids))


Body = TypeVar("Body")

CHAT = msgspec.json.Decoder(ChatRequest)
COMPLETION = msgspec.json.Decoder(CompletionRequest)
EMBEDDING = msgspec.json.Decoder(EmbeddingRequest)
TOKENIZE = msgspec.json.Decoder(TokenizeRequest)


def decode(decoder: msgspec.json.Decoder[Body], raw: bytes) -> Body:
    """Return the request in ``raw``; raises BadRequest when it is none."""
    try:
        request = decoder.decode(raw)
    except msgspec.ValidationError as error:
        words = str(error)
        path = words.rsplit("`$.", 1)
        raise BadRequest(words, path[1].rstrip("`") if len(path) == 2 else None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"There was an error parsing the body: {error}") from error
    except RecursionError as error:
        raise BadRequest("There was an error parsing the body: nested too deeply") from error
    if isinstance(request, Generation):
        _check(request)
    return request


def _check(request: Generation) -> None:
    if request.limit is not None and request.limit < 1:
        raise BadRequest(f"max_tokens must be at least 1, got {request.limit}.", "max_tokens")
    if not 1 <= request.choices <= 128:
        raise BadRequest(f"n must be between 1 and 128, got {request.n}.", "n")
    if request.min_tokens is not None and request.min_tokens < 0:
        raise BadRequest(f"min_tokens must not be negative, got {request.min_tokens}.", "min_tokens")
    if isinstance(request, ChatRequest) and not request.messages:
        raise BadRequest("messages must not be empty", "messages")
