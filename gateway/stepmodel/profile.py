"""How fast an engine on a certain machine is, and how much it holds: the constants of the step model.

The time of one step that decodes ``B`` sequences with ``C`` tokens of context and reads ``n`` prompt tokens behind
``h`` already computed ones is ``c0 + c1·B + c2·C + n/R + q·n·(h + n/2)``, times a noise factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of engine.

    Attributes:
        name: what the command line calls it.
        description: model, machine and source of the figures.
        step_s: c0, seconds of a step that does nothing else.
        sequence_s: c1, seconds per decoding sequence.
        context_s: c2, seconds per token of context of the decoding sequences.
        prefill_tokens_per_s: R, prompt tokens read per second by the linear layers.
        attention_s: q, seconds per prompt token and token of context before it.
        prefill_s: seconds added to the step in which a prompt begins to be read.
        chunk_tokens: prompt tokens and decoded tokens of one step together, at most.
        max_running: sequences that run side by side.
        kv_tokens: tokens that fit the KV cache.
        overhead_s: seconds between the arrival of a request and the engine's queue (HTTP, tokenizer).
        token_overhead_s: the same per prompt token.
        jitter: standard deviation of the logarithm of a step's time from one step to the next.
        drift: the same for the slow wandering of the speed over about a thousand steps.
        stall_share: share of steps that stall.
        stall_factor: how much longer such a step takes.
    """

    name: str
    description: str
    step_s: float
    sequence_s: float
    context_s: float
    prefill_tokens_per_s: float
    attention_s: float
    prefill_s: float = 0.0
    chunk_tokens: int = 8_192
    max_running: int = 256
    kv_tokens: int = 312_000
    overhead_s: float = 0.015
    token_overhead_s: float = 0.000_002
    jitter: float = 0.07
    drift: float = 0.05
    stall_share: float = 0.000_2
    stall_factor: float = 8.0

    def overhead(self, prompt_tokens: int) -> float:
        """Return the seconds from the arrival of a request of ``prompt_tokens`` to the engine's queue."""
        return self.overhead_s + self.token_overhead_s * prompt_tokens


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "fast": Profile(
            name="fast",
            description="Qwen3-32B, BF16, vLLM on two H100-80: decode from BLIS's coefficients, prefill as measured by "
            "llm-d (8,192 tokens in 0.40 s), attention from 4·layers·heads·head size FLOPs at the same rate",
            step_s=0.015_5,
            sequence_s=0.000_004_4,
            context_s=7.6e-8,
            prefill_tokens_per_s=20_480.0,
            attention_s=1.6e-9,
        ),
        "slow": Profile(
            name="slow",
            description="the AgentInfer coefficients shipped with vllm-project/router, hardware not stated: costly "
            "sequences and a prefill that is quadratic in the prompt",
            step_s=0.010_64,
            sequence_s=0.000_419,
            context_s=1.42e-7,
            prefill_tokens_per_s=17_544.0,
            attention_s=8.8e-9,
            prefill_s=0.066,
        ),
    }
)
"""The profiles there are, by name."""
