"""A kept decision, and the keeper's methods for it.

``Decision`` is what is stored; ``Details`` are its content, compressed, because nobody searches in them.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import msgspec

from gateway.types.method import method

_LEVEL: Final = 3
_LONGEST: Final = 16 * 2**20
"""Bytes of details, unpacked."""


class Image(msgspec.Struct, frozen=True, array_like=True):
    """Objects as plain data, see ``gateway.routing.decisions.image``.

    A value is a plain one or a list with a tag: ``#`` and the number of a node, ``t`` and the items of a tuple, ``f``
    of a frozenset, ``e`` and class and value of an enumeration, ``n`` and the name of an engine, ``-`` for a field that
    has no value. A node is a list with a tag, too: ``l`` list, ``q`` deque, ``d`` mapping, ``o`` object, ``x`` struct.

    Attributes:
        classes: module, name and fields of each class.
        nodes: what is shared.
        root: the value that was made an image of.
    """

    classes: list[tuple[str, str, list[str]]]
    nodes: list[Any]
    root: Any


class Try(msgspec.Struct, frozen=True, array_like=True):
    """A try that failed: where it went, why it failed, and the status the backend gave, 0 for none."""

    candidate: str
    cause: str
    status: int


class Amounts(msgspec.Struct, frozen=True, array_like=True):
    """What a request takes; predicted, or as it was. None is what nobody knows.

    Attributes:
        prompt, completion: tokens.
        cached: prompt tokens that the replica had.
        ttft: seconds to the first token: predicted from its sending on, real from the arrival of the request on.
        charge: what the team pays, nano-USD.
        cost: what the owner pays, nano-USD; predicted for an own GPU it is its shadow price, and none comes true.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    ttft: float | None = None
    charge: int | None = None
    cost: int | None = None


class Details(msgspec.Struct, frozen=True, array_like=True):
    """What a decision was made from and what came of it.

    Attributes:
        version: the Weir that decided.
        requested: the model as the caller named it.
        whole: ``image`` is as of the decision; if not, it was made when the request had failed over, and only what
            policies had worked out by then is as of the decision.
        image: the inputs.
        explanation: see ``gateway.routing.explain.explanation``.
        tries: tries that failed, in their order.
        predicted: for the replica that served it, at the decision.
        real: what came of it.
    """

    version: str
    requested: str
    whole: bool
    image: Image
    explanation: dict[str, Any]
    tries: list[Try]
    predicted: Amounts
    real: Amounts


class Decision(msgspec.Struct, frozen=True, array_like=True):
    """A kept decision.

    Attributes:
        request_id: of the request.
        at_us: microseconds since 1970 at which it was kept.
        model: who was to answer.
        policy: the preset that decided.
        pick: the candidate that was to be tried first.
        served: the candidate that answered, ``""`` when none did.
        tries: how many tries failed.
        content: ``Details``, packed.
    """

    request_id: bytes
    at_us: int
    model: str
    policy: str
    pick: str
    served: str
    tries: int
    content: bytes


KEEP: Final = method("decisions.keep", tuple[list[Decision]], int)
"""Keep decisions; those of requests that are known already are left as they are. Returns how many are new."""
FIND: Final = method("decisions.find", tuple[bytes], Decision | None)
"""Return the decision about a request, or None when none was kept."""
RECENT: Final = method("decisions.recent", tuple[int, bool], list[Decision])
"""Return up to so many of the newest decisions, without their content; only of those that failed over, if wanted."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Details).decode


def packed(details: Details) -> bytes:
    """Return the content of a decision."""
    return zlib.compress(_encode(details), _LEVEL)


def unpacked(content: bytes) -> Details:
    """Return the details in ``content``. Raises ``ValueError`` when there are none of this version in it."""
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(content, _LONGEST)
        if not reader.eof:
            raise ValueError("the record is not whole")
        return _decode(data)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"the record cannot be read: {error}") from error
