"""sglang-router, the Rust router of SGLang: cache-aware routing over the replicas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench.contestants.base import HOST, PEERS, Contestant, Launch, distribution_version, free_port


class SglangRouter(Contestant):
    """All replicas as workers of one model, policy `cache_aware`, health checks on, only warnings logged."""

    name: ClassVar[str] = "sglang-router"
    title: ClassVar[str] = "sglang-router (Rust)"
    setup: ClassVar[str] = "cache_aware over 8 workers, no key, no metering"

    def version(self) -> str:
        """Returns the installed version."""
        return distribution_version(PEERS, "sglang-router")

    def launch(self, work: Path, port: int, replicas: Sequence[int]) -> Launch:
        """Returns the launcher's command line."""
        del work
        argv = [str(PEERS / "bin" / "sglang-router"), "launch", "--host", HOST, "--port", str(port)]
        argv += ["--policy", "cache_aware", "--log-level", "warn", "--worker-startup-check-interval", "1"]
        argv += ["--prometheus-host", HOST, "--prometheus-port", str(free_port())]
        argv += ["--worker-urls", *(f"http://{HOST}:{replica}" for replica in replicas)]
        # Without a tokenizer to be had it routes by text, as it does offline; the bench needs no network.
        return Launch(argv, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": f"http://{HOST}:9"})
