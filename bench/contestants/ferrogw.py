"""ferrogw, the Ferro Labs AI gateway in Go: its OpenAI provider points at the mock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from bench.contestants.base import HOST, PEERS, Contestant, Launch, distribution_version

_KEY: Final = "fgw_" + "0123456789abcdef" * 2


class Ferrogw(Contestant):
    """One provider with one address (it knows no replicas), key checked, stores in memory, no request log."""

    name: ClassVar[str] = "ferrogw"
    title: ClassVar[str] = "ferrogw (Go)"
    setup: ClassVar[str] = "one provider, 1 replica (it has one address per provider), key checked, no request log"
    model: ClassVar[str] = "gpt-4o-mini"

    def version(self) -> str:
        """Returns the installed version."""
        return distribution_version(PEERS, "ferrogw")

    def headers(self) -> Mapping[str, str]:
        """Returns the key."""
        return {"Authorization": f"Bearer {_KEY}"}

    def launch(self, work: Path, port: int, replicas: Sequence[int]) -> Launch:
        """Writes its configuration; returns its command line. No remote model catalogue is fetched."""
        config = work / "config.yaml"
        config.write_text(json.dumps({"strategy": {"mode": "single"}, "targets": [{"virtual_key": "openai"}]}))
        environment = {
            "PORT": str(port),
            "HOST": HOST,
            "GATEWAY_CONFIG": str(config),
            "MASTER_KEY": _KEY,
            "OPENAI_API_KEY": "sk-mock",
            "OPENAI_BASE_URL": f"http://{HOST}:{replicas[0]}/v1",
            "FERRO_MODEL_CATALOG_TIMEOUT": "0",
            "LOG_LEVEL": "error",
            # Its limit per address is 429 for a load from one address: set so high that it never strikes.
            "RATE_LIMIT_RPS": "1000000",
            "RATE_LIMIT_BURST": "1000000",
        }
        return Launch([str(PEERS / "bin" / "ferrogw"), "serve"], environment)
