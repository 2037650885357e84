"""What the gateway would know of a request of a trace: estimates and block hashes, with the errors they have in life.

Deterministic: the same trace and seed give the same estimates. Nothing here raises.
"""

from __future__ import annotations

import random
from typing import Final

from gateway.lab.trace import Arrival, Trace

BLOCK_TOKENS: Final = 64
"""Tokens behind each block hash that routing sees."""
ESTIMATE_SPREAD: Final = 0.08
"""Standard deviation of the logarithm of estimated over true prompt tokens: bytes per token vary with the text."""
_MASK: Final = (1 << 61) - 1


def estimates(trace: Trace, seed: int) -> list[int]:
    """Return the prompt tokens a gateway without a tokenizer would estimate for each request."""
    draw = random.Random(seed)  # noqa: S311 - repeatable, not a secret
    return [
        max(1, round(arrival.prompt_tokens * draw.lognormvariate(0.0, ESTIMATE_SPREAD))) for arrival in trace.arrivals
    ]


def blocks(arrival: Arrival, index: int, block_tokens: int) -> tuple[int, ...]:
    """Return the hashes of the prompt's full blocks as routing sees them.

    Args:
        arrival: the request.
        index: its place in the trace; what the trace says nothing of is unlike the prompt of any other request.
        block_tokens: tokens behind each hash of the trace.
    """
    full, chain = arrival.prompt_tokens // BLOCK_TOKENS, arrival.chain
    made: list[int] = []
    if chain and block_tokens >= BLOCK_TOKENS:
        inside = block_tokens // BLOCK_TOKENS
        for key in chain:
            made += [(key * 1_000_003 + place) & _MASK for place in range(inside)]
            if len(made) >= full:
                break
    elif chain:
        stride = BLOCK_TOKENS // block_tokens
        made = [key & _MASK for key in chain[stride - 1 :: stride]]
    del made[full:]
    if len(made) < full:
        base = ((index + 1) * 2_654_435_761_000_003) & _MASK
        made += [(base + place) & _MASK for place in range(len(made), full)]
    return tuple(made)
