"""LiteLLM's proxy in Python, without a database: the gateway most teams start with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from bench.contestants.base import HOST, PEERS, Contestant, Launch, distribution_version

_KEY: Final = "sk-0123456789abcdef0123456789abcdef"


class LiteLLM(Contestant):
    """All replicas as deployments of one model name, one worker, master key, no database."""

    name: ClassVar[str] = "litellm"
    title: ClassVar[str] = "LiteLLM proxy (Python)"
    setup: ClassVar[str] = "8 deployments of one model, one worker, master key checked, no database"
    heavy: ClassVar[bool] = True
    model: ClassVar[str] = "qwen3-32b"
    ready_s: ClassVar[float] = 120.0

    def version(self) -> str:
        """Returns the installed version."""
        return distribution_version(PEERS, "litellm")

    def headers(self) -> Mapping[str, str]:
        """Returns the key."""
        return {"Authorization": f"Bearer {_KEY}"}

    def launch(self, work: Path, port: int, replicas: Sequence[int]) -> Launch:
        """Writes its configuration (JSON is YAML); returns its command line. Prices are its own copy."""
        deployments = [
            {
                "model_name": self.model,
                "litellm_params": {
                    "model": "openai/Qwen/Qwen3-32B",
                    "api_base": f"http://{HOST}:{replica}/v1",
                    "api_key": "sk-mock",
                },
            }
            for replica in replicas
        ]
        config = work / "litellm.yaml"
        config.write_text(json.dumps({"model_list": deployments, "general_settings": {"master_key": _KEY}}))
        argv = [str(PEERS / "bin" / "litellm"), "--config", str(config), "--host", HOST, "--port", str(port)]
        environment = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
        }
        return Launch([*argv, "--num_workers", "1"], environment)
