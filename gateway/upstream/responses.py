"""OpenAI's Responses as a speech, for backends that know it beside the chat form (``dialects: [responses]``).

Only callers who speak Responses themselves are passed on to it: the request goes out as it was written, without what no
caller may send, with the conversation that it goes on from in its input, and never to be stored there. Of the answer
everything goes along as it is under ``NATIVE``; what the meter and the limits see is its canonical form.
"""

from __future__ import annotations

import re
from typing import Any, Final

from gateway.engines.fields import FORBIDDEN
from gateway.fleet.snapshot import Candidate
from gateway.types.call import Call
from gateway.types.dialect import Dialect
from gateway.types.responses import ENCRYPTED, original_id
from gateway.upstream.responses_answer import ResponsesTranslator

_NOT_THERE: Final = FORBIDDEN.keys() | {
    "background",
    "background_options",
    "conversation",
    "previous_response_id",
    "prompt",
    "stream_options",
}
"""What a request never has there: what is the gateway's own, and what names what another caller may have stored."""
_LENGTHS: Final = ("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict")
_OURS: Final = re.compile(r"[a-z]+_[0-9a-f]{32}i?[0-9a-f]{4}")
"""Ids of items that were made here."""


class ResponsesSpeech:
    """See ``gateway.upstream.speech.Speech``."""

    dialect: Final = Dialect.RESPONSES
    path: Final = "/v1/responses"

    def body(
        self,
        candidate: Candidate,
        call: Call,  # noqa: ARG002 - what this speech says is all in ``content``
        content: dict[str, Any],
        *,
        max_tokens: int | None,
        stream: bool,
    ) -> dict[str, Any]:
        """Return the body; see the module."""
        body = {name: value for name, value in content.items() if name.casefold() not in _NOT_THERE}
        for name in _LENGTHS:
            body.pop(name, None)
        body["model"] = candidate.upstream_model
        body["stream"] = stream
        body["store"] = False
        if max_tokens is not None:
            body["max_output_tokens"] = max_tokens
        external = candidate.replica.engine.external
        items = body.get("input")
        if isinstance(items, list):
            body["input"] = [sent for item in items if (sent := _sent(item, external=external)) is not None]
        if external and body.get("reasoning"):
            # Reasoning that is not kept there can only come back sealed.
            body["include"] = list(dict.fromkeys((*(body.get("include") or ()), ENCRYPTED)))
        return body

    def lines(self, call: Call) -> bytes:  # noqa: ARG002 - as above
        """Return no header lines."""
        return b""

    def translator(self, call: Call) -> ResponsesTranslator:  # noqa: ARG002 - as above
        """Return what understands the answer."""
        return ResponsesTranslator()


def _sent(item: dict[str, Any], *, external: bool) -> dict[str, Any] | None:
    """Return an item of the input as the API knows it: under its own id, or none; None for what it could not read."""
    identity = item.get("id")
    if not isinstance(identity, str):
        return item
    original = original_id(identity)
    made_here = original is None and _OURS.fullmatch(identity) is not None
    if item.get("type") == "reasoning" and external and (made_here or not item.get("encrypted_content")):
        return None
    if original is not None:
        return {**item, "id": original}
    return {name: value for name, value in item.items() if name != "id"} if made_here else item


RESPONSES: Final = ResponsesSpeech()
