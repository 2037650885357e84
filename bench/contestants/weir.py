"""Weir, everything on: keys, limits, routing over all replicas, durable metering with the shipper.

The state folder lies in the run's work folder, which must be on a real disk: on a memory file system the
journal's `fdatasync` would cost nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import httpx

from bench.contestants.base import (
    HOST,
    ROOT,
    Contestant,
    ContestantError,
    Launch,
    OffPath,
    distribution_version,
)
from bench.load import Target

_SECONDS: Final = "weir_shipper_seconds_total"
_RECORDS: Final = "weir_shipper_records_total"


class Weir(Contestant):
    """One worker; keys are made anew for each run."""

    name: ClassVar[str] = "weir"
    title: ClassVar[str] = "**Weir**, everything on"
    setup: ClassVar[str] = (
        "key, limits, routing over 8 vLLM replicas by scraped gauges, journal with fdatasync, SQLite ledger"
    )
    translates: ClassVar[bool] = True
    path: ClassVar[str] = "/v1/chat/completions"
    model: ClassVar[str] = "qwen/qwen3-32b"

    def __init__(self) -> None:
        self._demo_key = f"sk-weir-{secrets.token_hex(4)}-{secrets.token_hex(24)}"
        self._admin_key = secrets.token_hex(32)

    def version(self) -> str:
        """Returns the installed version."""
        return distribution_version(ROOT / ".venv", "weir-gateway")

    def headers(self) -> Mapping[str, str]:
        """Returns the inference key."""
        return {"Authorization": f"Bearer {self._demo_key}"}

    def launch(self, work: Path, port: int, replicas: Sequence[int]) -> Launch:
        """Writes the configuration (JSON is YAML) and returns the command line of DESIGN's `weir serve`."""
        config = work / "weir.yaml"
        config.write_text(json.dumps(_config(replicas), indent=1))
        argv = [str(ROOT / ".venv" / "bin" / "weir"), "serve", "--host", HOST, "--port", str(port)]
        environment = {
            "WEIR_HOME": str(work / "home"),
            "WEIR_ADMIN_KEY": self._admin_key,
            "WEIR_DEMO_KEY": self._demo_key,
        }
        return Launch([*argv, "--workers", "1", "--config", str(config)], environment)

    def ready(self, target: Target) -> bool:
        """Returns whether `GET /ready` says 200."""
        try:
            return httpx.get(f"http://{HOST}:{target.port}/ready", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def off_path(self, target: Target) -> OffPath | None:
        """Returns the shipper's CPU seconds and records.

        Raises ContestantError when Weir does not tell them.
        """
        try:
            answer = httpx.get(
                f"http://{HOST}:{target.port}/metrics",
                headers={"Authorization": f"Bearer {self._admin_key}"},
                timeout=10,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise ContestantError(f"weir's /metrics cannot be read: {error!r}") from error
        if not answer.is_success:
            raise ContestantError(f"weir's /metrics answered {answer.status_code}: {answer.text[:200]}")
        return OffPath(metric(answer.text, _SECONDS), round(metric(answer.text, _RECORDS)))


def metric(text: str, name: str) -> float:
    """Returns the sum of all samples of `name` in a Prometheus page.

    Raises ContestantError when there are none.
    """
    values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    if not values:
        raise ContestantError(f"weir's /metrics has no {name}")
    return sum(values)


def _config(replicas: Sequence[int]) -> dict[str, object]:
    """Returns a configuration with one model on all replicas."""
    backends = [
        {"name": f"gpu-{at}", "kind": "vllm", "url": f"http://{HOST}:{port}", "provider": "own"}
        for at, port in enumerate(replicas)
    ]
    model = {
        "id": Weir.model,
        "name": "Qwen3 32B",
        "context_length": 40_960,
        "price": {"prompt": "0.10", "completion": "0.30", "cache_read": "0.02"},
        "endpoints": [{"backend": backend["name"], "model": "Qwen/Qwen3-32B"} for backend in backends],
    }
    return {"backends": backends, "models": [model], "egress": {"allow": ["127.0.0.0/8"]}}
