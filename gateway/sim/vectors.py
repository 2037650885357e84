"""Embeddings of the simulated engines: unit vectors that depend on the text alone."""

from __future__ import annotations

import base64 as base64_codec
import hashlib
import math
import struct
from collections.abc import Sequence

from gateway.sim.text import Prompt


def unit_vector(prompt: Prompt, dimensions: int) -> list[float]:
    """Return the vector of ``prompt``, of Euclidean length 1."""
    raw = hashlib.shake_128(prompt.text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    # An odd offset keeps every component, and so the length, away from zero.
    numbers = [2 * number + 1 for number in struct.unpack(f"<{dimensions}h", raw)]
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


def encoded(vector: list[float]) -> str:
    """Return ``vector`` as base64 of little-endian 32-bit floats, OpenAI's ``encoding_format: base64``."""
    return base64_codec.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def embeddings(
    prompts: Sequence[Prompt], model: str, size: int, usage: dict[str, object] | None, *, base64: bool
) -> dict[str, object]:
    """Return the answer of ``/v1/embeddings``: vectors of ``size`` numbers, and usage without completion tokens."""
    vectors = [unit_vector(prompt, size) for prompt in prompts]
    data = [
        {"object": "embedding", "index": index, "embedding": encoded(vector) if base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    if usage is not None:
        usage = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"]}
    return {"object": "list", "data": data, "model": model, "usage": usage}
