"""The dialects in which callers ask and APIs behind the gateway answer.

Inside, everything is said in OpenAI's chat form (``gateway.types.chunk``); each other dialect has a translator at the
edge for callers who speak it and one in ``upstream`` for APIs that do. Where both sides speak the same other dialect,
the original goes along beside the chat form, so that nothing is lost.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Dialect(StrEnum):
    """How a request and its answer are written."""

    CHAT = "chat"
    """OpenAI's chat completions, and the operations that have no other form."""
    MESSAGES = "messages"
    """Anthropic's messages."""
    RESPONSES = "responses"
    """OpenAI's responses."""


NATIVE: Final = "\x00native"
"""Member of a canonical chunk or answer under which the original stands: a list of events, or the whole answer.

It is there only when caller and API speak the same dialect other than chat. No JSON that was received can have a
member of this name: what was decoded is cleared of it by the translator that sets it.
"""
