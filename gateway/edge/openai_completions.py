"""``POST /v1/completions``: OpenAI's legacy completion request, read into a ``Call``."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from gateway.edge.body import shape
from gateway.edge.controls import read_body
from gateway.edge.openai_chat import BYTES_PER_TOKEN, LengthShape, Seed
from gateway.types.call import Call, Need, Operation

Prompt = str | list[str | int | list[int]]


class CompletionShape(LengthShape):
    """The members of a completion request whose types are checked here."""

    prompt: Prompt
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=50)] | None = None
    echo: bool | None = None
    suffix: str | None = None


def read(body: dict[str, Any], *, openrouter: bool) -> Call:
    """Return the call in ``body``. Raises ``BadRequest``."""
    completion = shape(body, CompletionShape)
    prompts, size, tokens = measure(completion.prompt)
    choices = prompts * (completion.n or 1)
    needs = Need.COMPLETIONS
    if completion.logprobs:
        needs |= Need.LOGPROBS
    if completion.n is not None and completion.n > 1:  # several prompts are no matter: every engine takes them
        needs |= Need.MANY_CHOICES
    call = Call(
        operation=Operation.COMPLETIONS,
        body=body,
        model=completion.named,
        stream=bool(completion.stream),
        wants_usage=openrouter or bool(completion.stream_options and completion.stream_options.get("include_usage")),
        choices=choices,
        max_tokens=completion.length,
        input_bytes=size,
        prompt_estimate=tokens + size // BYTES_PER_TOKEN,
        needs=needs,
        openrouter=openrouter,
        prompts=prompts,
        user=(completion.user or "")[:128],
    )
    read_body(call, completion)
    return call


def measure(prompt: Prompt) -> tuple[int, int, int]:
    """Return how many prompts there are, the bytes of their text, and the tokens given as numbers."""
    if isinstance(prompt, str):
        return 1, len(prompt.encode()), 0
    if prompt and isinstance(prompt[0], int):
        return 1, 0, len(prompt)
    size = sum(len(each.encode()) for each in prompt if isinstance(each, str))
    tokens = sum(len(each) for each in prompt if isinstance(each, list))
    return max(1, len(prompt)), size, tokens
