"""What is said between the keeper and its clients: messages, methods and errors, over a stream of bytes.

A frame is a little-endian u32 length and that many bytes of MessagePack: one ``Message``. Arguments and
results are typed by the ``METHODS`` table on both sides. Errors of the ``WeirError`` tree travel as class
name and arguments and come back as the same class; anything else becomes ``Internal`` without its text. A
frame that is too long or does not decode is a ``ProtocolError``: the connection is of no more use and is
closed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.types import errors
from gateway.types.actor import Actor
from gateway.types.budgets import Paid, Scope, Spend
from gateway.types.generation import GenerationRecord, KeyUsage, MeterReport
from gateway.types.keys import Grant, IssuedKey, KeyLimits, KeyPatch, KeyRecord, NewKey, TeamRecord
from gateway.types.method import Method, method

VERSION: Final = 2
"""Told in ``hello``; keeper and clients of one host are of one release."""
MAX_FRAME: Final = 64 * 1024 * 1024
NO_REPLY: Final = 0
"""Call id of a request nobody waits for."""

_LENGTH: Final = struct.Struct("<I")


class ProtocolError(Exception):
    """The other side does not speak this protocol."""


class Request(msgspec.Struct, array_like=True, frozen=True, tag="q", gc=False):
    """A call of ``method``; ``arguments`` are MessagePack of the method's argument types, ``actor`` is who acts."""

    call: int
    method: str
    arguments: msgspec.Raw
    actor: Actor | None = None


class Reply(msgspec.Struct, array_like=True, frozen=True, tag="r", gc=False):
    """The result of a call."""

    call: int
    result: msgspec.Raw


class ErrorForm(msgspec.Struct, array_like=True, frozen=True):
    """A ``WeirError`` on its way: class name and what it was made of."""

    name: str
    message: str
    param: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    retry_after: float | None = None
    code: int = 500
    kind: str = ""


class Failure(msgspec.Struct, array_like=True, frozen=True, tag="f"):
    """The error a call ended with."""

    call: int
    error: ErrorForm


class KeyChange(msgspec.Struct, array_like=True, frozen=True, tag="k"):
    """Keys that changed, told to every subscriber."""

    keys: tuple[KeyRecord, ...]


class ScopeChange(msgspec.Struct, array_like=True, frozen=True, tag="b"):
    """The scopes of all hard budgets, told to every subscriber when they change."""

    scopes: tuple[Scope, ...]


