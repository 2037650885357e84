"""Vectors come in the form that was asked for, whatever the engine knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import Visit, hand_backend
from tests.harness import Backend, configuration, staged

MODELS = """
  - id: embedder
    context_length: 8192
    price: {prompt: "1.00", completion: "0"}
    capabilities: {embeddings: true}
    endpoints: [{backend: gpu-a, model: bge}]
"""
PACKED = "AAAAPwAAgD4="
"""0.5 and 0.25 as little-endian 32-bit floats."""


@pytest.mark.parametrize("kind", ["sglang", "vllm", "llamacpp", "openai"])
@pytest.mark.parametrize(
    ("wanted", "given", "heard"),
    [
        ("base64", [0.5, 0.25], PACKED),
        ("base64", PACKED, PACKED),
        ("base64", [0.5, 1e300], [0.5, 1e300]),
        ("base64", ["a"], ["a"]),
        ("base64", None, None),
        ("float", [0.5, 0.25], [0.5, 0.25]),
        (None, [0.5, 0.25], [0.5, 0.25]),
    ],
)
async def test_base64_is_made_of_numbers_where_the_engine_knows_only_those(
    tmp_path: Path, kind: str, wanted: str | None, given: Any, heard: Any
) -> None:
    """OpenAI's clients ask for it unasked, and some decode what comes without a look. No vector stays what it is."""

    async def serve(visit: Visit) -> None:
        data = [{"object": "embedding", "index": 0, "embedding": given}]
        await visit.answer({"object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}})

    async with hand_backend(serve) as backend:
        config = configuration([Backend("gpu-a", backend.url, kind)], models=MODELS)
        async with staged(tmp_path, config) as stage:
            body = {"model": "embedder", "input": "a weir"}
            if wanted is not None:
                body["encoding_format"] = wanted
            answer = await stage.http.post(f"{stage.url}/v1/embeddings", json=body, headers=stage.headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"][0]["embedding"] == heard
            assert answer.json()["usage"]["prompt_tokens"] == 3
            assert backend.visits[0].document.get("encoding_format") == wanted
