"""Records of the metering journal: what is written, in which order, and how it is framed.

One attempt of one request writes ``Open`` before the upstream call, ``Progress`` while it streams and ``Close`` at
its end. ``Close`` repeats the dimensions of ``Open``, so a ledger row needs no other record. ``Price`` goes before
the first record of a segment that names its id, so that a segment can be priced by itself, for instance when its
writer died. ``Head`` begins a segment and ``Seal`` ends one whose writer went on in another.

A frame is a little-endian u32 payload length, a u32 CRC32C of the payload, then the payload (MessagePack). Length 0
never occurs, so zeros left by a preallocated or torn tail end the segment. Fields and kinds of records may be added;
fields only at the end, because they are stored by position.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, TypeVar

import google_crc32c
import msgspec

from gateway.types.charge import NO_CHARGE, Charge
from gateway.types.money import Rates
from gateway.types.tokens import NO_USAGE, Usage, UsageSource

S = TypeVar("S", bound=msgspec.Struct)

HEADER: Final = struct.Struct("<II")
MAX_PAYLOAD: Final = 64 * 1024
FORMAT_VERSION: Final = 1
_LONGEST_TEXT: Final = 512
_LARGEST: Final = 2**63 - 1
_IN_FLIGHT: Final = frozenset({b"o", b"g"})
"""Tags of ``Open`` and ``Progress``."""


class Status(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    """The engine finished the answer; the team pays its tokens."""
    CLIENT_CANCEL = "client_cancel"
    """The caller left; the team pays the tokens produced until the engine was stopped."""
    UPSTREAM_ERROR = "upstream_error"
    """The engine failed after output had begun, or finished with an error; the team pays nothing. So it is when the
    gateway itself cut the answer off: the error is then ``shutdown``, or the kind of the error the caller was told."""
    CONTINUED = "continued"
    """The engine failed after output had begun and another attempt went on; the team pays the tokens it got."""
    FAILED = "failed"
    """The attempt failed, and another one, or an error, followed without it. The team pays nothing."""
    REFUSED = "refused"
    """The engine refused the request itself (its 4xx); nobody pays."""
    ORPHANED = "orphaned"
    """The gateway process died; the team pays the last progress."""


ANSWERED: Final = frozenset({Status.OK, Status.CLIENT_CANCEL, Status.ORPHANED})
"""How an attempt ends that is a caller's request, rather than a try that another one or an error followed."""


OWNER: Final = "~owner"
"""Stands for a team in corrections of what the owner pays; no team can be called that, and no team's page shows it."""


class RowKind(StrEnum):
    """What a ledger row is; part of its key."""

    USAGE = "usage"
    CORRECTION = "correction"


