"""Numbers of tool calls in a stream, for engines that give several calls the same one.

Gemini's OpenAI-like API, and gateways before it, say index 0 or none of every parallel call, and clients put what has
one index together: two calls become one that cannot be read. A call begins where an id comes with a name; a second
one at the same place gets a number of its own, and what follows there belongs to it. Nothing here raises.
"""

from __future__ import annotations

from typing import Any


class CallNumbers:
    """Of one stream."""

    __slots__ = ("_begun", "_used")

    def __init__(self) -> None:
        self._begun: dict[tuple[int, int], tuple[str, int]] = {}
        self._used: dict[int, set[int]] = {}

    def amend(self, choice: int, calls: list[dict[str, Any]]) -> None:
        """Give every call in a canonical delta of ``choice`` the number that it has for itself, in place."""
        for call in calls:
            place = (choice, call["index"])
            known, identity = self._begun.get(place), _identity(call)
            if known is None or (identity and known[0] and identity != known[0]):
                used = self._used.setdefault(choice, set())
                number = place[1] if place[1] not in used else max(used) + 1
                used.add(number)
                known = self._begun[place] = (identity, number)
            elif identity and not known[0]:
                known = self._begun[place] = (identity, known[1])
            call["index"] = known[1]


def _identity(call: dict[str, Any]) -> str:
    """Return the id with which a call begins, or "" where it goes on."""
    identity = call.get("id")
    return identity if isinstance(identity, str) and call.get("function", {}).get("name") else ""
