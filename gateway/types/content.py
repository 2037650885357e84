"""Prompts and answers that teams want stored: what workers and management ask the keeper of them."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.types.method import method


class ContentChoice(msgspec.Struct, frozen=True, array_like=True):
    """Whether prompts and answers are stored.

    Attributes:
        team: slug of the team it is about.
        key_id: of the one key it is about, ``""`` for all of the team.
        store: whether they are.
        days: how long; None as the configuration says.
    """

    team: str
    key_id: str
    store: bool
    days: int | None = None


class StoredContent(msgspec.Struct, frozen=True, array_like=True):
    """What was asked and answered.

    Attributes:
        key_id, team: who asked.
        content: JSON of OpenRouter's ``data`` of a generation's content.
    """

    key_id: str
    team: str
    content: bytes


STORE: Final = method("content.store", tuple[bytes, str, str, bytes], bool)
"""Store the content of a request, key and team; whether it was to be stored, by what is chosen now."""
CONTENT: Final = method("content.find", tuple[bytes], StoredContent | None)
"""What is stored of a request, or None."""
FORGET_ONE: Final = method("content.forget_one", tuple[bytes], bool)
"""Delete what is stored of a request, and its answer wherever it is kept; whether anything was stored."""
FORGET: Final = method("content.forget", tuple[str, str], int)
"""Delete all prompts and answers of a team, or of one of its keys, wherever they are kept; how many were stored."""
CHOICES: Final = method("content.choices", tuple[()], tuple[ContentChoice, ...])
"""What was chosen, all of it."""
CHOOSE: Final = method("content.choose", tuple[ContentChoice], tuple[ContentChoice, ...])
"""Choose for a team or a key."""
UNCHOOSE: Final = method("content.unchoose", tuple[str, str], tuple[ContentChoice, ...])
"""Take back what was chosen for a team or a key."""


def chosen(choices: tuple[ContentChoice, ...], team: str, key_id: str) -> ContentChoice | None:
    """Return what was chosen for a key, else for its team, else None."""
    found = None
    for choice in choices:
        if choice.team == team and choice.key_id in {"", key_id} and (found is None or choice.key_id):
            found = choice
    return found
