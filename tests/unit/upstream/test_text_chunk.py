"""A text chunk says to the caller, the folder and the meter exactly what the same chunk as a dictionary says."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.openai_reply import OpenAIReply
from gateway.metering.tap import Basis, Tap
from gateway.types import ids
from gateway.types.call import Call, Need, Operation
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.tokens import Usage
from gateway.upstream.fold import Folder
from gateway.upstream.openai import UNREADABLE, decode, decode_text, mend_chunk
from tests.fakes.fuzz import Nothing

TEXT = st.text(max_size=8)
NULL = st.none()
COUNT = st.integers(0, 99)
USAGE = st.fixed_dictionaries(
    {"prompt_tokens": COUNT, "completion_tokens": COUNT},
    optional={
        "total_tokens": COUNT,
        "prompt_tokens_details": st.fixed_dictionaries({}, optional={"cached_tokens": COUNT}) | NULL,
        "completion_tokens_details": st.fixed_dictionaries({}, optional={"reasoning_tokens": COUNT}) | NULL,
        "reasoning_tokens": COUNT | NULL,
    },
)
CHUNKS = st.fixed_dictionaries(
    {
        "id": TEXT,
        "object": st.just("chat.completion.chunk"),
        "created": st.integers(1, 2**40),
        "model": TEXT,
        "choices": st.tuples(
            st.fixed_dictionaries(
                {
                    "index": st.integers(0, 3),
                    "delta": st.fixed_dictionaries(
                        {},
                        optional={
                            "role": st.just("assistant") | NULL,
                            "content": TEXT | NULL,
                            "reasoning_content": TEXT | NULL,
                            "reasoning": TEXT | NULL,
                            "refusal": NULL,
                            "tool_calls": NULL,
                            "function_call": NULL,
                        },
                    ),
                },
                optional=dict.fromkeys(("finish_reason", "logprobs", "stop_reason", "matched_stop", "token_ids"), NULL),
            )
        ),
    },
    optional={"system_fingerprint": TEXT | NULL, "usage": USAGE | NULL, "service_tier": NULL, "prompt_token_ids": NULL},
)


def plain(value: Any) -> Any:
    """Return a decoded document without members that are null."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items() if member is not None}
    return [plain(member) for member in value] if isinstance(value, list) else value


def spoken(chunk: Chunk, *, openrouter: bool) -> Any:
    """Return the event a caller gets for ``chunk``."""
    written: list[bytes] = []
    exchange: Any = Nothing()
    exchange.request_id, exchange.arrived = ids.RequestId(bytes(16)), 0.0
    exchange.write = written.append
    call = Call(Operation.CHAT, {}, "m", True, True, 4, None, 2, 2, Need.NONE, openrouter)
    reply = OpenAIReply(exchange, call)
    reply.begin("m", "own")
    reply._created = 7
    reply.send([chunk])
    if isinstance(chunk, TextChunk):
        reply.say(chunk)
        assert written.pop() == written[0]
    assert written[0].endswith(b"\n\n")
    return plain(json.loads(written[0].removeprefix(b"data: ")))


def counted(chunk: Chunk) -> tuple[Usage, int, bool]:
    """Return what the tap makes of ``chunk``."""
    tap = Tap(Basis(Operation.CHAT, 4, 2, delta_is_token=True, counts_all_choices=True))
    tap.chunk(chunk)
    return tap.count()[0], tap.deltas, tap.finished


@given(CHUNKS, st.booleans())
def test_both_forms_of_a_text_chunk_say_the_same(document: dict[str, Any], openrouter: bool) -> None:
    """Caller, folder and meter cannot tell which form a chunk came in."""
    payload = json.dumps(document, ensure_ascii=False).encode()
    text = decode_text(payload)
    mended = decode(payload)
    assert mended is not None
    assert mend_chunk(mended, Operation.CHAT)
    assert counted(text) == counted(mended)
    whole, other = Folder(Operation.CHAT), Folder(Operation.CHAT)
    whole.feed([text])
    other.feed([mended])
    told = plain(other.answer())
    told.pop("model")  # the reply names the model
    told.pop("id", None)
    folded = plain(whole.answer())
    folded.pop("id", None)
    assert folded["choices"] == told["choices"]
    assert {name: told[name] for name in folded} == folded
    assert spoken(text, openrouter=openrouter) == spoken(mended, openrouter=openrouter)


@pytest.mark.parametrize(
    "change",
    [
        {"usage": [1]},
        {"usage": {"prompt_tokens": 1}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 7.0}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": "1"}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "vendor": 1}},
        {"error": {"message": "full"}},
        {"choices": []},
        {"choices": [{"index": 0, "delta": {"content": "a"}}] * 2},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": []}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]},
        {"choices": [{"index": 0, "delta": {"content": ["a"]}}]},
        {"choices": [{"index": 0, "delta": {"content": "a", "vendor": 1}}]},
        {"choices": [{"index": "0", "delta": {"content": "a"}}]},
        {"vendor": 1},
    ],
)
def test_a_chunk_that_says_more_is_no_text_chunk(change: dict[str, Any]) -> None:
    """What finishes, reports usage, fails, calls tools or has members unknown here takes the way that looks at all."""
    document = {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}], **change}
    with pytest.raises(UNREADABLE):
        decode_text(msgspec.json.encode(document))
