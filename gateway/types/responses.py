"""Answers of the Responses API that are kept for their callers, and the keeper's methods for them.

A turn is what one request added to a conversation: its own input, and the response. Turns hang together by the request
that each went on from, so nothing is stored twice. They belong to the inference key that made them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.types.method import method

MOST_TURNS: Final = 1_000
"""Turns of the longest conversation that can be gone on with."""
MOST_BYTES: Final = 32 * 2**20
"""Bytes of the largest one, and of the largest turn that is kept."""


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """One turn.

    Attributes:
        items: its own input, a JSON array.
        response: the response object, JSON.
    """

    items: bytes
    response: bytes


class NewTurn(msgspec.Struct, frozen=True, array_like=True):
    """A turn that is to be kept.

    Attributes:
        request_id: of the request that made it.
        key_id: public id of its inference key.
        previous: the request that it went on from, or None.
        turn: the turn.
    """

    request_id: bytes
    key_id: str
    previous: bytes | None
    turn: Turn


KEEP: Final = method("responses.keep", tuple[NewTurn], bool)
"""Keep a turn; False when turns are not kept (any more) or it is too large."""
FIND: Final = method("responses.find", tuple[str, bytes], Turn | None)
"""The turn of an inference key and a request, or None."""
CONVERSATION: Final = method("responses.conversation", tuple[str, bytes], list[Turn] | None)
"""All turns that lead to a request of an inference key, the oldest first; none when one of them is gone, None
when that request has no turn.

Raises ``BadRequest`` when they are too many or too large."""
FORGET: Final = method("responses.forget", tuple[str, bytes], bool)
"""Forget the turn of an inference key and a request; False when there is none."""

ENCRYPTED: Final = "reasoning.encrypted_content"
"""What ``include`` calls sealed reasoning."""
_MARK: Final = 32
_WHOLE: Final = frozenset({"", "x"})
"""Prefixes with which an id is kept whole behind the mark."""


def mended_id(identity: str, mark: str) -> str:
    """Return the id under which a caller gets an item that a backend calls ``identity``.

    Args:
        identity: the backend's own id.
        mark: 32 hexadecimal digits of the request, by which the item can be found later.
    """
    prefix, found, rest = identity.partition("_")
    return f"{prefix}_{mark}x{rest}" if found and prefix not in _WHOLE else f"x_{mark}x{identity}"


def original_id(identity: str) -> str | None:
    """Return what the backend calls an item that its caller got under ``identity``, or None when it is none such."""
    prefix, _, rest = identity.partition("_")
    if len(rest) < _MARK + 1 or rest[_MARK] != "x":
        return None
    return rest[_MARK + 1 :] if prefix == "x" else f"{prefix}_{rest[_MARK + 1 :]}"
