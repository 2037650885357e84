"""A valid configuration file that uses every section, and what it is loaded with."""

from __future__ import annotations

from collections.abc import Callable

from gateway.config.snapshot import ConfigSnapshot

EXAMPLE = """\
backends:
  - name: gpu-a
    kind: vllm
    url: http://10.0.0.11:8000
    provider: own
    region: eu
    usd_per_hour: "4.60"
    gpu: 2xH100
    capacity: {max_running: 256, kv_tokens: 312000, prefill_tokens_per_s: 15928}
  - {name: gpu-b, kind: vllm, url: http://10.0.0.12:8000, provider: own, region: eu}
  - name: dashscope
    kind: openai
    url: https://host/compatible-mode/v1
    api_key: "${DASHSCOPE_API_KEY}"
    limits: {rpm: 600}
    on_disconnect: drain
models:
  - id: qwen/qwen3-32b
    name: Qwen3 32B
    context_length: 40960
    price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}
    endpoints:
      - {backend: gpu-a, model: Qwen/Qwen3-32B, quantization: fp8}
      - {backend: gpu-b, model: Qwen/Qwen3-32B, quantization: fp8}
      - backend: dashscope
        model: qwen3-32b
        cost: {prompt: "0.16", completion: "0.64"}
        price: {prompt: "0.20", completion: "0.80"}
  - id: embedder
    context_length: 8192
    price: {prompt: "0.01", completion: "0"}
    capabilities: {embeddings: true}
    endpoints:
      - {backend: gpu-b}
aliases: {house-default: {qwen/qwen3-32b: 95, embedder: 5}}
routing: {default: balanced}
egress: {allow: ["10.0.0.0/8"]}
teams:
  - {slug: search, name: Search team}
"""
PRESETS = ("balanced", "cheapest")
ENVIRON = {"DASHSCOPE_API_KEY": "sk-canary-1"}

Loader = Callable[[str], ConfigSnapshot]
Refuser = Callable[[str], list[str]]
