"""The most a request can cost: an upper bound, not an estimate, so that what is reserved is never too little.

A prompt has no more tokens than its text has bytes (byte-level tokenizers never make more), plus what a chat template
adds, plus a bound for each image and for audio; and no more than the context of the model. Near the limit of a budget
it has as many as its engines count. An answer is no longer than the caller's limit or the endpoint's, and without any
than the context. Every token counts at the dearest rate of any class, tier and endpoint that may serve it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from gateway.fleet.snapshot import Endpoint, Model
from gateway.pricing.charge import bound
from gateway.types.call import WHOLE, Call, Operation

TEMPLATE_TOKENS: Final = 256
"""What a chat template adds around everything: a system prompt of its own, a date, the head of a tool list."""
MESSAGE_TOKENS: Final = 16
"""What it adds around each message."""
IMAGE_TOKENS: Final = 16_384
"""The most that an image becomes: the largest default of vision models that Weir knows of."""
AUDIO_BYTES: Final = 32
"""Bytes of base64 that are at least one token of audio: 25 tokens a second at 8 kbit/s are 54 to a token."""
_MEDIA: Final = frozenset({"image_url", "input_audio", "video_url", "file", "image", "audio_url"})
_encode: Final = msgspec.json.Encoder().encode


class Most(NamedTuple):
    """The most a request can cost, in nano-USD.

    Attributes:
        whole: with an answer as long as it can be.
        fixed: with no answer at all.
        length: most tokens of each choice that ``whole`` counts.
    """

    whole: int
    fixed: int
    length: int


def most(call: Call, models: Iterable[Model], team: str) -> Most:
    """Return the most that ``call`` can cost ``team`` at any endpoint of ``models``."""
    tokens = prompt_tokens(call)
    whole = fixed = longest = 0
    for model in models:
        for endpoint in model.endpoints:
            rates, _ = endpoint.sold_to(team)
            prompt = min(tokens, endpoint.context_length * call.prompts)
            length = answer_tokens(call, endpoint)
            whole = max(whole, bound(rates, prompt, length * call.choices))
            fixed = max(fixed, bound(rates, prompt, 0))
            longest = max(longest, length)
    return Most(whole, fixed, longest)


def affordable(call: Call, models: Iterable[Model], team: str, amount: int, longest: int) -> int:
    """Return how many tokens each choice may have, up to ``longest``, so that ``call`` costs at most ``amount``.

    ``amount`` is nano-USD; 0 when not even the prompt is affordable.
    """
    tokens = prompt_tokens(call)
    least = longest
    for model in models:
        for endpoint in model.endpoints:
            rates, _ = endpoint.sold_to(team)
            prompt = min(tokens, endpoint.context_length * call.prompts)
            low, high = 0, least
            # The bound rises with the length, and is no more than a line: a few steps find the place.
            while low < high:
                middle = (low + high + 1) // 2
                if bound(rates, prompt, middle * call.choices) <= amount:
                    low = middle
                else:
                    high = middle - 1
            least = low
    return least


def answer_tokens(call: Call, endpoint: Endpoint) -> int:
    """Return the most tokens that each choice of an answer to ``call`` can have at ``endpoint``."""
    if call.operation in WHOLE:
        return 0
    if call.max_tokens is None:
        return endpoint.context_length
    limit = min(call.max_tokens, endpoint.context_length)
    return limit if endpoint.max_output is None else min(limit, endpoint.max_output)


def prompt_tokens(call: Call) -> int:
    """Return the most tokens that the prompt of ``call`` can have, whatever its tokenizer unless that was asked."""
    if call.counted is not None:
        return call.counted
    body = call.body
    if call.operation is Operation.RERANK:
        # The query is read again with every document.
        query = len(_encode(body["query"])) + TEMPLATE_TOKENS
        return sum(query + _document_tokens(document) for document in body["documents"])
    if call.operation is not Operation.CHAT:
        prompt = body.get("prompt", body.get("input"))
        # Token numbers take at least a digit and a comma each.
        return len(_encode([prompt, body.get("suffix")])) + TEMPLATE_TOKENS * call.prompts
    messages = body.get("messages") or ()
    media, tokens = 0, 0
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping) and part.get("type") in _MEDIA:
                size = len(_encode(part))
                media += size
                tokens += _media_tokens(part, size)
    # Members that templates may print, whatever they are called, are in the body: all of it counts.
    return len(_encode(body)) - media + tokens + TEMPLATE_TOKENS + MESSAGE_TOKENS * len(messages)


def _document_tokens(document: Any) -> int:
    """Return the most tokens that a document to rank becomes: its text, and the image it may have."""
    if isinstance(document, Mapping) and document.get("image") is not None:
        return len(_encode({**document, "image": None})) + IMAGE_TOKENS
    return len(_encode(document))


def _media_tokens(part: Mapping[str, Any], size: int) -> int:
    """Return the most tokens that an image or a piece of audio, of ``size`` bytes as JSON, becomes."""
    if part.get("type") in ("image_url", "image"):
        return IMAGE_TOKENS
    return max(IMAGE_TOKENS, size // AUDIO_BYTES)
