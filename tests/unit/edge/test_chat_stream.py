"""A stream of chat chunks in OpenAI's form: how the engine's reads cut it makes no difference to its caller."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.openai_reply import OpenAIReply
from gateway.types import ids
from gateway.types.call import Call, Need, Operation
from gateway.types.chunk import Chunk, TextChoice, TextChunk, TextDelta
from tests.fakes.fuzz import Nothing

TOOL = {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "1"}]}, "finish_reason": None}
END = {"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "stop"}
TEXT = st.builds(
    lambda content, thought, fingerprint, index: TextChunk(
        choices=(TextChoice(TextDelta(content=content, reasoning_content=thought), index),),
        system_fingerprint=fingerprint,
    ),
    st.text(max_size=4),
    st.none() | st.text(max_size=4),
    st.sampled_from([None, "a", "b"]),
    st.integers(0, 2),
)
OTHERS = st.sampled_from([{"choices": []}, {"choices": [TOOL]}, {"choices": [END], "usage": {"prompt_tokens": 1}}])


class Caller(Nothing):
    """Keeps what it is written."""

    def __init__(self) -> None:
        self.request_id = ids.RequestId(bytes(16))
        self.arrived = 0.0
        self.written = b""

    def write(self, data: bytes) -> None:
        """Keep it."""
        assert data
        self.written += data


def told(reads: list[list[Chunk]], *, openrouter: bool) -> bytes:
    """Return what the caller is written when the chunks come in these reads."""
    body: dict[str, Any] = {}
    call = Call(Operation.CHAT, body, "m", True, False, 1, None, 0, 0, Need.NONE, openrouter)
    caller: Any = Caller()
    reply = OpenAIReply(caller, call)
    for chunks in reads:
        reply.send(chunks)
    return bytes(caller.written)


@given(st.lists(TEXT | OTHERS, max_size=8), st.booleans())
def test_chunks_of_one_read_are_told_as_those_of_many(chunks: list[Chunk], openrouter: bool) -> None:
    """Together or one by one, the caller gets the same bytes, and never an empty piece."""
    together = told([copy.deepcopy(chunks)], openrouter=openrouter)
    assert together == told([[chunk] for chunk in copy.deepcopy(chunks)], openrouter=openrouter)
    assert together.count(b"\n\n") == sum(
        bool(each.choices if isinstance(each, TextChunk) else each["choices"]) for each in chunks
    )
