"""Our own OpenAPI document: whole, current in ``docs/``, and true of what the gateway answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.edge.document import REQUESTS
from gateway.edge.inference import PATHS
from gateway.resources import build_resources
from tests.harness import ADMIN_KEY, Stage
from tests.integration.surface.conftest import QWEN, ok
from tests.integration.surface.test_tenants import API, operations

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE = Path(__file__).parents[3] / "docs" / "openapi.json"
EXAMPLES = int(os.environ.get("WEIR_EXAMPLES", "2"))
"""Requests of each operation and each kind: good ones and bad ones."""
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest_asyncio.fixture(name="document", scope="module", loop_scope="module")
async def document_(stage: Stage) -> dict[str, Any]:
    """The document as it is served."""
    answer = await stage.http.get(f"{stage.url}/openapi.json", headers=stage.headers)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_the_document_has_every_path(stage: Stage, document: dict[str, Any]) -> None:
    """FastAPI's paths, the inference paths and those beside both; pages for browsers are none of the API."""
    served = {
        (method.lower(), path.replace(":path}", "}"))
        for method, path in operations(build_resources(stage.gateway))
        if path.startswith(API)
    }
    served |= {("post", path.decode()) for path in PATHS} | {
        ("get", f"/{name}") for name in ("health", "ready", "metrics")
    }
    assert {(method, path) for path, item in document["paths"].items() for method in item} == served


async def test_every_operation_says_who_may_and_what_may_come(document: dict[str, Any]) -> None:
    """A key, or none for the two that need none; a good answer with its form; errors in their shape; one id each."""
    seen = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            place = f"{method} {path}"
            assert operation["security"] == ([] if path in {"/health", "/ready"} else [{"bearer": []}, {"apiKey": []}])
            assert {"4XX", "5XX"} <= set(operation["responses"]), place
            good = [each for status, each in operation["responses"].items() if status.startswith("2")]
            assert len(good) == 1, place
            assert good[0]["content"], place
            assert operation["operationId"] not in seen, place
            assert operation.get("summary") or operation.get("description"), place
            seen.add(operation["operationId"])


async def test_inference_bodies_are_described_by_what_reads_them(document: dict[str, Any]) -> None:
    """The limits of a field are those that the gateway holds callers to."""
    described = {prefix + path for prefix in ("/v1", "/api/v1") for path in REQUESTS}
    assert described == {path.decode() for path in PATHS}, "say in gateway/edge/document.py what is read and answered"
    schemas = document["components"]["schemas"]
    chat = document["paths"]["/api/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert chat == {"$ref": "#/components/schemas/ChatRequest"}
    assert schemas["ChatRequest"]["required"] == ["messages"]
    assert schemas["ChatRequest"]["properties"]["n"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 128}
    assert schemas["ChatRequest"]["properties"]["provider"]["anyOf"][0] == {
        "$ref": "#/components/schemas/ProviderRequest"
    }
    assert "zdr" in schemas["ProviderRequest"]["properties"]
    text = msgspec.json.encode(document).decode()
    wanted = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert wanted <= set(schemas), "every reference leads somewhere"


async def test_the_document_in_the_docs_is_the_one_that_is_served(document: dict[str, Any]) -> None:
    """It can be read without a gateway. After a change run this with WEIR_WRITE_DOCS=1."""
    made = msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"
    if os.environ.get("WEIR_WRITE_DOCS"):
        PAGE.write_text(made)
    assert PAGE.read_text() == made


async def test_what_the_gateway_answers_is_what_the_document_says(stage: Stage, document: dict[str, Any]) -> None:
    """Good and bad requests of every operation: no 5xx, no status, form or body that the document does not have."""
    await ok(stage, "POST", "/workspaces", json={"name": "fuzz", "slug": "fuzz"})
    await asyncio.to_thread(examine, stage, document)


def examine(stage: Stage, document: dict[str, Any]) -> None:
    """Send made-up requests for each operation and check the answers."""
    schema = schemathesis.openapi.from_dict(document)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if f"/api{operation.path}" in document["paths"] and "WEIR_EXAMPLES" not in os.environ:
            continue  # read by the same code and described by the same schemas
        key = stage.key if operation.path.encode() in PATHS else ADMIN_KEY
        modes = [GenerationMode.POSITIVE]
        if (operation.body or operation.query) and not operation.path.startswith("/v1/"):
            modes.append(GenerationMode.NEGATIVE)  # elsewhere there is nothing to do wrong, or it was done already
        for mode in modes:
            _LIMITS(given(case=operation.as_strategy(generation_mode=mode))(sender(stage.url, key)))()


def sender(url: str, key: str) -> Callable[[Any], None]:
    """Return what sends one request and checks its answer; inference is asked of a model that there is."""

    def send(case: Any) -> None:
        if isinstance(case.body, dict) and case.path.encode() in PATHS:
            case.body = case.body | {"model": QWEN}
        answer = case.call(base_url=url, headers={"authorization": f"Bearer {key}"})
        case.validate_response(answer, checks=CHECKS)

    return send


_LIMITS = settings(
    max_examples=EXAMPLES,
    derandomize="WEIR_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
