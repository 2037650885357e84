"""What the load generators send and how they mark it: the shared words between the load and the mock.

The mock learns from a marker in the user's text which answer is wanted, because every gateway hands the
text on while model names, paths and headers are rewritten by some. The chunk stamp is how a chunk carries
its send time. A body that cannot be made at the asked size raises ValueError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

CHUNKS: Final = 50
"""Content chunks in one streamed answer."""

CHUNK_GAP_S: Final = 0.020
"""Seconds between two chunks of a dripped answer; also the delay before the first chunk of `ttft20`."""

BODY_BYTES: Final = 800
"""Size of a chat completion request body."""

UPSTREAM_MODEL: Final = "Qwen/Qwen3-32B"
"""The model name the mock's replicas serve."""

MARKER: Final = b"bench:"
MODES: Final = ("json", "burst", "drip", "ttft20", "hold", "flood")
"""`json` instant answer; `burst` all chunks in one write; `drip` one chunk every 20 ms; `ttft20` first
chunk after 20 ms, the rest at once; `hold` two chunks a second until the client leaves; `flood` 64 MB as
fast as they are read."""

FLOOD_BYTES: Final = 64_000_000
"""Bytes of the answer in mode `flood`."""

STAMP: Final = re.compile(rb"@(\d{20});")
"""A send time (`time.monotonic_ns`, 20 digits) inside a chunk's text; the `;` shows that it arrived whole."""

_FILLER: Final = (
    "Summarise what the maintenance log says about the second pump, list the open questions in order of "
    "urgency, and say which of them can wait until the next inspection. Answer in plain sentences. "
)
_SYSTEM: Final = (
    "You are a careful assistant of a plant operator. You answer briefly, you never guess, and you say so "
    "when the text at hand does not contain the answer."
)


def chat_body(mode: str, model: str, serial: int = 0, size: int = BODY_BYTES) -> bytes:
    """Returns a chat completion request of exactly `size` bytes that asks the mock for `mode`.

    `serial` makes prompts differ after a common system prompt, as real ones do; streams ask for the usage
    chunk, so that every contestant passes the same events. Raises ValueError for an unknown mode or a size
    that is too small.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}")
    request: dict[str, object] = {"model": model}
    if mode != "json":
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    request |= {"max_tokens": 64, "temperature": 0.7}
    opening = f"{MARKER.decode()}{mode}. Case {serial:04d}: "

    def encode(text: str) -> bytes:
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]
        return json.dumps({**request, "messages": messages}, separators=(",", ":")).encode()

    room = size - len(encode(opening))
    if room < 0:
        raise ValueError(f"a body of {size} bytes cannot hold a request of mode {mode!r} for {model!r}")
    return encode(opening + (_FILLER * (room // len(_FILLER) + 1))[:room])


def http_request(host: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Returns one HTTP/1.1 POST of a JSON body, ready to be written to a socket."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", "Accept: */*"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def stamped(now_ns: int) -> bytes:
    """Returns the chunk text that carries `now_ns` (`time.monotonic_ns`, nanoseconds)."""
    return b"@%020d;" % now_ns
