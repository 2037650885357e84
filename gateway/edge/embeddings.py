"""``POST /v1/embeddings``: OpenAI's embedding request, read into a ``Call``."""

from __future__ import annotations

from typing import Any, Literal

from gateway.edge.body import shape
from gateway.edge.controls import RoutingShape, read_body
from gateway.edge.openai_chat import BYTES_PER_TOKEN, Positive
from gateway.edge.openai_completions import Prompt, measure
from gateway.types.call import Call, Need, Operation


class EmbeddingShape(RoutingShape):
    """The members of an embedding request whose types are checked here."""

    input: Prompt
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None


def read(body: dict[str, Any], *, openrouter: bool) -> Call:
    """Return the call in ``body``. Raises ``BadRequest``."""
    embedding = shape(body, EmbeddingShape)
    texts, size, tokens = measure(embedding.input)
    call = Call(
        operation=Operation.EMBEDDINGS,
        body=body,
        model=embedding.named,
        stream=False,
        wants_usage=True,
        choices=1,
        max_tokens=None,
        input_bytes=size,
        prompt_estimate=tokens + size // BYTES_PER_TOKEN + 1,
        needs=Need.EMBEDDINGS,
        openrouter=openrouter,
        prompts=texts,
        user=(embedding.user or "")[:128],
    )
    read_body(call, embedding)
    return call
