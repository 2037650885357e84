"""What the library litellm is given: arguments that are known to be harmless, messages as it wants them, addresses.

Pure. What is no request for the library raises ``Unfit``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from gateway.config.snapshot import BackendSpec
from gateway.upstream.anthropic_request import thoughts_of

CHAT: Final = frozenset(
    {
        *("messages", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "modalities", "n", "seed", "stop"),
        *("parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort", "response_format", "stream"),
        *(
            "stream_options",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_logprobs",
            "top_p",
            "user",
        ),
        *("functions", "function_call", "verbosity", "service_tier"),
    }
)
EMBEDDINGS: Final = frozenset({"input", "dimensions", "user"})
"""Without ``encoding_format``, which the library takes for another kind of vector: base64 for one of bits."""
RERANK: Final = frozenset({"query", "documents", "top_n", "return_documents"})
_DETAILS: Final = frozenset({"reasoning", "reasoning_details"})
_LINKS: Final = ("http:", "https:", "gs:", "s3:", "file:")
_PUBLISHERS: Final = (("claude", "anthropic"), ("mistral", "mistralai"), ("codestral", "mistralai"))
"""Beginnings of the names of models on Vertex that are not Google's, and who publishes them."""
_INNER_SECRETS: Final = ("private_key", "client_secret", "refresh_token")


class Unfit(Exception):
    """The request is not one for the library; ``status`` is what the provider would say."""

    def __init__(self, words: str, status: int = 400) -> None:
        super().__init__(words)
        self.status = status


def told_apart(secrets: Sequence[str]) -> list[str]:
    """Return ``secrets`` and, of those that are documents, what is secret in them by itself; the longest first."""
    found = list(secrets)
    for secret in secrets:
        if secret.lstrip().startswith("{"):
            with suppress(ValueError):
                held = json.loads(secret)
                found += [held[name] for name in _INNER_SECRETS if isinstance(held.get(name), str)]
    return sorted(filter(None, found), key=len, reverse=True)


def vertex_places(backend: BackendSpec) -> str:
    """Return the URL below which Vertex's models of a backend are, or ``""`` when its URL names a model itself."""
    spec = backend.litellm
    assert spec is not None
    if "/publishers/" in backend.url or "/endpoints/" in backend.url:
        return ""
    project = spec.settings.get("vertex_project")
    credentials = spec.credentials.get("vertex_credentials")
    if project is None and credentials is not None:
        with suppress(ValueError, AttributeError):
            project = json.loads(credentials.reveal()).get("project_id")
    location = spec.settings.get("vertex_location")
    if not project or not location:
        return ""
    root = backend.url.rstrip("/").removesuffix("/v1")
    return f"{root}/v1/projects/{project}/locations/{location}/"


def vertex_place(model: str) -> str:
    """Return where ``model`` is below ``vertex_places``: tuned ones have a number and an endpoint of their own."""
    if model.isdigit():
        return f"endpoints/{model}"
    publisher = next((name for beginning, name in _PUBLISHERS if model.startswith(beginning)), "google")
    return f"publishers/{publisher}/models/{model}"


def only(body: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return the arguments in ``body`` that have a value and are known to be harmless."""
    return {name: value for name, value in body.items() if name in names and value is not None}


def without_details(message: Any, signed: bool) -> Any:
    """Return a message with the thoughts of earlier answers as the library names them, where a model can read them."""
    if not isinstance(message, dict) or not _DETAILS & message.keys():
        return message
    rest = {name: value for name, value in message.items() if name not in _DETAILS}
    details = message.get("reasoning_details")
    thoughts = thoughts_of(details) if signed and isinstance(details, list) else []
    return rest | {"thinking_blocks": thoughts} if thoughts else rest


def refuse_links(messages: Any) -> None:
    """Refuse parts of messages that the library would fetch from somewhere. Raises ``Unfit``."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if _links(part):
                raise Unfit("this backend takes no links in messages: send the file itself, as a data: URL")


def _links(value: Any, depth: int = 0) -> bool:
    """Whether a part holds a link; text is looked at only where it is no text of the message."""
    if isinstance(value, str):
        return value.lstrip().lower().startswith(_LINKS)
    if isinstance(value, dict) and depth < 4:
        return any(_links(each, depth + 1) for name, each in value.items() if name != "text")
    return False
