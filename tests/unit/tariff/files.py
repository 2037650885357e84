"""Configuration files for tests of the tariff."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from gateway.config.load import load
from gateway.config.snapshot import ConfigSnapshot

BIG: Final = "qwen/big"
_FILE: Final = """
backends:
  - {{name: gpu-a, kind: vllm, url: "http://127.0.0.1:1", provider: own, usd_per_hour: "4.60",
     capacity: {{max_running: 4}}}}
  - {{name: gpu-b, kind: vllm, url: "http://127.0.0.1:2", provider: own, usd_per_hour: "2"}}
  - {{name: acme, kind: openai, url: "http://127.0.0.1:3/v1"}}
egress: {{allow: ["127.0.0.0/8"]}}
models:
  - id: qwen/big
    context_length: 40960
    price: {price}
    endpoints:
      - {{backend: gpu-a}}
      - {{backend: gpu-b}}
      - {{backend: acme, model: big-1, cost: {cost}, {endpoint}}}
  - id: qwen/small
    context_length: 40960
    price: {{prompt: "0.02", completion: "0.04"}}
    endpoints: [{{backend: gpu-b}}]
{more}
"""
_MORE: Final = """
  - id: qwen/new
    context_length: 40960
    price: {prompt: "7", completion: "8"}
    endpoints: [{backend: gpu-b}]
"""


def written(
    *,
    price: str = '{prompt: "0.10", completion: "0.30"}',
    cost: str = '{prompt: "0.05", completion: "0.15"}',
    endpoint: str = "",
    more_models: bool = False,
) -> str:
    """Return a file with two machines and an external API."""
    more = _MORE if more_models else ""
    return _FILE.format(price=price, cost=cost, endpoint=endpoint, more=more).replace(", }", "}")


def snapshot_of(
    *,
    price: str = '{prompt: "0.10", completion: "0.30"}',
    cost: str = '{prompt: "0.05", completion: "0.15"}',
    endpoint: str = "",
    more_models: bool = False,
) -> ConfigSnapshot:
    """Return the configuration of a file that was checked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weir.yaml"
        path.write_text(written(price=price, cost=cost, endpoint=endpoint, more_models=more_models))
        return load(path, presets=frozenset({"balanced"}))
