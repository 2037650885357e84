"""The paths of OpenRouter's client that Weir does not serve, each with the reason; the page lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import openrouter

_OPERATION: Final = re.compile(r'method="([A-Z]+)",\s*path="([^"]+)"')

NOT_SERVED: Final[Mapping[str, str]] = {
    "/api/alpha": "experiments of OpenRouter without a stable form",
    "/audio": "speech and transcription: no backend kind of Weir offers them",
    "/auth/keys": "logging in to OpenRouter from an app; keys are made by the operator",
    "/batches": "not built: work without hurry goes into the band `batch` of the queue",
    "/benchmarks": "benchmarks of models are OpenRouter's own collection",
    "/classifications": "needs reading prompts, which Weir does not",
    "/containers": "OpenRouter's hosted tools",
    "/datasets/session-cost": "needs sessions of apps that are told apart for weeks; not kept",
    "/external-users": "a register of the callers' users; `user` is metered as it is, without one",
    "/files": "OpenRouter's hosted storage",
    "/generation/feedback": "OpenRouter's support",
    "/images": "image generation: no backend kind of Weir offers it",
    "/oauth": "logging in to OpenRouter from an app",
    "/observability": "destinations are settings of the process: OpenTelemetry, Prometheus, logs",
    "PATCH /organization/settings": "settings of the organisation are the configuration's",
    "/private-endpoints": "every endpoint is private; they are in the configuration",
    "/scim": "provisioning from a directory is not offered",
    "/systemone": "one vendor's models",
    "/tools": "OpenRouter's hosted tools",
    "/vault": "OpenRouter's agents",
    "/videos": "video generation: no backend kind of Weir offers it",
}
"""Why not, by the beginning of the path, or by method and path."""


def operations() -> list[tuple[str, str]]:
    """Return path and method of everything the client can ask for, sorted."""
    folder = Path(openrouter.__file__).parent
    found = {pair for source in folder.glob("*.py") for pair in _OPERATION.findall(source.read_text())}
    return sorted((path, method) for method, path in found)


def why_not(path: str, method: str) -> str | None:
    """Return why an operation is not served, or None when it is."""
    alone = NOT_SERVED.get(f"{method} {path}")
    if alone is not None:
        return alone
    known = [prefix for prefix in NOT_SERVED if path == prefix or path.startswith(prefix + "/")]
    return NOT_SERVED[max(known, key=len)] if known else None
