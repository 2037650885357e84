"""Reading the JSON body of a management request, strictly.

A body that is too large is ``PayloadTooLarge`` before it is read whole; one that is not UTF-8, not JSON, too deep,
names a field twice, has an unknown field or a wrong type is ``BadRequest`` that names the field.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, Final, NoReturn, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.types.errors import BadRequest, PayloadTooLarge

MAX_BODY: Final = 256 * 1024
"""Bytes; the largest body allowed lists a thousand models."""

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A request body: immutable, no unknown field, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def reader(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """Return the dependency that reads a body as ``model``."""

    async def read(request: Request) -> M:
        return parsed(model, await received(request, MAX_BODY) or b"{}")

    return read


async def received(request: Request, most: int) -> bytes:
    """Return the body of a request, of at most ``most`` bytes. Raises ``PayloadTooLarge``."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise PayloadTooLarge(f"the body is over {most} bytes")
    return bytes(data)


def parsed(model: type[M], data: bytes) -> M:
    """Return ``data`` as ``model``.

    Raises:
        BadRequest: it is not; ``param`` names the field where one is at fault.
    """
    try:
        json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        # Python reads no whole number of more than 4,300 digits.
        raise BadRequest("the body holds a number that is out of range") from None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        # Cut off from its cause, whose text could repeat what was sent.
        raise _refused(error) from None


def documented(model: type[Body]) -> dict[str, Any]:
    """Return the OpenAPI entry of an operation whose body is read as ``model``."""
    schema = dict(_schema(model))
    parts = schema.pop("$defs", {})
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema, parts)}}}}


@cache
def _schema(model: type[Body]) -> Mapping[str, Any]:
    """Return the JSON schema of ``model``: a fifth of what making all routes takes."""
    return model.model_json_schema()


def add_route(
    router: APIRouter,
    method: str,
    path: str,
    handler: Any,
    model: Any,
    body: type[Body] | None = None,
    status: int = 200,
) -> None:
    """Add a route that answers with ``model`` and, where it takes a body, documents that it is read as ``body``."""
    router.add_api_route(
        path,
        handler,
        methods=[method],
        response_model=model,
        status_code=status,
        openapi_extra=documented(body) if body is not None else None,
    )


def _inlined(node: Any, parts: dict[str, Any]) -> Any:
    """Return the schema ``node`` with references to ``parts`` replaced by what they name."""
    if isinstance(node, list):
        return [_inlined(item, parts) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        return _inlined(parts[reference.rpartition("/")[2]], parts)
    return {name: _inlined(value, parts) for name, value in node.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequest(f"the field {_shown(name)} is there twice", param=_shown(name))
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"the body is not JSON: it has no {name}")


def _refused(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    if first["type"] == "extra_forbidden":
        return BadRequest(f"unknown field {_shown(param or '')}", param=_shown(param or ""))
    message = "only null is supported" if first["type"] == "none_required" else first["msg"]
    return BadRequest(f"{param}: {message}" if param else message, param=param)


def _shown(name: str) -> str:
    """Return a field name of the caller's making, safe to print."""
    return name[:100].encode("ascii", "backslashreplace").decode("ascii")
