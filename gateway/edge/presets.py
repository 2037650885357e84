"""What a team has set beforehand for its requests: presets, a default model, a default order of endpoints.

A preset is named as ``@preset/slug`` in ``model``, behind a model as ``model@preset/slug``, or in the field ``preset``.
Its fields hold where the request says nothing, tools of both are joined, and its system prompt comes first. Versions
that were used are kept here until something changes. A team without any of these costs a request one attribute test.

A preset that there is not is ``NotFound``; a keeper that is away while a preset has to be fetched is ``Unavailable``.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from gateway.access.principal import Principal
from gateway.types.errors import NotFound, WeirError
from gateway.types.guardrails import Governance
from gateway.types.method import Asking
from gateway.types.presets import PRESET, PresetVersion

MARK: Final = "@preset/"
MOST_KEPT: Final = 256
_INSTRUCTIONS: Final = {b"/messages": "system", b"/responses": "instructions"}
"""Where a dialect other than chat tells the system something, by the end of its path."""


class Defaults:
    """The presets and defaults that requests of this process are read with.

    Attributes:
        active: whether any team has one.
    """

    def __init__(self, books: Asking) -> None:
        self.active = False
        self._books = books
        self._governance = Governance()
        self._kept: dict[tuple[str, str], PresetVersion] = {}

    def learn(self, governance: Governance) -> None:
        """Go by ``governance`` from now on."""
        self._governance = governance
        self._kept.clear()
        self.active = bool(governance.presets or governance.defaults)

    async def apply(self, body: dict[str, Any], principal: Principal, path: bytes) -> None:
        """Write what is set beforehand into ``body``. Raises ``NotFound`` or ``Unavailable``."""
        if principal.team in self._governance.presets:
            await self._preset(body, principal.team, path)
        model, sort = self._governance.defaults.get(principal.team, ("", ""))
        if model and body.get("model") is None and not body.get("models"):
            body["model"] = model
        if sort and not path.endswith(b"/embeddings"):
            provider = body.setdefault("provider", {})
            if isinstance(provider, dict) and provider.get("sort") is None and not provider.get("order"):
                body["provider"] = provider | {"sort": sort}

    async def _preset(self, body: dict[str, Any], team: str, path: bytes) -> None:
        named, slug = body.get("model"), body.get("preset")
        if isinstance(named, str) and MARK in named:
            base, _, slug = named.partition(MARK)
            version = await self._version(team, slug)
            if base:
                body["model"] = base
            else:
                del body["model"]
        elif isinstance(slug, str) and slug:
            try:
                version = await self._version(team, slug)
            except NotFound:
                return  # one of routing, perhaps; routing knows
            del body["preset"]
        else:
            return
        merge(body, version, path)

    async def _version(self, team: str, slug: str) -> PresetVersion:
        version = self._kept.get((team, slug))
        if version is None:
            try:
                version = (await self._books.ask(PRESET, (team, slug))).designated
            except NotFound:
                raise NotFound(f"there is no preset {slug[:100]!r}", param="model") from None
            except WeirError as error:
                error.param = None
                raise
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[team, slug] = version
        return version


def merge(body: dict[str, Any], version: PresetVersion, path: bytes) -> None:
    """Write a version of a preset into a request body that came to ``path``; what the request says wins."""
    # Requests own their bodies and change them, and the version is kept for the next one.
    config = copy.deepcopy(version.config)
    tools = config.get("tools")
    if isinstance(tools, list) and isinstance(body.get("tools"), list):
        taken = {_tool_name(tool) for tool in body["tools"]}
        body["tools"] = body["tools"] + [tool for tool in tools if _tool_name(tool) not in taken]
    for name, value in config.items():
        body.setdefault(name, value)
    prompt = version.system_prompt
    if not prompt:
        return
    place = next((field for end, field in _INSTRUCTIONS.items() if path.endswith(end)), None)
    if place is not None:
        body.setdefault(place, prompt)
    elif isinstance(body.get("messages"), list):
        body["messages"] = [{"role": "system", "content": prompt}, *body["messages"]]


def _tool_name(tool: Any) -> str:
    """Return the name of a tool, ``""`` of what has none."""
    if not isinstance(tool, dict):
        return ""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else tool.get("name")
    return name if isinstance(name, str) else repr(tool)
