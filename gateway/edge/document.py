"""Our own OpenAPI document: what FastAPI knows of its paths, completed by what only we know.

The inference paths run beside FastAPI, so they are described here: their bodies by the very structures that read
them, their answers by hand. Every operation gets the two ways to send a key and the shape of its errors; FastAPI's own
errors, which nobody ever sees, are taken out. The document is the same for every gateway of a version. Nothing here
raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.edge import shapes
from gateway.edge.anthropic_messages import MessagesShape, PromptShape
from gateway.edge.controls import ProviderShape
from gateway.edge.embeddings import EmbeddingShape
from gateway.edge.openai_chat import ChatShape
from gateway.edge.openai_completions import CompletionShape
from gateway.edge.openai_responses import ResponsesShape
from gateway.edge.rerank import RerankShape

Schema = dict[str, Any]
REQUESTS: Final[Mapping[str, tuple[type[msgspec.Struct], str, str]]] = {
    "/chat/completions": (ChatShape, "ChatCompletion", "Answer a conversation"),
    "/completions": (CompletionShape, "Completion", "Complete a text"),
    "/embeddings": (EmbeddingShape, "Embeddings", "Embed texts"),
    "/rerank": (RerankShape, "Rerank", "Order documents by relevance"),
    "/responses": (ResponsesShape, "Response", "Answer, OpenAI's Responses"),
    "/responses/input_tokens": (ResponsesShape, "TokenCount", "Count the tokens of a request of Responses"),
    "/messages": (MessagesShape, "Message", "Answer, Anthropic's Messages"),
    "/messages/count_tokens": (PromptShape, "TokenCount", "Count the tokens of a prompt"),
}
"""Inference paths below ``/v1`` and ``/api/v1``: who reads the body, what is answered, what it does."""
_REF: Final = "#/components/schemas/"
_SHAPE: Final = re.compile(r"^_?(.*?)(?:Shape)?$")
_ANTHROPIC: Final = ("/messages", "/messages/count_tokens")
_SECURITY: Final[list[Schema]] = [{"bearer": []}, {"apiKey": []}]
_KEYLESS: Final = frozenset({"/health", "/ready"})


def completed(document: Schema, inference: Sequence[str]) -> Schema:
    """Return the OpenAPI ``document`` of FastAPI with everything that it does not know.

    Args:
        document: of FastAPI; changed.
        inference: all inference paths.
    """
    paths: dict[str, Any] = document["paths"]
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    components |= {**shapes.COMPONENTS, **_request_schemas()}
    for path in inference:
        paths[path] = {"post": _inference(path)}
    paths |= shapes.PLAIN_PATHS
    for path, item in paths.items():
        for method, operation in item.items():
            _finish(path, method, operation)
    document["paths"] = dict(sorted(paths.items()))
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An inference key, or a management key."},
        "apiKey": {
            "type": "apiKey",
            "in": "header",
            "name": "x-api-key",
            "description": "The same, as Anthropic has it.",
        },
    }
    return document


def _finish(path: str, method: str, operation: Schema) -> None:
    """Complete one operation."""
    operation["operationId"] = _identity(path, method)
    responses: dict[str, Any] = operation.setdefault("responses", {})
    responses.pop("422", None)
    error = "AnthropicError" if path.endswith(_ANTHROPIC) and path.count("{") == 0 else "Error"
    content = {"application/json": {"schema": {"$ref": _REF + error}}}
    for status, text in (("4XX", "Refused; `error.message` says why."), ("5XX", "Cannot be done now.")):
        known = responses.get(status, {})
        responses[status] = {"description": known.get("description") or text, "content": content}
    good = responses.get("200")
    if good is not None:
        shown = shapes.ANSWERS.get(path)
        schema = good.get("content", {}).get("application/json", {}).get("schema")
        if shown is not None:
            good["content"] = shown
        elif schema == {}:
            good["content"] = {"application/json": {"schema": {"type": "object"}}}
    if path in _KEYLESS:
        operation["security"] = []
    else:
        operation["security"] = _SECURITY


def _identity(path: str, method: str) -> str:
    words = re.findall(r"[a-zA-Z0-9]+", path)
    return "_".join([method, *words])


def _inference(path: str) -> Schema:
    """Return the operation of an inference path."""
    prefix = "/api/v1" if path.startswith("/api/v1") else "/v1"
    known = REQUESTS.get(path.removeprefix(prefix))
    if known is None:  # a path that nobody described is served all the same
        return {"tags": ["inference"], "responses": {"200": {"description": "The answer.", "content": {}}}}
    shape, answer, summary = known
    content: Schema = {"application/json": {"schema": {"$ref": _REF + answer}}}
    if answer not in {"Embeddings", "Rerank", "TokenCount"}:
        content["text/event-stream"] = {"schema": {"description": f"Server-sent events: {answer} in parts."}}
    return {
        "tags": ["inference"],
        "summary": summary,
        "parameters": shapes.HEADERS,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF + _named(shape.__name__)}}},
        },
        "responses": {"200": {"description": "The answer.", "headers": shapes.ANSWER_HEADERS, "content": content}},
    }


def _named(name: str) -> str:
    """Return how the document calls a structure."""
    found = _SHAPE.match(name)
    assert found is not None, "every name matches"
    return f"{found[1]}Request" if name.endswith("Shape") else found[1]


def _request_schemas() -> dict[str, Schema]:
    """Return the schemas of all request bodies and of what they hold."""
    kinds = [shape for shape, _, _ in REQUESTS.values()]
    _, found = msgspec.json.schema_components([*kinds, ProviderShape], ref_template=_REF + "{name}")
    named = {_named(name): _renamed(schema, found) for name, schema in found.items()}
    for schema in named.values():
        schema["title"] = _named(schema["title"])
    for shape in kinds:
        properties = named[_named(shape.__name__)]["properties"]
        if "provider" in properties:
            properties["provider"] = {"anyOf": [{"$ref": _REF + _named("ProviderShape")}, {"type": "null"}]}
    return named


def _renamed(node: Any, known: Mapping[str, Any]) -> Any:
    """Return a schema with its references as the document calls them."""
    if isinstance(node, list):
        return [_renamed(item, known) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: _renamed(value, known) for name, value in node.items()}
    reference = made.get("$ref")
    if isinstance(reference, str) and reference.removeprefix(_REF) in known:
        made["$ref"] = _REF + _named(reference.removeprefix(_REF))
    return made