class OpenHold(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request that a client runs or has just ended, told to a keeper that may not know of it.

    Attributes:
        hold: id under which it was granted.
        tokens: reserved tokens.
        age_ns: nanoseconds since it was granted.
    """

    hold: int
    key_id: str
    tokens: int
    age_ns: int


Message = Request | Reply | Failure | KeyChange | ScopeChange


HELLO: Final[Method[int]] = method("hello", tuple[int], int, seconds=1.0)
CREATE_TEAM: Final[Method[TeamRecord]] = method("create_team", tuple[str, str], TeamRecord, repeatable=False)
TEAMS: Final[Method[Sequence[TeamRecord]]] = method("teams", tuple[()], tuple[TeamRecord, ...])
CREATE_KEY: Final[Method[IssuedKey]] = method("create_key", tuple[NewKey], IssuedKey, repeatable=False)
KEYS: Final[Method[Sequence[KeyRecord]]] = method("keys", tuple[str | None], tuple[KeyRecord, ...])
KEY: Final[Method[KeyRecord]] = method("key", tuple[str], KeyRecord)
UPDATE_KEY: Final[Method[KeyRecord]] = method("update_key", tuple[str, KeyPatch], KeyRecord)
ROTATE_KEY: Final[Method[IssuedKey]] = method("rotate_key", tuple[str, float], IssuedKey, repeatable=False)
REVOKE_KEY: Final[Method[KeyRecord]] = method("revoke_key", tuple[str], KeyRecord)
SUBSCRIBE: Final[Method[Sequence[KeyRecord]]] = method("subscribe", tuple[()], tuple[KeyRecord, ...])
ADMIT: Final[Method[Grant]] = method("admit", tuple[str, KeyLimits, int], Grant, seconds=1.0)
RESERVE: Final[Method[Grant]] = method("reserve", tuple[str, KeyLimits, int, Spend], Grant, seconds=5.0)
"""As ``admit`` for a request that concerns budgets, which may have to be leased first."""
SETTLE: Final[Method[None]] = method("settle", tuple[int, int, Paid], None)
FOLLOW_SCOPES: Final[Method[Sequence[Scope]]] = method("follow_scopes", tuple[()], tuple[Scope, ...])
PRESENT: Final[Method[None]] = method("present", tuple[str, tuple[int, ...]], None)
"""Which journal a process writes, and its requests that hold something of budgets."""
RESUME: Final[Method[None]] = method("resume", tuple[tuple[OpenHold, ...]], None)
GENERATION: Final[Method[GenerationRecord | None]] = method("generation", tuple[bytes], GenerationRecord | None)
RECENT: Final[Method[Sequence[GenerationRecord]]] = method("recent", tuple[int], tuple[GenerationRecord, ...])
AUDIT: Final[Method[MeterReport]] = method("audit", tuple[()], MeterReport, seconds=600.0)
KEY_USAGE: Final[Method[Mapping[str, KeyUsage]]] = method("key_usage", tuple[tuple[str, ...]], dict[str, KeyUsage])
SHARE_METRICS: Final[Method[Sequence[bytes]]] = method("share_metrics", tuple[bytes], tuple[bytes, ...], seconds=2.0)

METHODS: Final[dict[str, Method[Any]]] = {
    each.name: each
    for each in (
        HELLO,
        CREATE_TEAM,
        TEAMS,
        CREATE_KEY,
        KEYS,
        KEY,
        UPDATE_KEY,
        ROTATE_KEY,
        REVOKE_KEY,
        SUBSCRIBE,
        ADMIT,
        RESERVE,
        SETTLE,
        FOLLOW_SCOPES,
        PRESENT,
        RESUME,
        GENERATION,
        RECENT,
        AUDIT,
        KEY_USAGE,
        SHARE_METRICS,
    )
}

_encoder: Final = msgspec.msgpack.Encoder()
_lenient: Final = msgspec.msgpack.Encoder(enc_hook=str)
_decoder: Final = msgspec.msgpack.Decoder(Message)


def raw(value: Any) -> msgspec.Raw:
    """Return ``value``, arguments or a result, encoded for a message.

    Raises:
        BadRequest: it holds a number beyond 64 bits or a text that is not Unicode.
    """
    try:
        return msgspec.Raw(_encoder.encode(value))
    except (OverflowError, UnicodeEncodeError):
        raise errors.BadRequest("a number is too large, or a text is not valid Unicode") from None


def frame(message: Message) -> bytes:
    """Return ``message`` as bytes for the stream.

    Raises:
        ProtocolError: it is longer than ``MAX_FRAME``.
    """
    payload = _lenient.encode(message)
    if len(payload) > MAX_FRAME:
        raise ProtocolError(f"a message of {len(payload)} bytes is too long")
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes, in whatever pieces it comes, into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take ``data`` and return the messages that are whole now.

        Raises:
            ProtocolError: a frame is too long or no message.
        """
        found: list[Message] = []
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_FRAME:
                raise ProtocolError(f"a frame of {length} bytes is too long")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            payload = bytes(buffer[start + _LENGTH.size : end])
            start = end
            try:
                found.append(_decoder.decode(payload))
            except (msgspec.DecodeError, RecursionError) as error:
                raise ProtocolError("a frame holds no message") from error
        del buffer[:start]
        return found


def _tree(root: type[errors.WeirError]) -> Iterator[type[errors.WeirError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_CLASSES: Final = {found.__name__: found for found in _tree(errors.WeirError)}


def error_form(error: BaseException) -> ErrorForm:
    """Return ``error`` for its way to the other side; a foreign one becomes ``Internal`` without its text."""
    if not isinstance(error, errors.WeirError):
        return ErrorForm("Internal", "the keeper failed; its log says why")
    # A class of some part's own arrives as what it is a kind of: the other side may not have that part.
    known = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return ErrorForm(
        known.__name__,
        error.message,
        error.param,
        error.metadata,
        error.retry_after,
        error.code,
        error.kind,
    )


def error_of(form: ErrorForm) -> errors.WeirError:
    """Return the error that ``form`` describes, of the same class; an unknown class becomes ``Internal``."""
    found = _CLASSES.get(form.name, errors.Internal)
    if issubclass(found, errors.UpstreamFailed):
        return found(
            form.message,
            code=form.code,
            kind=form.kind,
            metadata=form.metadata,
            retry_after=form.retry_after,
            param=form.param,
        )
    return found(form.message, param=form.param, metadata=form.metadata, retry_after=form.retry_after)
