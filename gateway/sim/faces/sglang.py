"""SGLang's face (0.5).

Oddities shown: every delta carries its nulls; ``matched_stop``; error bodies without an ``error`` object; any model
name is accepted and echoed; 503 "The request queue is full."; ids without a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gateway.sim import text
from gateway.sim.answers import Answer, Choice
from gateway.sim.counters import Exposition
from gateway.sim.engine import Refusal
from gateway.sim.faces.face import Document, Face, Route
from gateway.sim.requests import TOKENIZE, BadRequest, decode
from gateway.sim.wire import Reply, Request

_VERSION = "0.5.23"
_END_TOKEN = 151_645


class SGLangFace(Face):
    """See the module."""

    continuous_usage: ClassVar[bool] = True
    health_paths: ClassVar[tuple[str, ...]] = ("/health", "/health_generate")

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return the handlers of (method, path) besides generation."""
        return {
            ("GET", "/health"): self.healthy,
            ("GET", "/health_generate"): self.healthy,
            ("GET", "/v1/models"): self.models,
            ("GET", "/model_info"): self.model_info,
            ("GET", "/get_model_info"): self.model_info,
            ("GET", "/server_info"): self.server_info,
            ("GET", "/get_server_info"): self.server_info,
            ("POST", "/tokenize"): self.tokenize,
        }

    def served(self, model: str) -> str | None:
        """Return ``model``: SGLang answers under whatever name it is asked for."""
        return model or self.config.models[0]

    def answer_id(self, answer: Answer) -> str:
        """Return the bare id."""
        return answer.id

    def model_card(self, name: str) -> Document:
        """Return one entry of the model list."""
        return {
            "id": name,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "sglang",
            "root": name,
            "parent": None,
            "max_model_len": self.config.context_length,
        }

    def model_info(self, request: Request) -> Reply:
        """Answer ``GET /model_info``."""
        del request
        model = self.config.models[0]
        return self.json(
            {"model_path": model, "tokenizer_path": model, "is_generation": True, "weight_version": "default"}
        )

    def server_info(self, request: Request) -> Reply:
        """Answer ``GET /server_info``."""
        del request
        return self.json(
            {
                "model_path": self.config.models[0],
                "served_model_name": self.config.models[0],
                "context_length": self.config.context_length,
                "max_running_requests": self.config.timing.slots,
                "max_queued_requests": self.config.timing.queue_limit,
                "max_total_num_tokens": self.config.kv_tokens,
                "page_size": 1,
                "version": _VERSION,
            }
        )

    def tokenize(self, request: Request) -> Reply:
        """Answer ``POST /tokenize`` for a text or several: the counts are right, the ids mean nothing."""
        try:
            wanted = decode(TOKENIZE, request.body)
        except BadRequest as error:
            return self.bad_request(error.message, error.param)
        if wanted.prompt is None:
            return self.bad_request("prompt: Field required", "prompt")
        most = self.config.context_length
        if isinstance(wanted.prompt, str):
            counted = text.count(wanted.prompt)
            return self.json({"tokens": [0] * counted, "count": counted, "max_model_len": most})
        counts = [text.count(each) for each in wanted.prompt]
        return self.json({"tokens": [[0] * each for each in counts], "count": counts, "max_model_len": most})

    def answer(self, answer: Answer, usage: Document | None) -> Document:
        """Return the whole answer, with SGLang's metadata."""
        return {**super().answer(answer, usage), "metadata": {"weight_version": "default"}}

    def chat_choice(self, answer: Answer, choice: Choice) -> Document:
        """Return one choice, with ``matched_stop``."""
        return {**super().chat_choice(answer, choice), "matched_stop": _matched(choice, choice.finish)}

    def text_choice(self, answer: Answer, choice: Choice) -> Document:
        """Return one choice, with ``matched_stop``."""
        return {**super().text_choice(answer, choice), "matched_stop": _matched(choice, choice.finish)}

    def message(self, choice: Choice) -> Document:
        """Return the message with its nulls."""
        return {"reasoning_content": None, "tool_calls": None, **super().message(choice)}

    def chunk(self, answer: Answer, choices: list[Document], *, asked_usage: bool) -> Document:
        """Return one event; ``usage`` is null on every one of them."""
        del asked_usage
        return super().chunk(answer, choices, asked_usage=True)

    def chunk_choice(
        self, answer: Answer, choice: Choice, delta: Document, finish: str | None, logprobs: object = None
    ) -> Document:
        """Return the choice inside an event; a delta has all its keys."""
        if "text" not in delta:
            delta = {**dict.fromkeys(("role", "content", "reasoning_content", "tool_calls")), **delta}
        document = super().chunk_choice(answer, choice, delta, finish, logprobs)
        document["matched_stop"] = _matched(choice, finish)
        return document

    def usage(self, prompt: int, completion: int, cached: int, reasoning: int) -> Document:
        """Return usage; cached tokens only when there are some, reasoning tokens at the top level."""
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": cached} if cached and self.config.report_cached else None,
            "reasoning_tokens": reasoning,
        }

    def error(self, status: int, message: str, *, kind: str = "", param: str | None = None) -> Document:
        """Return the flat body of an error answer."""
        return {
            "object": "error",
            "message": message,
            "type": kind or "InternalServerError",
            "param": param,
            "code": status,
        }

    def stream_error(self, status: int, message: str) -> Document:
        """Return an error event: in streams SGLang wraps its error object."""
        return {"error": self.error(status, message)}

    def overloaded(self, reason: Refusal) -> Reply:
        """Answer 503, which is how SGLang says that its queue is full."""
        del reason
        return self.fail(503, "The request queue is full.", kind="ServiceUnavailableError")

    def too_long(self, prompt_tokens: int, limit: int | None) -> Reply | None:
        """Refuse what does not fit, in SGLang's words and with its numbers."""
        most = self.config.context_length
        if prompt_tokens >= most:
            words = f"The input ({prompt_tokens} tokens) is longer than the model's context length ({most} tokens)."
        elif limit is not None and prompt_tokens + limit >= most:
            words = (
                f"Requested token count exceeds the model's maximum context length of {most} tokens. You requested a "
                f"total of {prompt_tokens + limit} tokens: {prompt_tokens} tokens from the input messages and {limit} "
                "tokens for the completion. Please reduce the number of tokens in the input messages or the "
                "completion to fit within the limit."
            )
        else:
            return None
        return self.fail(400, words, kind="BadRequestError")

    def metrics(self) -> bytes:
        """Return ``/metrics`` as with --enable-metrics."""
        engine, counters = self.engine, self.engine.counters
        labels = {"model_name": self.config.models[0], "engine_type": "unified", "tp_rank": "0", "pp_rank": "0"}
        page = Exposition(labels)
        page.gauge("sglang:num_running_reqs", len(engine.running))
        page.gauge("sglang:num_queue_reqs", len(engine.waiting))
        page.gauge("sglang:token_usage", engine.kv_usage)
        page.gauge("sglang:num_used_tokens", engine.kv_usage * self.config.kv_tokens)
        page.gauge("sglang:max_total_num_tokens", self.config.kv_tokens)
        queries = counters.cache_queries
        page.gauge("sglang:cache_hit_rate", counters.cache_hits / queries if queries else 0.0)
        page.counter("sglang:prompt_tokens_total", counters.prompt_tokens)
        page.counter("sglang:generation_tokens_total", counters.generation_tokens)
        page.counter("sglang:cached_tokens_total", counters.cache_hits)
        page.counter("sglang:num_requests_total", counters.requests)
        page.histogram("sglang:time_to_first_token_seconds", counters.ttft)
        page.histogram("sglang:inter_token_latency_seconds", counters.itl)
        page.histogram("sglang:e2e_request_latency_seconds", counters.e2e)
        page.histogram("sglang:queue_time_seconds", counters.queue_time)
        return page.text()


def _matched(choice: Choice, finish: str | None) -> str | int | None:
    if finish != "stop":
        return None
    return _END_TOKEN if choice.stop_reason is None else choice.stop_reason
