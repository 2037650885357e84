"""``POST /v1/embeddings``: OpenAI's embedding request, read into a ``Call``, and its answer."""

from __future__ import annotations

import struct
from base64 import b64encode
from contextlib import suppress
from typing import Any, Literal

from gateway.edge.body import shape
from gateway.edge.controls import RoutingShape, read_body
from gateway.edge.openai_chat import BYTES_PER_TOKEN, Positive
from gateway.edge.openai_completions import Prompt, measure
from gateway.edge.openai_reply import OpenAIReply
from gateway.types.call import Call, Need, Operation
from gateway.types.reply import Bill


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


class EmbeddingsReply(OpenAIReply):
    """Answers one embedding request, in base64 where that is asked for and the engine gave numbers.

    OpenAI's clients ask for it unasked, and decode what comes without a look; several engines know only numbers.
    """

    def answer(self, answer: dict[str, Any], model: str, provider: str, bill: Bill) -> None:
        """See ``gateway.types.reply.Reply``."""
        if self.call.body.get("encoding_format") == "base64":
            for each in answer["data"]:
                vector = each.get("embedding") if type(each) is dict else None
                if type(vector) is list:
                    with suppress(struct.error, OverflowError):  # no vector of numbers: it is passed on as it is
                        each["embedding"] = b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        super().answer(answer, model, provider, bill)
