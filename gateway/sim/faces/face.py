"""What every face shares: OpenAI's shapes, and the questions the server asks a face.

A face is data and pure functions over the engine's state; it writes nothing and keeps no request. The subclasses
override what their engine does differently: extra nulls, error bodies, limits, metric names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from gateway.sim.answers import Answer, Choice
from gateway.sim.config import SimConfig
from gateway.sim.engine import Engine, Refusal
from gateway.sim.logprobs import chat_logprobs, text_logprobs
from gateway.sim.wire import Reply, Request

Document = dict[str, object]
Route = Callable[[Request], Reply]


class Face:
    """Base of all faces.

    Attributes:
        headers_early: whether a stream's headers leave before its first token.
        finish_on_last_token: whether ``finish_reason`` rides on the last token's chunk or on a chunk of its own.
        opens_with_role: whether a stream starts with a chunk that has only the role.
        continuous_usage: whether ``stream_options.continuous_usage_stats`` is understood; the counts are those of the
            event's own choice and its prompt.
        has_embeddings: whether ``/v1/embeddings`` exists.
        errors_in_stream: whether a streamed request is refused inside a 200 answer.
        speaks_messages: whether it speaks Anthropic's messages, and nothing else.
        speaks_responses: whether it speaks OpenAI's responses besides.
        health_paths: paths that answer 503 when the backend is made unhealthy.
        server: the Server header.
    """

    headers_early: ClassVar[bool] = False
    finish_on_last_token: ClassVar[bool] = False
    opens_with_role: ClassVar[bool] = True
    continuous_usage: ClassVar[bool] = False
    has_embeddings: ClassVar[bool] = True
    errors_in_stream: ClassVar[bool] = False
    speaks_messages: ClassVar[bool] = False
    speaks_responses: ClassVar[bool] = False
    health_paths: ClassVar[tuple[str, ...]] = ("/health",)
    server: ClassVar[str] = "uvicorn"

    def __init__(self, config: SimConfig, engine: Engine) -> None:
        self.config = config
        self.engine = engine

    # What the server asks.

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return the handlers of (method, path) besides generation."""
        return {("GET", "/v1/models"): self.models}

    def metrics(self) -> bytes | None:
        """Return the Prometheus text of ``/metrics``, or None where there is no such path."""
        return None

    def served(self, model: str) -> str | None:
        """Return the model name the answer carries when ``model`` is asked for; None when it is not served."""
        return model if model in self.config.models else None

    def presented(self, request: Request) -> str:
        """Return the key that ``request`` presents, or ``""``."""
        return (request.header(b"authorization") or "").removeprefix("Bearer ")

    def turn_away(self) -> Reply | None:
        """Return an answer that refuses the request before its body is read, or None."""
        return None

    def answer_headers(self, request: Request) -> Sequence[tuple[str, str]]:
        """Return the headers a generation answer has beyond the usual."""
        del request
        return ()

    def answer_id(self, answer: Answer) -> str:
        """Return the id in a chat or completion answer."""
        return ("chatcmpl-" if answer.chat else "cmpl-") + answer.id

    # Answers.

    def models(self, request: Request) -> Reply:
        """Answer ``GET /v1/models``."""
        del request
        return self.json({"object": "list", "data": [self.model_card(name) for name in self.config.models]})

    def model_card(self, name: str) -> Document:
        """Return one entry of the model list."""
        return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "sim"}

    def answer(self, answer: Answer, usage: Document | None) -> Document:
        """Return the whole answer as one JSON document."""
        return {
            "id": self.answer_id(answer),
            "object": "chat.completion" if answer.chat else "text_completion",
            "created": answer.created,
            "model": answer.model,
            "choices": self.choices(answer) if answer.rendered is None else answer.rendered,
            "usage": usage,
        }

    def choices(self, answer: Answer) -> list[Document]:
        """Return the choices of a whole answer."""
        make = self.chat_choice if answer.chat else self.text_choice
        return [make(answer, choice) for choice in answer.choices]

    def chat_choice(self, answer: Answer, choice: Choice) -> Document:
        """Return one choice of a chat answer."""
        logprobs = None if answer.top is None else {"content": chat_logprobs(choice.pieces, answer.top)}
        return {
            "index": choice.index,
            "message": self.message(choice),
            "logprobs": logprobs,
            "finish_reason": choice.finish,
        }

    def message(self, choice: Choice) -> Document:
        """Return the message of a chat choice."""
        message: Document = {"role": "assistant", "content": None if choice.tool else choice.content}
        if choice.reasoning:
            message["reasoning_content"] = choice.thoughts
        if choice.tool is not None:
            function = {"name": choice.tool.name, "arguments": choice.content}
            message["tool_calls"] = [{"id": choice.tool.id, "type": "function", "function": function}]
        return message

    def text_choice(self, answer: Answer, choice: Choice) -> Document:
        """Return one choice of a text completion."""
        return {
            "text": choice.content,
            "index": choice.index,
            "logprobs": None if answer.top is None else text_logprobs(choice.pieces, answer.top),
            "finish_reason": choice.finish,
        }

    def usage(self, prompt: int, completion: int, cached: int, reasoning: int) -> Document:
        """Return a usage object; ``cached`` and ``reasoning`` are parts of the other two."""
        document: Document = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        if reasoning:
            document["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return document

    # Streams.

    def chunk(self, answer: Answer, choices: list[Document], *, asked_usage: bool) -> Document:
        """Return one event of a stream; ``asked_usage``: the caller wants usage, which comes in another event."""
        chunk: Document = {
            "id": self.answer_id(answer),
            "object": "chat.completion.chunk" if answer.chat else "text_completion",
            "created": answer.created,
            "model": answer.model,
            "choices": choices,
        }
        if asked_usage:
            chunk["usage"] = None
        return chunk

    def chunk_choice(
        self, answer: Answer, choice: Choice, delta: Document, finish: str | None, logprobs: object = None
    ) -> Document:
        """Return the choice inside an event; for a text completion ``delta`` is ``{"text": …}``."""
        del answer
        head = delta if "text" in delta else {"delta": delta}
        return {"index": choice.index, **head, "logprobs": logprobs, "finish_reason": finish}

    def role_delta(self) -> Document:
        """Return the delta that opens a choice."""
        return {"role": "assistant", "content": ""}

    def delta(self, choice: Choice, step: int) -> Document:
        """Return the delta of the token made in ``step`` of a chat choice."""
        piece = choice.pieces[step]
        if step < choice.reasoning:
            return {"reasoning_content": piece}
        if choice.tool is None:
            return {"content": piece}
        if step == choice.reasoning:
            head = {"name": choice.tool.name, "arguments": ""}
            return {"tool_calls": [{"index": 0, "id": choice.tool.id, "type": "function", "function": head}]}
        return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

    def final_delta(self) -> Document:
        """Return the delta of a chunk that only finishes a choice."""
        return {}

    # Errors.

    def error(self, status: int, message: str, *, kind: str = "", param: str | None = None) -> Document:
        """Return the body of an error answer; ``kind`` is the engine's own error type."""
        return {"error": {"message": message, "type": kind or "server_error", "param": param, "code": status}}

    def stream_error(self, status: int, message: str) -> Document:
        """Return the payload of an error event inside a stream."""
        return self.error(status, message)

    def bad_request(self, message: str, param: str | None) -> Reply:
        """Answer a body that is not a request."""
        return self.fail(400, message, kind="BadRequestError", param=param)

    def unauthorized(self) -> Reply:
        """Answer a request without the right key."""
        return self.json({"error": "Unauthorized"}, 401)

    def unknown_model(self, model: str) -> Reply:
        """Answer a request for a model that is not served."""
        return self.fail(404, f"The model `{model}` does not exist.", kind="NotFoundError", param="model")

    def overloaded(self, reason: Refusal) -> Reply:
        """Answer a request the engine has no room for."""
        raise NotImplementedError

    def too_long(self, prompt_tokens: int, limit: int | None) -> Reply | None:
        """Return the refusal of a prompt (with ``limit`` tokens of answer) that the context cannot hold, or None."""
        raise NotImplementedError

    def unhealthy(self) -> Reply:
        """Answer a health probe while the backend is unhealthy."""
        return Reply(503, b"", "text/plain")

    def missing(self, *, wrong_method: bool) -> Reply:
        """Answer a path that does not exist, or exists for another method."""
        if wrong_method:
            return self.json({"detail": "Method Not Allowed"}, 405)
        return self.json({"detail": "Not Found"}, 404)

    def fail(self, status: int, message: str, *, kind: str = "", param: str | None = None) -> Reply:
        """Return an error answer."""
        return self.json(self.error(status, message, kind=kind, param=param), status)

    def json(self, document: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Return ``document`` as an answer."""
        return Reply(status, msgspec.json.encode(document), headers=headers)

    def healthy(self, request: Request) -> Reply:
        """Answer a health probe with an empty 200."""
        del request
        return Reply(200, b"", "text/plain")
