"""The face of an external API that speaks OpenAI's protocol: chat, completions, embeddings and responses.

Shown: a bearer key, rate limit headers, 429 with Retry-After over the requests per minute, the usage details OpenAI
always sends, ``usage: null`` on the other events when usage is asked for, no ``/metrics`` and no ``/health``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from gateway.sim.answers import Answer, Choice
from gateway.sim.config import SimConfig
from gateway.sim.engine import Engine, Refusal
from gateway.sim.faces.face import Document, Face
from gateway.sim.wire import Reply, Request

_WINDOW = 60.0


class OpenAIFace(Face):
    """See the module."""

    speaks_responses: ClassVar[bool] = True
    health_paths: ClassVar[tuple[str, ...]] = ("/v1/models",)
    server: ClassVar[str] = "sim"

    def __init__(self, config: SimConfig, engine: Engine) -> None:
        super().__init__(config, engine)
        self._taken: deque[float] = deque()
        self._serial = 0

    def turn_away(self) -> Reply | None:
        """Count the request against the minute; return 429 when the minute is full."""
        most = self.config.rpm
        if most is None:
            return None
        now = time.monotonic()
        while self._taken and self._taken[0] <= now - _WINDOW:
            self._taken.popleft()
        if len(self._taken) < most:
            self._taken.append(now)
            return None
        wait = self._taken[0] + _WINDOW - now
        words = (
            f"Rate limit reached for {self.config.models[0]} on requests per min (RPM): Limit {most}, "
            f"Used {len(self._taken)}, Requested 1. Please try again in {wait:.3f}s."
        )
        body = {"error": {"message": words, "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
        return self.json(body, 429, (("retry-after", str(math.ceil(wait))), *self._limits()))

    def answer_headers(self, request: Request) -> Sequence[tuple[str, str]]:
        """Return the request id and, under a limit, what is left of it."""
        del request
        self._serial += 1
        return (("x-request-id", f"req_{self.config.name}{self._serial:016x}"), *self._limits())

    def answer(self, answer: Answer, usage: Document | None) -> Document:
        """Return the whole answer, with tier and fingerprint."""
        return {**super().answer(answer, usage), "service_tier": "default", "system_fingerprint": "fp_sim"}

    def message(self, choice: Choice) -> Document:
        """Return the message, with OpenAI's own null."""
        return {**super().message(choice), "refusal": None, "annotations": []}

    def chunk(self, answer: Answer, choices: list[Document], *, asked_usage: bool) -> Document:
        """Return one event, with tier and fingerprint."""
        document = super().chunk(answer, choices, asked_usage=asked_usage)
        return {**document, "service_tier": "default", "system_fingerprint": "fp_sim"}

    def role_delta(self) -> Document:
        """Return the delta that opens a choice."""
        return {"role": "assistant", "content": "", "refusal": None}

    def usage(self, prompt: int, completion: int, cached: int, reasoning: int) -> Document:
        """Return usage with all its details, zeros included."""
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def error(self, status: int, message: str, *, kind: str = "", param: str | None = None) -> Document:
        """Return the body of an error answer; OpenAI's ``code`` is a word or null."""
        kinds = {"BadRequestError": "invalid_request_error", "NotFoundError": "invalid_request_error"}
        code = "rate_limit_exceeded" if status == 429 else None
        return {"error": {"message": message, "type": kinds.get(kind, "server_error"), "param": param, "code": code}}

    def unauthorized(self) -> Reply:
        """Answer a request without the right key."""
        words = "Incorrect API key provided. You can find your API key in the settings of your account."
        body = {"message": words, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
        return self.json({"error": body}, 401)

    def unknown_model(self, model: str) -> Reply:
        """Answer a request for a model that is not served."""
        words = f"The model `{model}` does not exist or you do not have access to it."
        body = {"message": words, "type": "invalid_request_error", "param": None, "code": "model_not_found"}
        return self.json({"error": body}, 404)

    def overloaded(self, reason: Refusal) -> Reply:
        """Answer 503, as an overloaded service does."""
        del reason
        return self.fail(503, "The engine is currently overloaded, please try again later")

    def too_long(self, prompt_tokens: int, limit: int | None) -> Reply | None:
        """Refuse what does not fit, in OpenAI's words and with its numbers."""
        most = self.config.context_length
        if limit is not None and prompt_tokens + limit > most:
            words = (
                f"This model's maximum context length is {most} tokens. However, you requested {prompt_tokens + limit} "
                f"tokens ({prompt_tokens} in the messages, {limit} in the completion). Please reduce the length of the "
                "messages or completion."
            )
        elif prompt_tokens >= most:
            words = (
                f"This model's maximum context length is {most} tokens. However, your messages resulted in "
                f"{prompt_tokens} tokens. Please reduce the length of the messages."
            )
        else:
            return None
        error = {
            "message": words,
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
        return self.json({"error": error}, 400)

    def unhealthy(self) -> Reply:
        """Answer a probe while the service is down."""
        return self.fail(503, "The server is temporarily unavailable")

    def missing(self, *, wrong_method: bool) -> Reply:
        """Answer a path that does not exist."""
        del wrong_method
        return self.fail(404, "Invalid URL", kind="NotFoundError")

    def _limits(self) -> tuple[tuple[str, str], ...]:
        most = self.config.rpm
        if most is None:
            return ()
        reset = self._taken[0] + _WINDOW - time.monotonic() if self._taken else 0.0
        return (
            ("x-ratelimit-limit-requests", str(most)),
            ("x-ratelimit-remaining-requests", str(max(0, most - len(self._taken)))),
            ("x-ratelimit-reset-requests", f"{max(0.0, reset):.3f}s"),
        )
