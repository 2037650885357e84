"""What the head of an inference request must say before its body is read, the same on both server roads.

A head that says otherwise is refused at once, so a caller with too much to send learns it before it has sent it.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.types.errors import BadRequest, MethodNotAllowed, PayloadTooLarge


class HeadTooLarge(BadRequest):
    """Request line and headers are over the limit."""

    status = 431


class UnsupportedEncoding(BadRequest):
    """The body is compressed; nothing is decompressed here, so that a small body is never a large one."""

    status = 415


def check_head(method: bytes, headers: Mapping[bytes, bytes], limit: int) -> None:
    """Refuse what no body could make good.

    Args:
        method: in upper case.
        headers: lower-case names to values.
        limit: bytes of the largest body.

    Raises:
        MethodNotAllowed: it is not POST.
        PayloadTooLarge: the announced length is over ``limit``.
        UnsupportedEncoding: the body is compressed.
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
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedEncoding("compressed request bodies are not read; send the JSON as it is")


def too_large(limit: int) -> PayloadTooLarge:
    """Return the error for a body over ``limit`` bytes."""
    return PayloadTooLarge(f"the request body is over the limit of {limit} bytes", metadata={"limit_bytes": limit})
