"""``POST /v1/embeddings``: OpenAI's embedding request, read into a ``Call``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.edge.body import shape
from gateway.edge.openai_chat import BYTES_PER_TOKEN, Positive
from gateway.edge.openai_completions import Prompt, measure
from gateway.types.call import Call, Need, Operation


class EmbeddingShape(msgspec.Struct):
    """The members of an embedding request whose types are checked here."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: Prompt
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    user: str | None = None


def read(body: dict[str, Any], *, openrouter: bool) -> Call:
    """Return the call in ``body``. Raises ``BadRequest``."""
    embedding = shape(body, EmbeddingShape)
    _, size, tokens = measure(embedding.input)
    return Call(
        operation=Operation.EMBEDDINGS,
        body=body,
        model=embedding.model,
        stream=False,
        wants_usage=True,
        choices=1,
        max_tokens=None,
        input_bytes=size,
        prompt_estimate=tokens + size // BYTES_PER_TOKEN + 1,
        needs=Need.EMBEDDINGS,
        openrouter=openrouter,
        user=(embedding.user or "")[:128],
    )
