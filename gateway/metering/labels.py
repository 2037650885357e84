"""Label sets: what many ledger rows have in common, written to the database once and named by an id.

Most rows of a host share few sets of labels, so a row carries an id in place of twenty words: that, and decoding
each set once, makes up much of the shipper's speed and two thirds of the ledger's size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import msgspec
from sqlmodel import SQLModel

from gateway.db.tables.ledger import LabelSet
from gateway.metering.record import Dimensions
from gateway.types.upstream_keys import OWN_KEY

Value = str | int

COLUMNS: Final = tuple(column.name for column in SQLModel.metadata.tables[LabelSet.__tablename__].columns)
"""Columns of a label set, its id first."""
OUTCOME: Final = ("status", "finish_reason", "http_status", "source", "error")
"""Those that tell how an attempt ended; all others but the id are ``Dimensions``."""
_DIMENSIONS: Final = tuple(name for name in COLUMNS[1:] if name not in OUTCOME)
ROLLUP: Final = ("team", "key_id", "model", "endpoint", "app", "tier", "status")
"""Those that rollups count by."""

Key = tuple[bytes, str, str, int, str, str]
"""Dimensions as they stand in the journal, and the outcome."""

_DOMAIN: Final = b"weir labels 1"
_MOST: Final = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A label set; compared and hashed by identity, which is quick.

    Attributes:
        label_id: its id.
        columns: its values, in the order of ``COLUMNS``.
        rollup: its values of ``ROLLUP``.
        own: whether it is of what went with a key of the team's own.
    """

    label_id: int
    columns: tuple[Value, ...]
    rollup: tuple[Value, ...]
    own: bool


Known = tuple[Labels, int, str]
"""A label set, its id, and the end-user id that came with it, which is no label: there may be millions."""


class LabelBook:
    """The label sets seen lately, by how they were encoded."""

    __slots__ = ("_known", "_sets")

    def __init__(self) -> None:
        self._known: dict[Key, Known] = {}
        self._sets: dict[tuple[Value, ...], Labels] = {}

    def find(self, keys: Sequence[Key]) -> list[Known]:
        """Return what is known of each of ``keys``.

        Raises:
            msgspec.DecodeError: one has no readable dimensions.
        """
        found = list(map(self._known.get, keys))
        if all(found):
            return cast("list[Known]", found)
        return [known or self._learn(key) for key, known in zip(keys, found, strict=True)]

    def _learn(self, key: Key) -> Known:
        dims = msgspec.msgpack.decode(key[0], type=Dimensions)
        labels = self._set_of(dims, key[1:])
        learnt = (labels, labels.label_id, printable(dims.user))
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = learnt
        return learnt

    def _set_of(self, dims: Dimensions, outcome: tuple[Value, ...]) -> Labels:
        words = {name: getattr(dims, name) for name in _DIMENSIONS} | dict(zip(OUTCOME, outcome, strict=True))
        words["streamed"] = int(dims.streamed)
        words = {name: printable(word) if isinstance(word, str) else word for name, word in words.items()}
        values = tuple(words[name] for name in COLUMNS[1:])
        found = self._sets.get(values)
        if found is None:
            label_id = id_of(values)
            rollup, own = tuple(words[name] for name in ROLLUP), words["cost_id"] == OWN_KEY
            found = Labels(label_id, (label_id, *values), rollup, own)
            if len(self._sets) >= _MOST:
                self._sets.clear()
            self._sets[values] = found
        return found


def printable(text: str) -> str:
    """Return ``text`` with the one character replaced that PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd")


def id_of(values: Sequence[Value]) -> int:
    """Return the id of a label set: 1 to 2**63 - 1, the same for equal labels on every host and in every version.

    It is the first 63 bits of BLAKE2b over the values (MessagePack). Among a million label sets, two share an id with a
    probability of 5e-8.

    Args:
        values: in the order of ``COLUMNS``, without the id; flags as 0 or 1.
    """
    digest = hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=8, person=_DOMAIN).digest()
    return int.from_bytes(digest, "big") >> 1 or 1
