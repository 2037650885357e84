"""Which items of a conversation go when it does not fit."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.openai_responses_input import Conversation
from gateway.edge.openai_responses_truncation import without_oldest

_TEXT = st.text(max_size=20)
_TURNS = st.one_of(
    st.builds(
        lambda role, text: [{"role": role, "content": text}],
        st.sampled_from(["user", "assistant", "system", "developer"]),
        _TEXT,
    ),
    st.just([{"type": "reasoning", "summary": []}]),
    st.builds(
        lambda between: [
            {"type": "function_call", "call_id": "", "name": "f", "arguments": "{}"},
            *([{"role": "user", "content": "wait"}] if between else []),
            {"type": "function_call_output", "call_id": "", "output": "1"},
        ],
        st.booleans(),
    ),
)


@given(st.lists(_TURNS, min_size=1, max_size=12), st.floats(0.01, 1))
def test_what_is_left_is_a_conversation(turns: list[list[dict[str, Any]]], share: float) -> None:
    """Order is kept, calls have their outputs, nothing that must stay goes, and what goes is older than what stays."""
    items = [
        {**item, **({"call_id": f"c{number}"} if "call_id" in item else {})}
        for number, turn in enumerate(turns)
        for item in turn
    ]
    left = without_oldest(items, share)
    places = iter(range(len(items)))
    kept = [next(place for place in places if items[place] is item) for item in left]
    last = max((place for place, item in enumerate(items) if item.get("role") == "user"), default=len(items) - 1)
    assert set(range(last, len(items))) <= set(kept)
    assert all(place in kept for place, item in enumerate(items) if item.get("role") in ("system", "developer"))
    Conversation(None).take(left)  # refuses an output without its call
    outputs = {item["call_id"] for item in left if item.get("type") == "function_call_output"}
    assert outputs == {item["call_id"] for item in left if item.get("type") == "function_call"}


def test_the_oldest_go_first_and_no_more_than_needed() -> None:
    """One of four equal turns goes for a quarter, two for a little more; a conversation of one turn stays."""
    turns = [{"role": "user", "content": str(number)} for number in range(4)]
    assert without_oldest(turns, 0.25) == turns[1:]
    assert without_oldest(turns, 0.3) == turns[2:]
    assert without_oldest(turns, 1.0) == turns[3:]
    assert without_oldest(turns[:1], 1.0) == turns[:1]
