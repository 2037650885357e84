"""Bedrock's runtime, simulated to the byte: Converse, ConverseStream in Amazon's event-stream framing, signed requests.

The framing and the signature are written down from Amazon's documentation ("Event stream encoding", "Signature
Version 4"), independently of the library that speaks to it: a request whose signature is wrong gets a 403 as it would
there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from tests.fakes.backend import Visit

KEY_ID = "AKIAWEIR0123456789AB"
SECRET_KEY = "wJalrXUtnFEMI-weir-secret-0123456789abcd"
BEARER = "ABSK-weir-0123456789"
"""Amazon's other way in: a key of Bedrock's own."""
THEIRS = "ABSK-theirs-0123456789"
"""Such a key of somebody else."""
REGION = "eu-central-1"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n"
    b"x-amzn-requestid: 1b2c\r\n\r\n"
)
USAGE = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}
CACHED = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 30, "cacheReadInputTokens": 12}
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/([\w-]+)/aws4_request, "
    r"SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})"
)


def frame(kind: str, payload: object, *, exception: bool = False) -> bytes:
    """Return one message of an event stream: prelude, its CRC, headers, payload, the CRC of all of it."""
    names = {":exception-type" if exception else ":event-type": kind}
    names |= {":content-type": "application/json", ":message-type": "exception" if exception else "event"}
    headers = b"".join(
        struct.pack(">B", len(name)) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in names.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def text_delta(text: str, block: int = 0) -> bytes:
    """Return a piece of text as ConverseStream sends it, with its padding."""
    return frame("contentBlockDelta", {"contentBlockIndex": block, "delta": {"text": text}, "p": "abcdefgh"})


def stream_end(reason: str = "end_turn", usage: dict[str, int] = USAGE) -> bytes:
    """Return the messages that end a stream: why it ended, and what it cost."""
    return frame("messageStop", {"stopReason": reason, "p": "ab"}) + frame(
        "metadata", {"usage": usage, "metrics": {"latencyMs": 21}, "p": "abc"}
    )


START = frame("messageStart", {"role": "assistant", "p": "abcd"})


def thinking_stream() -> bytes:
    """Return a whole stream that thinks aloud, signs it, and says something."""
    thoughts = [{"text": "hm, "}, {"text": "water"}, {"signature": "c2lnbmVk"}]
    deltas = [
        frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": each}}) for each in thoughts
    ]
    stop = [frame("contentBlockStop", {"contentBlockIndex": number}) for number in range(2)]
    return START + b"".join(deltas) + stop[0] + text_delta("a weir", 1) + stop[1] + stream_end()


def tool_stream() -> bytes:
    """Return a whole stream that calls two tools, the arguments of the first in pieces."""
    parts = [START]
    for block, (identity, name, pieces) in enumerate(
        [("tooluse_1", "look", ['{"where": ', '"upstream"}']), ("tooluse_2", "wait", ["{}"])]
    ):
        use = {"toolUse": {"toolUseId": identity, "name": name}}
        parts.append(frame("contentBlockStart", {"contentBlockIndex": block, "start": use}))
        parts += [
            frame("contentBlockDelta", {"contentBlockIndex": block, "delta": {"toolUse": {"input": piece}}})
            for piece in pieces
        ]
        parts.append(frame("contentBlockStop", {"contentBlockIndex": block}))
    return b"".join(parts) + stream_end("tool_use")


def answer(*content: dict[str, Any], reason: str = "end_turn", usage: dict[str, int] = USAGE) -> dict[str, Any]:
    """Return what Converse answers."""
    message = {"role": "assistant", "content": list(content)}
    return {"output": {"message": message}, "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 21}}


def _headers(visit: Visit) -> dict[str, str]:
    lines = visit.head.decode().rstrip("\r\n").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def fault_of_signature(visit: Visit) -> str | None:
    """Return what is wrong with the signature of a request, or None."""
    headers = _headers(visit)
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if headers.get("authorization") in {f"Bearer {BEARER}", f"Bearer {THEIRS}"}:
        return None
    if found is None:
        return "there is no signature"
    key, day, region, service, signed, signature = found.groups()
    if (key, region, service) != (KEY_ID, REGION, "bedrock"):
        return f"it is for {key} in {region} at {service}"
    path, _, query = visit.path.partition("?")
    canonical = "\n".join(
        [
            "POST",
            quote(path, safe="/~"),  # as it came, escaped once more: only S3 does not
            query,
            *(f"{name}:{headers[name]}" for name in signed.split(";")),
            "",
            signed,
            hashlib.sha256(visit.body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    secret = f"AWS4{SECRET_KEY}".encode()
    for part in (day, region, service, "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    told = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{digest}"
    if not hmac.compare_digest(hmac.new(secret, told.encode(), "sha256").hexdigest(), signature):
        return "it does not fit the request"
    return None


class Bedrock:
    """See the module.

    Attributes:
        script: answers the next requests in place of the usual answer.
        bodies: what was asked, in order.
        keys: with which authorization.
    """

    def __init__(self) -> None:
        self.script: Callable[[Visit], Awaitable[None]] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []

    async def serve(self, visit: Visit) -> None:
        """Answer one request to ``/model/{id}/converse``, ``/converse-stream`` or, of Titan, ``/invoke``."""
        fault = fault_of_signature(visit)
        if fault is not None:
            await visit.answer({"message": f"The request signature is wrong: {fault}"}, "403 Forbidden")
            return
        self.bodies.append(visit.document)
        self.keys.append(_headers(visit)["authorization"])
        if self.script is not None:
            await self.script(visit)
        elif visit.path.endswith("/invoke"):
            kinds = visit.document.get("embeddingTypes", ["float"])
            typed = {"float": [0.5, 0.25], "binary": [1, 0]}
            by_type = {kind: typed[kind] for kind in kinds}
            await visit.answer({"embedding": [0.5, 0.25], "embeddingsByType": by_type, "inputTextTokenCount": 5})
        elif visit.path.endswith("/converse-stream"):
            await visit.send(STREAM_HEAD)
            await visit.events(START)
            for piece in ("a ", "weir"):
                await visit.events(text_delta(piece))
            await visit.events(frame("contentBlockStop", {"contentBlockIndex": 0}), stream_end(usage=CACHED), last=True)
        else:
            await visit.answer(answer({"text": "a weir"}, usage=CACHED))


def refusal(kind: str, message: str, status: str, more: str = "") -> Callable[[Visit], Awaitable[None]]:
    """Return a script that refuses as Bedrock does: the kind in a header, the words in the body."""

    async def script(visit: Visit) -> None:
        await visit.answer({"message": message}, status, f"x-amzn-errortype: {kind}:http://aws/\r\n{more}")

    return script
