"""``weir doctor``: what is wrong here, and the mend. Exit status 1 when something is bad."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.commands.console import Json, print_json, say
from gateway.commands.environment import Config, read_settings

if TYPE_CHECKING:
    from gateway.diagnosis import Finding


def doctor(config: Config = None, as_json: Json = False) -> None:
    """Look at configuration, secret, state folder, keeper, database, journal, Redis and every backend."""
    import asyncio

    import msgspec

    from gateway.diagnosis import State, examine

    settings = read_settings(config, quiet=True)

    async def look() -> list[Finding]:
        found = []
        async for finding in examine(settings):
            found.append(finding)
            if not as_json:
                say(f"{finding.state.value:8}{finding.check}: {finding.detail}")
                if finding.mend:
                    say(f"        -> {finding.mend}")
        return found

    found = asyncio.run(look())
    ok = all(finding.state is not State.BAD for finding in found)
    if as_json:
        print_json({"ok": ok, "findings": [msgspec.to_builtins(finding) for finding in found]})
    raise SystemExit(0 if ok else 1)
