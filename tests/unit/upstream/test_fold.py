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


def test_the_input_of_a_custom_tool_is_put_together() -> None:
    """A custom tool has text in place of arguments, and no function."""
    folder = Folder(Operation.CHAT)
    begun = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "run", "input": ""}}
    folder.feed([chunk({"role": "assistant", "content": None}), chunk({"tool_calls": [begun]})])
    folder.feed([chunk({"tool_calls": [{"index": 0, "custom": {"input": piece}}]}) for piece in ("print(", "1)")])
    folder.feed([chunk({}, "tool_calls")])
    calls = folder.answer()["choices"][0]["message"]["tool_calls"]
    assert calls == [{"id": "a", "type": "custom", "custom": {"name": "run", "input": "print(1)"}}]


def test_what_comes_in_pieces_besides_text_is_put_together() -> None:
    """The sound of an answer with its transcript, and a call in the older form."""
    folder = Folder(Operation.CHAT)
    sounds: list[dict[str, Any]] = [{"transcript": "hel"}, {"data": "AAAA"}, {"transcript": "lo", "data": "BBBB"}]
    folder.feed([chunk({"audio": {"id": "s", **sound}}) for sound in [*sounds, {"expires_at": 5}]])
    calls = [{"name": "f", "arguments": ""}, {"arguments": '{"a":'}, {"arguments": "1}"}]
    folder.feed([chunk({"function_call": call}) for call in calls])
    message = folder.answer()["choices"][0]["message"]
    assert message["audio"] == {"id": "s", "transcript": "hello", "data": "AAAABBBB", "expires_at": 5}
    assert message["function_call"] == {"name": "f", "arguments": '{"a":1}'}


def test_log_probabilities_of_all_chunks_are_kept() -> None:
    """Folding joins the token lists."""
    folder = Folder(Operation.CHAT)
    folder.feed(
        [chunk({"content": "a"}, logprobs={"content": [1]}), chunk({"content": "b"}, "stop", logprobs={"content": [2]})]
    )
    choice = folder.answer()["choices"][0]
    assert choice["message"]["content"] == "ab"
    assert choice["logprobs"] == {"content": [1, 2]}
