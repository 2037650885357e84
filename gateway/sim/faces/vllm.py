"""vLLM's face (0.32, V1 engine).

Oddities shown: nulls in whole answers and, when usage is asked for, ``usage: null`` on the other events; headers before
the first token; the finish on the last token's chunk; ``continuous_usage_stats``; 503 for a full queue; load in a
response header on request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar
from zlib import crc32

import msgspec

from gateway.sim import text
from gateway.sim.answers import Answer, Choice
from gateway.sim.counters import Exposition
from gateway.sim.engine import Refusal
from gateway.sim.faces.face import Document, Face, Route
from gateway.sim.requests import TOKENIZE, BadRequest, ChatRequest, decode
from gateway.sim.text import Prompt
from gateway.sim.wire import Reply, Request

_VERSION = "0.32.0"
_VOCABULARY = 151_643
_BLOCK_TOKENS = 16


class VLLMFace(Face):
    """See the module."""

    headers_early: ClassVar[bool] = True
    continuous_usage: ClassVar[bool] = True
    finish_on_last_token: ClassVar[bool] = True

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return the handlers of (method, path) besides generation."""
        return {
            ("GET", "/health"): self.healthy,
            ("GET", "/ping"): self.healthy,
            ("GET", "/v1/models"): self.models,
            ("GET", "/version"): lambda request: self.json({"version": _VERSION}),  # noqa: ARG005 - a Route
            ("POST", "/tokenize"): self.tokenize,
        }

    def model_card(self, name: str) -> Document:
        """Return one entry of the model list."""
        return {
            "id": name,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "vllm",
            "root": name,
            "parent": None,
            "max_model_len": self.config.context_length,
            "permission": [],
        }

    def tokenize(self, request: Request) -> Reply:
        """Answer ``POST /tokenize`` for a text or a conversation: the count is right, the ids mean nothing."""
        try:
            wanted = decode(TOKENIZE, request.body)
        except BadRequest as error:
            return self.bad_request(error.message, error.param)
        if wanted.model and self.served(wanted.model) is None:
            return self.unknown_model(wanted.model)
        if wanted.messages is not None:
            prompt = ChatRequest(messages=wanted.messages).prompts()[0]
        elif isinstance(wanted.prompt, str):
            prompt = Prompt(wanted.prompt, text.count(wanted.prompt))
        else:
            return self.bad_request("Either prompt or messages must be given", "prompt")
        digest = prompt.digest(0)
        ids = [crc32(place.to_bytes(4, "big"), digest) % _VOCABULARY for place in range(prompt.tokens)]
        most = self.config.context_length
        return self.json({"count": prompt.tokens, "max_model_len": most, "tokens": ids, "token_strs": None})

    def answer_headers(self, request: Request) -> Sequence[tuple[str, str]]:
        """Return the load header when the request asked for one, in ORCA's text or JSON form."""
        form = request.header(b"endpoint-load-metrics-format")
        if form is None:
            return ()
        load = {"kv_cache_usage_perc": self.engine.kv_usage, "num_requests_waiting": float(len(self.engine.waiting))}
        if form.lower() == "json":
            return (("endpoint-load-metrics", "JSON " + msgspec.json.encode({"named_metrics": load}).decode()),)
        if form.lower() == "text":
            fields = ", ".join(f"named_metrics.{name}={value!r}" for name, value in load.items())
            return (("endpoint-load-metrics", "TEXT " + fields),)
        return ()

    def answer(self, answer: Answer, usage: Document | None) -> Document:
        """Return the whole answer with the fields vLLM leaves null."""
        document = super().answer(answer, usage)
        document["service_tier"] = document["system_fingerprint"] = None
        if answer.chat:
            document["prompt_logprobs"] = document["prompt_token_ids"] = None
        document["kv_transfer_params"] = None
        return document

    def chat_choice(self, answer: Answer, choice: Choice) -> Document:
        """Return one choice, with ``stop_reason``."""
        return {**super().chat_choice(answer, choice), "stop_reason": choice.stop_reason, "token_ids": None}

    def text_choice(self, answer: Answer, choice: Choice) -> Document:
        """Return one choice, with ``stop_reason``."""
        document = super().text_choice(answer, choice)
        return {**document, "stop_reason": choice.stop_reason, "prompt_logprobs": None, "token_ids": None}

    def message(self, choice: Choice) -> Document:
        """Return the message with the fields vLLM leaves null."""
        nulls = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning", "reasoning_content"))
        base = super().message(choice)
        return {"role": base.pop("role"), "content": base.pop("content"), **nulls, "tool_calls": [], **base}

    def chunk_choice(
        self, answer: Answer, choice: Choice, delta: Document, finish: str | None, logprobs: object = None
    ) -> Document:
        """Return the choice inside an event, with ``stop_reason`` and ``token_ids`` where vLLM sets them."""
        document = super().chunk_choice(answer, choice, delta, finish, logprobs)
        if finish is not None:
            document["stop_reason"] = choice.stop_reason
        document["token_ids"] = None
        return document

    def usage(self, prompt: int, completion: int, cached: int, reasoning: int) -> Document:
        """Return usage; the details are null unless there is something in them."""
        details = {"cached_tokens": cached} if cached and self.config.report_cached else None
        document: Document = {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": details,
        }
        if reasoning:
            document["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return document

    def error(self, status: int, message: str, *, kind: str = "", param: str | None = None) -> Document:
        """Return the body of an error answer."""
        return {"error": {"message": message, "type": kind or "InternalServerError", "param": param, "code": status}}

    def overloaded(self, reason: Refusal) -> Reply:
        """Answer 503, which is how vLLM says that its queue is full."""
        words = {
            "queue_full": "The engine is currently busy: the limit of queued requests is reached.",
            "queued_tokens": "The engine is currently busy: the prefill token backlog limit is reached.",
        }
        return self.fail(503, words[reason], kind="ServiceUnavailableError")

    def too_long(self, prompt_tokens: int, limit: int | None) -> Reply | None:
        """Refuse what does not fit, in vLLM's words and with its numbers."""
        most = self.config.context_length
        if limit is None:
            if prompt_tokens < most:
                return None
            words = (
                f"You passed {prompt_tokens} input tokens and requested 1 output tokens. However, the model's context "
                f"length is only {most} tokens, resulting in a maximum input length of {most - 1} tokens. Please "
                f"reduce the length of the input prompt. (parameter=input_tokens, value={prompt_tokens})"
            )
        else:
            if prompt_tokens + limit <= most:
                return None
            words = (
                f"This model's maximum context length is {most} tokens. However, you requested {limit} output tokens "
                f"and your prompt contains at least {prompt_tokens} input tokens, for a total of at least "
                f"{prompt_tokens + limit} tokens. Please reduce the length of the input prompt or the number of "
                f"requested output tokens. (parameter=input_tokens, value={prompt_tokens})"
            )
        return self.fail(400, words, kind="BadRequestError", param="input_tokens")

    def metrics(self) -> bytes:
        """Return ``/metrics`` with the names of vLLM 0.32."""
        engine, counters = self.engine, self.engine.counters
        page = Exposition({"model_name": self.config.models[0], "engine": "0"})
        page.gauge("vllm:num_requests_running", len(engine.running))
        page.gauge("vllm:num_requests_waiting", len(engine.waiting))
        page.gauge("vllm:num_requests_waiting_by_reason", len(engine.waiting), reason="capacity")
        page.gauge("vllm:num_requests_waiting_by_reason", 0, reason="deferred")
        page.gauge("vllm:engine_sleep_state", 1, sleep_state="awake")
        page.gauge("vllm:kv_cache_usage_perc", engine.kv_usage)
        page.counter("vllm:prefix_cache_queries_total", counters.cache_queries)
        page.counter("vllm:prefix_cache_hits_total", counters.cache_hits)
        page.counter("vllm:num_preemptions_total", counters.preemptions)
        page.counter("vllm:prompt_tokens_total", counters.prompt_tokens)
        page.counter("vllm:prompt_tokens_cached_total", counters.cache_hits)
        page.counter("vllm:generation_tokens_total", counters.generation_tokens)
        for reason in ("stop", "length", "abort", "error"):
            page.counter("vllm:request_success_total", counters.finished[reason], finished_reason=reason)
        for reason in ("queue_full", "queued_tokens"):
            page.counter("vllm:admission_rejections_total", counters.refused[reason], reason=reason)
        page.histogram("vllm:time_to_first_token_seconds", counters.ttft)
        page.histogram("vllm:inter_token_latency_seconds", counters.itl)
        page.histogram("vllm:e2e_request_latency_seconds", counters.e2e)
        page.histogram("vllm:request_queue_time_seconds", counters.queue_time)
        blocks = str(self.config.kv_tokens // _BLOCK_TOKENS)
        page.gauge("vllm:cache_config_info", 1, block_size=str(_BLOCK_TOKENS), num_gpu_blocks=blocks)
        return page.text()
