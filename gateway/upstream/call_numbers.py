"""Numbers and ids of tool calls in a stream, for engines that give several calls the same number, or no id.

Gemini's OpenAI-like API, and gateways before it, say index 0 or none of every parallel call, and clients put what has
one index together: two calls become one that cannot be read. A call begins where an id comes with a name; a second
one at the same place gets a number of its own, and what follows there belongs to it. A call that is named and has no
id, as some versions of vLLM, NIM and Gemini stream it, gets one: without it clients fail, or cannot say whose result
they send. Nothing here raises.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Any


class CallNumbers:
    """Of one stream."""

    __slots__ = ("_begun", "_ours", "_used")

    def __init__(self) -> None:
        self._begun: dict[tuple[int, int], tuple[str, int]] = {}
        self._used: dict[int, set[int]] = {}
        self._ours: dict[tuple[int, int], bool] = {}

    def amend(self, choice: int, calls: list[dict[str, Any]]) -> None:
        """Give every call in a canonical delta of ``choice`` a number and an id that it has for itself, in place."""
        for call in calls:
            place = (choice, call["index"])
            known, identity = self._begun.get(place), _identity(call)
            if known is None or (identity and known[0] and identity != known[0]):
                used = self._used.setdefault(choice, set())
                number = place[1] if place[1] not in used else max(used) + 1
                used.add(number)
                known = self._begun[place] = (identity, number)
                self._ours.pop(place, None)
            elif identity and not known[0]:
                known = self._begun[place] = (identity, known[1])
            call["index"] = known[1]
            self._name(place, call)

    def _name(self, place: tuple[int, int], call: dict[str, Any]) -> None:
        """Give the call at ``place`` an id once its name is known, unless it has one; it never gets a second."""
        ours = self._ours.get(place)
        if call.get("id"):
            if ours:
                del call["id"]
            else:
                self._ours[place] = False
        elif ours is None and _called(call).get("name"):
            self._ours[place] = True
            call["id"] = _new_id()
            call.setdefault("type", "custom" if "custom" in call else "function")


def complete_call(call: dict[str, Any]) -> None:
    """Give a call of a whole answer what clients require of it and some engines leave out, or empty, in place."""
    kind = call.setdefault("type", "custom" if "custom" in call else "function")
    if kind in ("function", "custom") and not call.get("id"):  # a tuple, because it may be anything
        call["id"] = _new_id()
    if kind == "function":
        call.get("function", {}).setdefault("arguments", "{}")


def _new_id() -> str:
    return f"call_{token_hex(12)}"


def _identity(call: dict[str, Any]) -> str:
    """Return the id with which a call begins, or "" where it goes on."""
    identity = call.get("id")
    return identity if isinstance(identity, str) and _called(call).get("name") else ""


def _called(call: dict[str, Any]) -> dict[str, Any]:
    """Return what a delta says of the function or the custom tool that is called."""
    return call.get("function") or call.get("custom") or {}
