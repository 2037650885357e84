"""Asking an own engine to think, or not to: OpenRouter's ``reasoning`` object in the words of chat templates.

Templates of open models have a switch: ``enable_thinking`` (Qwen, GLM) or ``thinking`` (DeepSeek, Granite, Kimi).
Both are set, because nobody here sees the template and one that it does not know changes nothing. ``reasoning_effort``
goes along for models that know degrees. A switch that the caller sets itself stays as it is. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SWITCHES: Final = ("enable_thinking", "thinking")
"""Variables of chat templates that switch thinking on and off."""
DEGREES: Final[Mapping[str, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""OpenRouter's efforts in the words that every version of every engine takes."""


def ask_to_think(body: dict[str, Any], budget_field: str, hiding_field: str) -> None:
    """Say ``reasoning`` and ``reasoning_effort`` of ``body`` as an own engine takes them; changes only ``body`` itself.

    Args:
        body: of a chat; it has at least one of the two.
        budget_field: the engine's name for the most tokens to think, or ``""`` when it takes none.
        hiding_field: the engine's name for whether thoughts are shown, or ``""`` when they always are.
    """
    said = body.pop("reasoning", None)
    wish: Mapping[str, Any] = said if type(said) is dict else {}
    effort, budget = wish.get("effort") or body.get("reasoning_effort"), wish.get("max_tokens")
    if hiding_field and wish.get("exclude") is True:
        body.setdefault(hiding_field, False)
    if effort == "none" or wish.get("enabled") is False:
        body.pop("reasoning_effort", None)
        _switch(body, on=False)
        return
    if type(effort) is str and "reasoning_effort" not in body and effort in DEGREES:
        body["reasoning_effort"] = DEGREES[effort]
    if type(effort) is str or type(budget) is int or wish.get("enabled") is True:
        _switch(body, on=True)
        if budget_field and type(budget) is int and budget > 0:
            body.setdefault(budget_field, budget)


def _switch(body: dict[str, Any], *, on: bool) -> None:
    given = body.get("chat_template_kwargs")
    given = given if type(given) is dict else {}
    if given.keys().isdisjoint(SWITCHES):
        body["chat_template_kwargs"] = given | dict.fromkeys(SWITCHES, on)
