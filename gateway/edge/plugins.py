"""OpenRouter's ``plugins`` and ``transforms``: work around a request that its caller asks the gateway for.

None of it is done here. What comes to the same as leaving request and answer as they are is taken; all else, also what
nobody knows, is refused, unless it is switched off: a caller who asked for something must not believe that it was done.
Raises ``BadRequest``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway.types.errors import BadRequest

MOST: Final = 32
_ROUTER: Final = "nothing here chooses a model by the prompt: name one, and models to fall back through"
REFUSED: Final[Mapping[str, str]] = {
    "web": "there is no web search here",
    "web-fetch": "no pages are fetched here",
    "response-healing": "answers are not mended here: ask for a response_format with a schema",
    "moderation": "nothing is moderated here",
    "armor": "calls of tools are not judged here",
    "alignment": "answers are not judged here",
    "auto-router": _ROUTER,
    "auto-beta-router": _ROUTER,
    "pareto-router": _ROUTER,
    "jev-router": _ROUTER,
    "switchyard-router": _ROUTER,
    "fusion": "several models are not asked together here",
}
"""OpenRouter's plugins that cannot be had, each with the reason."""
FILES: Final = "file-parser"
COMPRESSION: Final = "context-compression"
MIDDLE_OUT: Final = "middle-out"
"""It leaves out the middle of what does not fit. What fits is whole there and here; what does not is refused here."""

Id = Annotated[str, Meta(min_length=1, max_length=64)]


class _PdfShape(msgspec.Struct):
    engine: str | None = None


class PluginShape(msgspec.Struct):
    """An element of ``plugins``, as far as it is looked at."""

    id: Id
    enabled: bool | None = None
    engine: str | None = None
    pdf: _PdfShape | None = None


Plugins = Annotated[list[PluginShape], Meta(max_length=MOST)]
Transforms = Annotated[list[Id], Meta(max_length=MOST)]


def check_plugins(plugins: Sequence[PluginShape] | None, transforms: Sequence[str] | None) -> None:
    """Refuse the first of what is asked for that cannot be had."""
    for place, plugin in enumerate(plugins or ()):
        if plugin.enabled is not False:
            _check(plugin, f"plugins[{place}]")
    for place, name in enumerate(transforms or ()):
        if name != MIDDLE_OUT:
            raise _refusal(f"transforms[{place}]", name, f"there is {MIDDLE_OUT} alone", "leave it out")


def _check(plugin: PluginShape, param: str) -> None:
    if plugin.id == FILES:
        if plugin.pdf is None or plugin.pdf.engine != "native":
            why = "files go to backends as they are"
            raise _refusal(param, plugin.id, why, "set pdf.engine to native, or leave it out")
    elif plugin.id == COMPRESSION:
        if plugin.engine not in (None, MIDDLE_OUT):
            raise _refusal(f"{param}.engine", plugin.engine, f"there is {MIDDLE_OUT} alone", "leave it out")
    else:
        raise _refusal(param, plugin.id, REFUSED.get(plugin.id, "there is no such plugin here"))


def _refusal(param: str, name: Any, why: str, mend: str = "leave it out, or set enabled to false") -> BadRequest:
    return BadRequest(f"{param} is {str(name)[:64]!r}, and {why}; {mend}", param=param)
