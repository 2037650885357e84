"""What the head of an inference request must say before its body is read, the same on both server roads.

A head that says otherwise is refused at once, so a caller with too much to send learns it before it has sent it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import httptools

from gateway.types.errors import BadRequest, MethodNotAllowed, PayloadTooLarge, UnsupportedEncoding

_SINGLE: Final = (
    *(b"authorization", b"content-encoding", b"host", b"idempotency-key"),
    *(b"transfer-encoding", b"x-api-key"),
)
"""Headers that mean one thing to us and perhaps another to whoever stands in front when they come twice."""


def header_map(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return lower-case names to values. A repeated header keeps its last value; see ``check_repeats``."""
    return dict(pairs)


def check_repeats(pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse a head that says twice what may be said once. Raises ``BadRequest``."""
    names = [name for name, _ in pairs]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise BadRequest(f"the header {name.decode()} may be sent once")


def check_head(method: bytes, headers: Mapping[bytes, bytes], limit: int) -> None:
    """Refuse what no body could make good.

    Args:
        method: in upper case.
        headers: lower-case names to values.
        limit: bytes of the largest body.

    Raises:
        MethodNotAllowed: it is not POST.
        PayloadTooLarge: the announced length is over ``limit``.
        UnsupportedEncoding: the body is compressed; nothing is decompressed here, so a small body is never a large one.
        BadRequest: the announced length is not a number.
    """
    if method != b"POST":
        raise MethodNotAllowed(f"use POST, not {method.decode('ascii', 'replace')}")
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit() or len(length) > 18:
            raise BadRequest("the content length is not a number of bytes")
        if int(length) > limit:
            raise too_large(limit)
    elif headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise UnsupportedEncoding("only the transfer encoding chunked is read")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedEncoding("compressed request bodies are not read; send the JSON as it is")


def without_offer(parser: httptools.HttpRequestParser, url: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the head that ``parser`` has just read, without its offer to upgrade the connection.

    HTTP lets a server ignore the offer, but the parser reads no body behind it: the request is read again without.
    """
    lines = [b"%s %s HTTP/%s" % (parser.get_method(), url, parser.get_http_version().encode("ascii"))]
    lines += [b"%s: %s" % pair for pair in pairs if pair[0] not in {b"connection", b"upgrade"}]
    if not parser.should_keep_alive():
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])


def too_large(limit: int) -> PayloadTooLarge:
    """Return the error for a body over ``limit`` bytes."""
    return PayloadTooLarge(f"the request body is over the limit of {limit} bytes", metadata={"limit_bytes": limit})
