"""Folding and unfolding keep every answer whole."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.types.call import Operation
from gateway.upstream.fold import Folder, unfold

TEXT = st.text(max_size=20)
CALL = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=8),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.text(min_size=1, max_size=8), "arguments": TEXT}),
    }
)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = []
    for index in range(draw(st.integers(1, 3))):
        message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | TEXT)}
        if draw(st.booleans()):
            message["reasoning_content"] = draw(TEXT)
        calls = draw(st.lists(CALL, max_size=2))
        if calls:
            message["tool_calls"] = calls
        choices.append(
            {
                "index": index,
                "message": message,
                "finish_reason": draw(st.sampled_from(["stop", "length"])),
                "logprobs": None,
            }
        )
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": choices,
        "system_fingerprint": None,
    }


@given(answers())
def test_unfolding_then_folding_gives_the_answer_back(answer: dict[str, Any]) -> None:
    """A whole answer turned into a stream and back is the same answer."""
    expected = {**answer, "choices": [{**choice, "message": dict(choice["message"])} for choice in answer["choices"]]}
    folder = Folder(Operation.CHAT)
    folder.feed(unfold(answer, Operation.CHAT))
    assert folder.answer() == expected


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}],
    }


def test_streamed_tool_calls_are_put_together_byte_for_byte() -> None:
    """Two interleaved tool calls keep their ids, names and arguments."""
    folder = Folder(Operation.CHAT)
    folder.feed(
        [
            chunk({"role": "assistant", "content": None}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}),
            chunk({}, "tool_calls"),
        ]
    )
    message = folder.answer()["choices"][0]["message"]
    assert message["content"] is None
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "f", "arguments": '{"x": 1}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert [call["id"] for call in message["tool_calls"]] == ["a", "b"]
    assert all("index" not in call for call in message["tool_calls"])


def test_log_probabilities_of_all_chunks_are_kept() -> None:
    """Folding joins the token lists."""
    folder = Folder(Operation.CHAT)
    folder.feed(
        [chunk({"content": "a"}, logprobs={"content": [1]}), chunk({"content": "b"}, "stop", logprobs={"content": [2]})]
    )
    choice = folder.answer()["choices"][0]
    assert choice["message"]["content"] == "ab"
    assert choice["logprobs"] == {"content": [1, 2]}
