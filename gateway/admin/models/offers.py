"""Models that backends serve and nobody has configured, with the lines that adopt them. Nothing here raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.fleet.snapshot import Fleet, Replica


def offers(fleet: Fleet) -> list[dict[str, Any]]:
    """Return every offered model by name, who offers it, and the configuration that adopts it."""
    found: dict[str, list[Replica]] = {}
    for replica in fleet.replicas.values():
        for model in replica.load.offers:
            found.setdefault(model, []).append(replica)
    return [
        {
            "model": model,
            "backends": [
                {"name": each.name, "provider": each.backend.provider, "kind": each.backend.kind} for each in replicas
            ],
            "configuration": _adoption(model, replicas),
        }
        for model, replicas in sorted(found.items())
    ]


def _adoption(model: str, replicas: Sequence[Replica]) -> str:
    """Return an entry of ``models``; the values left to the operator are refused by the check as they stand."""
    quoted = msgspec.json.encode(model).decode()
    endpoints = ", ".join(f"{{backend: {replica.name}}}" for replica in replicas)
    return (
        f"- id: {quoted}\n"
        "  context_length: TOKENS\n"
        '  price: {prompt: "USD", completion: "USD"}  # per million tokens\n'
        f"  endpoints: [{endpoints}]\n"
    )
