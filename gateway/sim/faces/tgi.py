"""TGI's face (3.3).

Oddities shown: 429 over max_concurrent_requests, 422 for input it does not take, 424 for a failed generation, in bodies
of ``error`` and ``error_type``; a streamed request is refused by an event inside a 200 answer; empty ids; the role on
every delta; no cached tokens and no embeddings; any model name is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gateway.sim.answers import Answer, Choice
from gateway.sim.counters import Exposition
from gateway.sim.engine import Refusal
from gateway.sim.faces.face import Document, Face, Route
from gateway.sim.requests import TOKENIZE, BadRequest, ChatRequest, decode
from gateway.sim.wire import Reply, Request

_VERSION = "3.3.7"
_ERROR_TYPES = {422: "validation", 424: "generation", 429: "overloaded", 500: "incomplete_generation"}


class TGIFace(Face):
    """See the module."""

    headers_early: ClassVar[bool] = True
    finish_on_last_token: ClassVar[bool] = True
    opens_with_role: ClassVar[bool] = False
    has_embeddings: ClassVar[bool] = False
    errors_in_stream: ClassVar[bool] = True
    server: ClassVar[str] = "tgi"

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return the handlers of (method, path) besides generation."""
        return {
            ("GET", "/health"): self.healthy,
            ("GET", "/info"): self.info,
            ("GET", "/v1/models"): self.models,
            ("POST", "/chat_tokenize"): self.chat_tokenize,
        }

    def served(self, model: str) -> str | None:
        """Return the model it runs, whatever it is asked for."""
        del model
        return self.config.models[0]

    def answer_id(self, answer: Answer) -> str:
        """Return what TGI sends as id: nothing."""
        del answer
        return ""

    def model_card(self, name: str) -> Document:
        """Return one entry of the model list."""
        return {"id": name, "object": "model", "created": 0, "owned_by": name}

    def info(self, request: Request) -> Reply:
        """Answer ``GET /info``."""
        del request
        return self.json(
            {
                "model_id": self.config.models[0],
                "model_sha": None,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": self._most_concurrent(),
                "max_best_of": 2,
                "max_stop_sequences": 4,
                "max_input_tokens": self.config.context_length - 1,
                "max_total_tokens": self.config.context_length,
                "validation_workers": 2,
                "max_client_batch_size": 4,
                "router": "text-generation-router",
                "version": _VERSION,
                "sha": None,
                "docker_label": None,
            }
        )

    def chat_tokenize(self, request: Request) -> Reply:
        """Answer ``POST /chat_tokenize``: as many tokens as the chat has, which mean nothing."""
        try:
            wanted = decode(TOKENIZE, request.body)
        except BadRequest as error:
            return self.bad_request(error.message, error.param)
        if wanted.messages is None:
            return self.bad_request("missing field `messages`", "messages")
        prompt = ChatRequest(messages=wanted.messages).prompts()[0]
        tokens = [{"id": 0, "text": "", "start": 0, "stop": 0}] * prompt.tokens
        return self.json({"tokenize_response": tokens, "templated_text": ""})

    def answer(self, answer: Answer, usage: Document | None) -> Document:
        """Return the whole answer, with the fingerprint."""
        return {**super().answer(answer, usage), "system_fingerprint": f"{_VERSION}-native"}

    def message(self, choice: Choice) -> Document:
        """Return the message; a tool call comes without content."""
        message = super().message(choice)
        if choice.tool is not None:
            del message["content"]
        return message

    def chunk(self, answer: Answer, choices: list[Document], *, asked_usage: bool) -> Document:
        """Return one event; ``usage`` is null on every one of them."""
        del asked_usage
        return {**super().chunk(answer, choices, asked_usage=True), "system_fingerprint": f"{_VERSION}-native"}

    def delta(self, choice: Choice, step: int) -> Document:
        """Return the delta of a token; each carries the role."""
        return {"role": "assistant", **super().delta(choice, step)}

    def usage(self, prompt: int, completion: int, cached: int, reasoning: int) -> Document:
        """Return the three counts, all TGI knows."""
        del cached, reasoning
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def error(self, status: int, message: str, *, kind: str = "", param: str | None = None) -> Document:
        """Return the body of an error answer."""
        del kind, param
        return {"error": message, "error_type": _ERROR_TYPES.get(status, "unknown")}

    def stream_error(self, status: int, message: str) -> Document:
        """Return an error event, in the shape TGI keeps for OpenAI's streams."""
        return {"error": {"message": message, "http_status_code": status}}

    def bad_request(self, message: str, param: str | None) -> Reply:
        """Answer 422, as for all input it does not take."""
        return self.fail(422, f"Input validation error: {message}", param=param)

    def overloaded(self, reason: Refusal) -> Reply:
        """Answer 429, which is how TGI says that it is full."""
        del reason
        return self.fail(429, "Model is overloaded")

    def too_long(self, prompt_tokens: int, limit: int | None) -> Reply | None:
        """Refuse what does not fit, in TGI's words and with its numbers."""
        most = self.config.context_length
        if prompt_tokens >= most:
            words = f"Input validation error: `inputs` must have less than {most - 1} tokens. Given: {prompt_tokens}"
        elif limit is not None and prompt_tokens + limit > most:
            words = (
                f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {most}. "
                f"Given: {prompt_tokens} `inputs` tokens and {limit} `max_new_tokens`"
            )
        else:
            return None
        return self.fail(422, words)

    def unhealthy(self) -> Reply:
        """Answer a health probe while the backend is unhealthy."""
        return self.json({"error": "unhealthy", "error_type": "healthcheck"}, 503)

    def missing(self, *, wrong_method: bool) -> Reply:
        """Answer a path that does not exist: without a body."""
        return Reply(405 if wrong_method else 404, b"", "")

    def metrics(self) -> bytes:
        """Return ``/metrics`` with TGI's names; none has labels."""
        engine, counters = self.engine, self.engine.counters
        held = sum(run.prompt.tokens + run.steps for run in engine.running)
        page = Exposition()
        page.gauge("tgi_batch_current_size", len(engine.running))
        page.gauge("tgi_batch_current_max_tokens", held)
        page.gauge("tgi_batch_max_total_tokens", self.config.kv_tokens)
        page.gauge("tgi_queue_size", len(engine.waiting))
        page.counter("tgi_request_count", counters.requests)
        page.counter("tgi_request_success", sum(counters.finished[reason] for reason in ("stop", "length")))
        page.counter("tgi_request_failure", sum(counters.refused.values()), err="overloaded")
        page.counter("tgi_request_failure", counters.finished["abort"], err="dropped")
        page.counter("tgi_request_input_length_sum", counters.prompt_tokens)
        page.counter("tgi_request_generated_tokens_sum", counters.generation_tokens)
        page.histogram("tgi_request_duration", counters.e2e)
        page.histogram("tgi_request_queue_duration", counters.queue_time)
        page.histogram("tgi_request_mean_time_per_token_duration", counters.itl)
        return page.text()

    def _most_concurrent(self) -> int | None:
        waiting = self.config.waiting_limit
        return None if waiting is None else self.config.slots + waiting
