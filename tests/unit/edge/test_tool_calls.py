"""Tool calls are judged by what can be known without running them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.tool_calls import ToolCalls

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"}},
            "required": ["city"],
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}


def verdict(name: str, arguments: str, *, pieces: int = 1) -> bool | None:
    """Return what is said of one call, streamed in ``pieces`` deltas."""
    calls = ToolCalls([WEATHER, CLOCK])
    step = max(1, -(-len(arguments) // pieces))
    parts = [arguments[start : start + step] for start in range(0, len(arguments), step)] or [""]
    for number, part in enumerate(parts):
        function = {"arguments": part} | ({"name": name} if number == 0 else {})
        calls.take({"index": 0, "delta": {"tool_calls": [{"index": 0, "function": function}]}, "finish_reason": None})
    calls.take({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    return calls.sound


@pytest.mark.parametrize(
    ("name", "arguments", "sound"),
    [
        ("weather", '{"city": "Basel"}', True),
        ("weather", '{"city": "Basel", "days": 3, "exact": true, "more": null}', True),
        ("clock", "", True),
        ("clock", "{}", True),
        ("weather", "{}", False),
        ("weather", '{"city": 7}', False),
        ("weather", '{"city": "Basel", "days": true}', False),
        ("weather", '{"city": "Basel"', False),
        ("weather", "[]", False),
        ("wether", '{"city": "Basel"}', False),
    ],
)
def test_a_call_is_sound_when_it_can_be_run(name: str, arguments: str, sound: bool) -> None:
    """Unknown names, broken JSON and arguments of another shape are told, streamed in one piece or in many."""
    assert verdict(name, arguments) is sound
    assert verdict(name, arguments, pieces=5) is sound


def test_an_answer_without_calls_says_nothing() -> None:
    """Who was given tools need not use them."""
    calls = ToolCalls([WEATHER])
    calls.take({"index": 0, "message": {"content": "It rains."}, "finish_reason": "stop"})
    assert calls.sound is None


def test_every_call_counts() -> None:
    """One bad call of several makes the answer bad; choices and calls are told apart."""
    good = {"function": {"name": "clock", "arguments": "{}"}}
    calls = ToolCalls([CLOCK])
    calls.take({"index": 0, "message": {"tool_calls": [good, good]}, "finish_reason": "tool_calls"})
    assert calls.sound is True
    bad = {"function": {"name": "clock", "arguments": "{"}}
    calls.take({"index": 1, "message": {"tool_calls": [good, bad]}, "finish_reason": "tool_calls"})
    assert calls.sound is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "required", "properties", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(JSON | st.fixed_dictionaries({"function": JSON}), max_size=3), JSON, st.text(max_size=20))
def test_no_schema_of_a_caller_breaks_it(tools: list[Any], schema: Any, arguments: str) -> None:
    """Tools are the caller's text: whatever they are, there is a verdict."""
    calls = ToolCalls([*tools, {"function": {"name": "f", "parameters": schema}}])
    calls.take({"index": 0, "message": {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}})
    assert calls.sound in {True, False}


@pytest.mark.parametrize(("name", "sound"), [("run", True), ("walk", False)])
def test_a_call_of_a_custom_tool_needs_no_json(name: str, sound: bool) -> None:
    """Its input is any text; a tool that nobody offered is none."""
    calls = ToolCalls([CLOCK, {"type": "custom", "custom": {"name": "run"}}])
    for custom in ({"name": name, "input": ""}, {"input": "print("}, {"input": "1)"}):
        calls.take({"index": 0, "delta": {"tool_calls": [{"index": 0, "custom": custom}]}, "finish_reason": None})
    assert calls.sound is sound
