"""Asking own engines to think: OpenRouter's words become those of the engine's chat templates."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines.body import upstream_body
from gateway.engines.catalogue import ENGINES
from gateway.types.call import Operation

ON = {"enable_thinking": True, "thinking": True}
OFF = {"enable_thinking": False, "thinking": False}


def sent(kind: str, **asked: Any) -> dict[str, Any]:
    """Return what an engine is sent beyond the usual for a chat that asks for this."""
    body = {"messages": [], **asked}
    before = copy.deepcopy(body)
    made = upstream_body(ENGINES[kind], Operation.CHAT, body, upstream_model="m", max_tokens=9, stream=False)
    assert body == before
    return {name: value for name, value in made.items() if name not in ("messages", "model", "max_tokens", "stream")}


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"reasoning": {"enabled": True}}, {"chat_template_kwargs": ON}),
        ({"reasoning": {"enabled": False}}, {"chat_template_kwargs": OFF}),
        ({"reasoning": {"effort": "none"}}, {"chat_template_kwargs": OFF}),
        ({"reasoning_effort": "none"}, {"chat_template_kwargs": OFF}),
        ({"reasoning": {"effort": "xhigh"}}, {"reasoning_effort": "high", "chat_template_kwargs": ON}),
        ({"reasoning_effort": "max"}, {"reasoning_effort": "max", "chat_template_kwargs": ON}),
        ({"reasoning": {"effort": 3}}, {}),
        ({"reasoning": "much"}, {}),
        ({"reasoning": {}}, {}),
        (
            {"reasoning": {"enabled": True}, "chat_template_kwargs": {"enable_thinking": False, "x": 1}},
            {"chat_template_kwargs": {"enable_thinking": False, "x": 1}},
        ),
    ],
)
def test_the_switch_of_the_template_is_set(kind: str, asked: dict[str, Any], expected: dict[str, Any]) -> None:
    """On, off and degrees reach the template by its own variables; what the caller says in them stays."""
    assert sent(kind, **asked) == expected


def test_what_only_one_engine_takes() -> None:
    """A budget goes to llama.cpp, which obeys it; hiding thoughts goes to vLLM, which can."""
    assert sent("llamacpp", reasoning={"max_tokens": 200})["thinking_budget_tokens"] == 200
    assert sent("vllm", reasoning={"max_tokens": 200}) == {"chat_template_kwargs": ON}
    assert sent("vllm", reasoning={"exclude": True}) == {"include_reasoning": False}
    assert sent("sglang", reasoning={"exclude": True}) == {}
    assert sent("tgi", reasoning={"enabled": True}) == {}


@given(
    st.dictionaries(
        st.sampled_from(["effort", "max_tokens", "enabled", "exclude"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.builds(list),
    )
)
def test_nothing_odd_breaks_it(wish: dict[str, Any]) -> None:
    """Whatever stands in ``reasoning``, it never reaches an engine whose API has no such member."""
    for kind in ("vllm", "sglang", "llamacpp"):
        assert "reasoning" not in sent(kind, reasoning=wish)
