"""Anthropic's messages as a speech: what a request is on the wire, and who understands its answer.

A caller who speaks messages is passed on: the body as it was written, with what the gateway sets and without what no
caller may send. Every other request is put into messages by ``anthropic_request``.
"""

from __future__ import annotations

import re
from typing import Any, Final

from gateway.engines.fields import FORBIDDEN
from gateway.fleet.snapshot import Candidate
from gateway.types.call import Call
from gateway.types.dialect import Dialect
from gateway.upstream.anthropic_answer import MessagesTranslator
from gateway.upstream.anthropic_request import budgeted, messages_body

USUAL_LENGTH: Final = 8192
"""Tokens of an answer when neither its caller nor the endpoint says how long it may be; the API wants a number."""
VERSION: Final = "2023-06-01"
"""Of the API that chat requests are translated for."""
VERSIONS: Final = re.compile(r"20\d\d-\d\d-\d\d", re.ASCII)
"""Versions that a caller may write for."""
BETAS: Final = re.compile(r"[a-z0-9-]{1,64}(,[a-z0-9-]{1,64}){0,31}", re.ASCII)
"""Names of features that a caller may ask the API to switch on."""

_OPENROUTERS: Final = ("user", "prompt_cache_key")
"""Members that OpenRouter's requests may have, and this API refuses."""


class MessagesSpeech:
    """See ``gateway.upstream.speech.Speech``."""

    dialect: Final = Dialect.MESSAGES
    path: Final = "/v1/messages"

    def body(
        self,
        candidate: Candidate,
        call: Call,
        content: dict[str, Any],
        *,
        max_tokens: int | None,
        stream: bool,
    ) -> dict[str, Any]:
        """Return the body; raises ``BadRequest`` when the request cannot be said."""
        limit = max_tokens or _length(candidate)
        model = candidate.upstream_model
        if call.dialect is not Dialect.MESSAGES:
            return messages_body(content, model=model, max_tokens=limit, stream=stream)
        body = {name: value for name, value in content.items() if name.casefold() not in FORBIDDEN}
        for name in _OPENROUTERS:
            body.pop(name, None)
        if call.user and "metadata" not in body:
            body["metadata"] = {"user_id": call.user}
        body["model"] = model
        body["max_tokens"] = limit
        body["stream"] = stream
        budgeted(body)
        return body

    def lines(self, call: Call) -> bytes:
        """Return the version that the request is written for, and the features its caller wants switched on."""
        version = call.api_version if call.dialect is Dialect.MESSAGES and call.api_version else VERSION
        lines = b"anthropic-version: %s\r\n" % version.encode("ascii")
        return lines + b"anthropic-beta: %s\r\n" % call.betas.encode("ascii") if call.betas else lines

    def translator(self, call: Call) -> MessagesTranslator:
        """Return what understands the answer."""
        wish = call.body.get("reasoning")
        return MessagesTranslator(
            native=call.dialect is Dialect.MESSAGES,
            hides=isinstance(wish, dict) and wish.get("exclude") is True,
        )


def _length(candidate: Candidate) -> int:
    endpoint = candidate.endpoint
    return endpoint.max_output or min(USUAL_LENGTH, max(1, endpoint.context_length // 2))


MESSAGES: Final = MessagesSpeech()