class Dimensions(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an attempt is counted by. Every field is a label known when the attempt starts.

    Attributes:
        team: slug of the team that pays.
        key_id: public id of the inference key.
        model: our model id that answers.
        endpoint: slug of the endpoint (provider, quantization, region).
        backend: name of the replica.
        provider: slug of the provider.
        app: calling application, or ``""``.
        tier: service tier, ``"default"`` unless another was asked for and served.
        operation: ``chat``, ``completions`` or ``embeddings``.
        requested_model: the model as the caller named it.
        upstream_model: the model as the backend knows it.
        user: the caller's end-user id, or ``""``.
        streamed: whether the caller asked for a stream.
        price_id: id of the sell rates; 0 when there are none.
        cost_id: id of the owner's cost rates; 0 when unknown.
    """

    team: str
    key_id: str
    model: str
    endpoint: str
    backend: str
    provider: str
    app: str
    tier: str
    operation: str
    requested_model: str
    upstream_model: str
    user: str
    streamed: bool
    price_id: int
    cost_id: int


class Head(msgspec.Struct, array_like=True, frozen=True, tag="h", gc=False):
    """The first record of a segment: who writes it.

    Attributes:
        version: ``FORMAT_VERSION`` of the writer.
        writer: id that all segments of one journal share.
        host: host name of the writer.
        pid: process id of the writer.
        started_us: wall clock when the segment was made, microseconds since 1970.
    """

    version: int
    writer: str
    host: str
    pid: int
    started_us: int


class Seal(msgspec.Struct, array_like=True, frozen=True, tag="s", gc=False):
    """The last record of a segment that was ended in order: attempts still open are repeated in ``following``.

    Attributes:
        following: name of the segment that goes on, ``""`` when the writer ended with nothing open.
    """

    following: str


class Price(msgspec.Struct, array_like=True, frozen=True, tag="p", gc=False):
    """Rates under an id. The id is derived from the rates, so equal rates have equal ids on every host."""

    price_id: int
    rates: Rates


class Open(msgspec.Struct, array_like=True, frozen=True, tag="o", gc=False):
    """An attempt is about to reach its backend.

    Attributes:
        request_id: 16 bytes, see ``gateway.types.ids``.
        attempt: 1-based number of the upstream try.
        dims: what it is counted by.
        opened_us: wall clock, microseconds since 1970.
        prompt_estimate: estimated prompt tokens.
        reserved: the most that the team may be charged for the request, nano-USD, or None when no budget bounds it.
    """

    request_id: bytes
    attempt: int
    dims: Dimensions
    opened_us: int
    prompt_estimate: int
    reserved: int | None = None


class Progress(msgspec.Struct, array_like=True, frozen=True, tag="g", gc=False):
    """Tokens seen so far in an open attempt."""

    request_id: bytes
    attempt: int
    usage: Usage
    source: UsageSource


class Close(msgspec.Struct, array_like=True, frozen=True, tag="c", gc=False):
    """An attempt has ended: one ledger row.

    Attributes:
        status: how it ended.
        finish_reason: of the first choice, as the engine said it; ``""`` when it did not.
        http_status: what the backend answered, 0 when it did not.
        usage: tokens by class, as the engine counts them.
        source: where the counts came from.
        charge: what the team pays.
        cost: what the owner pays, when the backend has cost rates.
        ttft_us: from the arrival of the request to its first token, 0 when none was seen; of a whole answer nobody
            sees it.
        duration_us: from the arrival of the request to the end of this attempt.
        generation_us: from the first to the last token.
        upstream_id: the engine's own id of the answer.
        error: ``error_type`` when it failed, else ``""``.
        replayed: tokens that the engine read or made once more because it went on with an answer; in no other count.
        discount: what the team pays less than the list price; negative when it pays more, None when the same.
    """

    request_id: bytes
    attempt: int
    kind: RowKind
    dims: Dimensions
    opened_us: int
    status: Status
    finish_reason: str = ""
    http_status: int = 0
    usage: Usage = NO_USAGE
    source: UsageSource = UsageSource.NONE
    charge: Charge = NO_CHARGE
    cost: Charge = NO_CHARGE
    ttft_us: int = 0
    duration_us: int = 0
    generation_us: int = 0
    upstream_id: str = ""
    error: str = ""
    replayed: int = 0
    discount: Charge | None = None


class End(msgspec.Struct, array_like=True, frozen=True, tag="c", gc=False):
    """A ``Close`` as the ledger reads it: dimensions not decoded yet, words not checked, classes as tuples."""

    request_id: bytes
    attempt: int
    kind: str
    dims: msgspec.Raw
    opened_us: int
    status: str
    finish_reason: str = ""
    http_status: int = 0
    usage: tuple[int, ...] = ()
    source: str = UsageSource.NONE.value
    charge: tuple[int, ...] = ()
    cost: tuple[int, ...] = ()
    ttft_us: int = 0
    duration_us: int = 0
    generation_us: int = 0
    upstream_id: str = ""
    error: str = ""
    replayed: int = 0
    discount: tuple[int, ...] | None = None


Record = Head | Seal | Price | Open | Progress | Close

_encoder: Final = msgspec.msgpack.Encoder()
_header: Final = HEADER.pack
_checksum: Final = google_crc32c.value
_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)

Settled = Head | Seal | Price | End
"""What makes the ledger."""
_settled_decoder: Final[msgspec.msgpack.Decoder[Settled]] = msgspec.msgpack.Decoder(Settled)


def frame(record: Record) -> bytes:
    """Return ``record`` framed for the journal.

    An attempt that was served is never lost because a caller or an engine sent something absurd: texts that make the
    payload too long are cut, ones that are not Unicode are mended, and numbers beyond 63 bits are cut.
    """
    try:
        payload = _encoder.encode(record)
    except (UnicodeEncodeError, OverflowError):
        payload = _encoder.encode(_tamed(record))
    if len(payload) > MAX_PAYLOAD:
        payload = _encoder.encode(_tamed(record))
    return _header(len(payload), _checksum(payload)) + payload


def frames(data: bytes, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the payload of each whole frame of ``data`` from ``offset`` on, with the offset behind it.

    Stops silently at the first frame that is short, oversized or fails its CRC: that is the torn tail of a writer
    that died, or bytes not written yet, or damage; ``gateway.metering.segments.SegmentParser`` tells which.
    """
    end = len(data)
    unpack, size, checksum = HEADER.unpack_from, HEADER.size, google_crc32c.value
    while offset + size <= end:
        length, crc = unpack(data, offset)
        start = offset + size
        offset = start + length
        if length == 0 or length > MAX_PAYLOAD or offset > end:
            return
        payload = data[start:offset]
        if checksum(payload) != crc:
            return
        yield payload, offset


def decode(payload: bytes) -> Record:
    """Return the record in the payload of a frame. Raises ``msgspec.DecodeError`` when this version knows none."""
    return _decoder.decode(payload)


def decode_settled(payload: bytes) -> Settled | None:
    """Return what the ledger needs of a frame's payload: None for ``Open`` and ``Progress``, not even decoded.

    Raises ``msgspec.DecodeError`` when this version knows no such record.
    """
    # Both are short arrays: one byte of header, then the tag as a one-character string.
    if payload[2:3] in _IN_FLIGHT and payload[0] >> 4 == 9:
        return None
    return _settled_decoder.decode(payload)


def end_of(close: Close) -> End:
    """Return ``close`` in the form in which the ledger reads it."""
    end = _settled_decoder.decode(_encoder.encode(close))
    assert isinstance(end, End)
    return end


def scan(data: bytes, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield each whole record of ``data`` from ``offset`` on, with the offset behind it; stops as ``frames`` does.

    Stops also at a record that this version does not know.
    """
    for payload, end in frames(data, offset):
        try:
            record = _decoder.decode(payload)
        except msgspec.DecodeError:
            return
        yield record, end


def _tamed(record: S) -> S:
    """Return ``record`` with texts cut to ``_LONGEST_TEXT`` characters of valid Unicode, and numbers to 63 bits."""
    changes: dict[str, object] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if type(value) is str:
            changes[name] = value[:_LONGEST_TEXT].encode("utf-8", "replace").decode("utf-8")
        elif type(value) is int:
            changes[name] = min(max(value, -_LARGEST), _LARGEST)
        elif isinstance(value, msgspec.Struct):
            changes[name] = _tamed(value)
    return msgspec.structs.replace(record, **changes)
