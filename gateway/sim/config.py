"""Settings of one simulated backend: what it pretends to be, how fast it is, what it breaks.

Everything is frozen; a value that makes no sense raises ``ValueError`` when the object is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.sim.faults import Fault
from gateway.stepmodel import PROFILES

Kind = Literal["vllm", "sglang", "tgi", "openai", "anthropic"]

KINDS: tuple[Kind, ...] = ("vllm", "sglang", "tgi", "openai")
"""Those that speak OpenAI's chat."""

ALL_KINDS: tuple[Kind, ...] = (*KINDS, "anthropic")

_TGI_CONCURRENT_REQUESTS = 128


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a simulated engine takes; the default answers at once.

    Time to first token = wait for a slot + ``base_ttft`` + uncached prompt tokens / ``prefill_tokens_per_s``;
    every further token comes ``itl`` after the one before it.

    Attributes:
        base_ttft: seconds from slot to first token for an empty prompt.
        prefill_tokens_per_s: prompt tokens a second; 0 means prefill takes no time.
        itl: inter-token latency in seconds; with 0 all tokens leave together.
        slots: requests that run at the same time.
        queue_limit: requests that may wait while all slots are busy; None means no limit. vLLM calls
            ``slots + queue_limit`` --max-num-queued-reqs, TGI calls it max_concurrent_requests (128 when this is None),
            SGLang calls ``queue_limit`` max_queued_requests.
        queue_token_limit: prompt tokens that may wait or be in prefill (vLLM's --max-num-queued-tokens); None means
            no limit. An engine that reads nothing takes one prompt of any size.
        jitter: relative standard deviation of both latencies, drawn from the seed of the backend.
    """

    base_ttft: float = 0.0
    prefill_tokens_per_s: float = 0.0
    itl: float = 0.0
    slots: int = 256
    queue_limit: int | None = None
    queue_token_limit: int | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("base_ttft", "prefill_tokens_per_s", "itl", "jitter"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.slots < 1:
            raise ValueError("slots must be at least 1")
        for name in ("queue_limit", "queue_token_limit"):
            limit = getattr(self, name)
            if limit is not None and limit < 0:
                raise ValueError(f"{name} must not be negative")


INSTANT = Timing()


@dataclass(frozen=True, slots=True)
class SimConfig:
    """One simulated backend.

    Attributes:
        kind: whose HTTP face it shows.
        models: model names it serves; the first is the one in its metrics.
        name: what the fleet and the READY line call it.
        host: address to listen on.
        port: TCP port, 0 takes a free one.
        control_port: a second port that serves only ``/sim/*`` and stays open while faults close the first;
            None opens none, 0 takes a free one.
        timing: latencies, slots and queue.
        profile: times and memory by the step model with this profile (``gateway.stepmodel.PROFILES``) instead of
            ``timing``, of which the limits still hold; None does not.
        seed: makes texts, vectors, jitter and fault probabilities repeat.
        context_length: tokens of prompt and answer together.
        answer_tokens: tokens of an answer that nothing else limits.
        answer_tokens_max: when set, the natural length is drawn per prompt between ``answer_tokens`` and this.
        reasoning_tokens: tokens of reasoning before the content of every plain chat answer.
        embedding_dimensions: length of a vector when the request names none.
        kv_tokens: KV cache size in tokens, also the size of the prompt cache.
        prompt_cache: whether repeated prompt prefixes are cached.
        report_cached: whether usage reports cached tokens (a start option of vLLM and SGLang).
        api_key: key asked for under ``/v1``, as a bearer token or as Anthropic does; None lets everybody in.
        rpm: requests a minute before an ``openai`` or ``anthropic`` face answers 429; None means no limit.
        keep_alive: seconds after which an idle connection is closed; None never.
        refuse_in_stream: whether a streamed request is refused by an event inside a 200 answer; None does as the
            engine does (TGI: yes, the others: no).
        faults: what is broken from the start.
        books_limit: requests remembered one by one; totals never stop counting.
        max_body_bytes: larger request bodies get a 413.
    """

    kind: Kind = "vllm"
    models: tuple[str, ...] = ("Qwen/Qwen3-32B",)
    name: str = "sim"
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int | None = None
    timing: Timing = INSTANT
    profile: str | None = None
    seed: int = 0
    context_length: int = 40_960
    answer_tokens: int = 24
    answer_tokens_max: int | None = None
    reasoning_tokens: int = 0
    embedding_dimensions: int = 256
    kv_tokens: int = 312_000
    prompt_cache: bool = True
    report_cached: bool = True
    api_key: str | None = field(default=None, repr=False)
    rpm: int | None = None
    keep_alive: float | None = None
    refuse_in_stream: bool | None = None
    faults: tuple[Fault, ...] = ()
    books_limit: int = 10_000
    max_body_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.kind not in ALL_KINDS:
            raise ValueError(f"kind must be one of {', '.join(ALL_KINDS)}, not {self.kind!r}")
        if not self.models or not all(self.models):
            raise ValueError("a backend needs at least one model name")
        for name in ("context_length", "answer_tokens", "embedding_dimensions", "kv_tokens", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.profile is not None and self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, not {self.profile!r}")
        if self.profile is not None and self.kv_tokens < self.context_length:
            raise ValueError("kv_tokens must be at least context_length: a longest request would wait for ever")
        if self.answer_tokens_max is not None and self.answer_tokens_max < self.answer_tokens:
            raise ValueError("answer_tokens_max must not be less than answer_tokens")
        if self.reasoning_tokens < 0 or self.books_limit < 0:
            raise ValueError("reasoning_tokens and books_limit must not be negative")
        if self.rpm is not None and self.rpm < 1:
            raise ValueError("rpm must be at least 1")

    @property
    def slots(self) -> int:
        """Requests that run at the same time, with TGI's own default limit applied."""
        if self.timing.queue_limit is None and self.kind == "tgi":
            return min(self.timing.slots, _TGI_CONCURRENT_REQUESTS)
        return self.timing.slots

    @property
    def waiting_limit(self) -> int | None:
        """Requests that may wait for a slot, with TGI's own default applied."""
        if self.timing.queue_limit is None and self.kind == "tgi":
            return _TGI_CONCURRENT_REQUESTS - self.slots
        return self.timing.queue_limit
