"""The face of Anthropic's API.

Shown: a key in ``x-api-key`` or as a bearer token, errors in its shape, 429 over the requests per minute, 529
when full, thoughts with a signature, usage that leaves cached tokens out of the input, counting of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar
from zlib import crc32

import msgspec

from gateway.sim.answers import Answer, Choice
from gateway.sim.engine import Refusal
from gateway.sim.faces.face import Document, Route
from gateway.sim.faces.openai import OpenAIFace
from gateway.sim.messages import MESSAGES
from gateway.sim.requests import BadRequest, decode
from gateway.sim.wire import Reply, Request

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class AnthropicFace(OpenAIFace):
    """See the module."""

    has_embeddings: ClassVar[bool] = False
    speaks_messages: ClassVar[bool] = True

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return the handlers besides generation."""
        return {("GET", "/v1/models"): self.models, ("POST", "/v1/messages/count_tokens"): self._count}

    def presented(self, request: Request) -> str:
        """Return the key."""
        return request.header(b"x-api-key") or super().presented(request)

    def turn_away(self) -> Reply | None:
        """Count the request against the minute; return 429 when the minute is full."""
        refusal = super().turn_away()
        if refusal is None:
            return None
        headers = tuple(pair for pair in refusal.headers if pair[0] == "retry-after")
        return self.json(self.error(429, "This request would exceed your rate limit."), 429, headers)

    def answer_headers(self, request: Request) -> Sequence[tuple[str, str]]:
        """Return the request id."""
        found = dict(super().answer_headers(request))
        return (("request-id", found["x-request-id"]),)

    def answer_id(self, answer: Answer) -> str:
        """Return the id of a message."""
        return "msg_" + answer.id

    def models(self, request: Request) -> Reply:
        """Answer ``GET /v1/models``."""
        del request
        cards = [self.model_card(name) for name in self.config.models]
        return self.json({"data": cards, "has_more": False, "first_id": None, "last_id": None})

    def model_card(self, name: str) -> Document:
        """Return one entry of the model list."""
        return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}

    def answer(self, answer: Answer, usage: Document | None) -> Document:
        """Return a whole message."""
        choice = answer.choices[0]
        content: list[Document] = []
        if choice.reasoning:
            thoughts = choice.thoughts
            content.append({"type": "thinking", "thinking": thoughts, "signature": signature(thoughts)})
        if choice.tool is not None:
            given = _object(choice.content)
            content.append({"type": "tool_use", "id": choice.tool.id, "name": choice.tool.name, "input": given})
        elif choice.content:
            content.append({"type": "text", "text": choice.content})
        return {**self.opening(answer), "content": content, **self.ending(choice), "usage": usage}

    def opening(self, answer: Answer) -> Document:
        """Return a message that says nothing yet."""
        return {
            "id": self.answer_id(answer),
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    def ending(self, choice: Choice) -> Document:
        """Return why a message ended."""
        if choice.stop_reason is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": choice.stop_reason}
        return {"stop_reason": _STOPS[choice.finish], "stop_sequence": None}

    def usage(self, prompt: int, completion: int, cached: int, reasoning: int) -> Document:
        """Return usage; what was cached is not part of the input."""
        document: Document = {
            "input_tokens": prompt - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": completion,
            "service_tier": "standard",
        }
        if reasoning:
            document["output_tokens_details"] = {"thinking_tokens": reasoning}
        return document

    def error(self, status: int, message: str, *, kind: str = "", param: str | None = None) -> Document:
        """Return the body of an error."""
        del kind, param
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_sim"}

    def unauthorized(self) -> Reply:
        """Answer a request without the right key."""
        return self.fail(401, "invalid x-api-key")

    def unknown_model(self, model: str) -> Reply:
        """Answer a request for a model that is not served."""
        return self.fail(404, f"model: {model}")

    def overloaded(self, reason: Refusal) -> Reply:
        """Answer 529."""
        del reason
        return self.fail(529, "Overloaded")

    def too_long(self, prompt_tokens: int, limit: int | None) -> Reply | None:
        """Refuse what does not fit."""
        most = self.config.context_length
        if prompt_tokens >= most:
            return self.fail(400, f"prompt is too long: {prompt_tokens} tokens > {most} maximum")
        if limit is not None and prompt_tokens + limit > most:
            words = f"input length and `max_tokens` exceed context limit: {prompt_tokens} + {limit} > {most}"
            return self.fail(400, words)
        return None

    def unhealthy(self) -> Reply:
        """Answer a probe while the service is down."""
        return self.fail(503, "The service is temporarily unavailable")

    def missing(self, *, wrong_method: bool) -> Reply:
        """Answer a path that does not exist."""
        return self.fail(405 if wrong_method else 404, "Not found")

    def _count(self, request: Request) -> Reply:
        try:
            document = msgspec.json.decode(request.body)
            if isinstance(document, dict):
                document = {**document, "max_tokens": 1 << 20}
            chat = decode(MESSAGES, msgspec.json.encode(document)).chat()
        except (BadRequest, msgspec.DecodeError) as error:
            return self.fail(400, str(error))
        return self.json({"input_tokens": chat.prompts()[0].tokens})


def signature(thoughts: str) -> str:
    """Return what stands for Anthropic's signature of a thought."""
    return f"sig-{crc32(thoughts.encode()):08x}{math.isqrt(len(thoughts)):04x}"


def _object(text: str) -> object:
    """Return the arguments of a tool, an empty object where the length limit has cut them off."""
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {}
