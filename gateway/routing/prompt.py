"""The text of a prompt as routing compares it: what comes first in the engine's template comes first here.

Pure; a body of any shape gives some bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


def text(body: Mapping[str, Any]) -> bytes:
    """Return the tools and the messages, or the plain prompt, of the request ``body``.

    Bodies that begin alike give bytes that begin alike; equal bytes do not have to be the same number of tokens.
    """
    said = body.get("messages") or body.get("prompt") or body.get("input") or ""
    tools = body.get("tools")
    said_bytes = said.encode("utf-8", "surrogatepass") if isinstance(said, str) else _encode(said)
    return _encode(tools) + said_bytes if tools else said_bytes
