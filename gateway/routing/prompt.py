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
    said = body.get("messages") or body.get("prompt") or body.get("input") or body.get("query") or ""
    tools = body.get("tools")
    said_bytes = said.encode("utf-8", "surrogatepass") if isinstance(said, str) else _encode(said)
    return _encode(tools) + said_bytes if tools else said_bytes


def conversation(body: Mapping[str, Any]) -> str:
    """Return a name for the conversation that a chat ``body`` goes on with, or ``""`` when it has no messages.

    It is made of the first system or developer message and the first other one, which every turn has in common. It
    differs from process to process and tells nobody what was said.
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        return ""
    system = first = None
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        if role in {"system", "developer"}:
            system = message if system is None else system
        else:
            first = message
            break
    return "" if first is None else f"#{hash((_encode(system), _encode(first))) & (2**64 - 1):016x}"
