"""Chat requests said in Anthropic's messages: what each member becomes, and what is refused with its place."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import openai_chat
from gateway.types.errors import BadRequest
from gateway.upstream.anthropic import MESSAGES
from gateway.upstream.anthropic_request import budgeted, messages_body

USER: dict[str, Any] = {"role": "user", "content": "hi"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def said(*messages: Any, max_tokens: int = 4000, **more: Any) -> dict[str, Any]:
    """Return a chat request in messages; the one that was given must not change."""
    chat = {"messages": list(messages or [USER]), **more}
    before = copy.deepcopy(chat)
    body = messages_body(chat, model="m", max_tokens=max_tokens, stream=False)
    assert chat == before
    return body


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 3200}),
        ({"reasoning": {"effort": "low"}}, {"type": "enabled", "budget_tokens": 1024}),
        ({"reasoning": {"max_tokens": 2000}}, {"type": "enabled", "budget_tokens": 2000}),
        ({"reasoning": {"max_tokens": 9000}}, {"type": "enabled", "budget_tokens": 3999}),
        ({"reasoning": {"enabled": True}}, {"type": "enabled", "budget_tokens": 2000}),
        ({"reasoning": {"enabled": False}}, {"type": "disabled"}),
        ({"reasoning_effort": "none"}, {"type": "disabled"}),
        ({"reasoning": {"exclude": True}}, None),
        ({}, None),
    ],
)
def test_reasoning_becomes_a_budget(given: dict[str, Any], expected: Any) -> None:
    """Effort is a share of the length, a budget stays what it is as far as there is room."""
    assert said(**given).get("thinking") == expected


def test_there_is_no_thinking_where_it_would_be_refused() -> None:
    """A short answer, a forced tool, a begun answer, and results without the thoughts before them have none."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    used: Any = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    result = {"role": "tool", "tool_call_id": "a", "content": "x"}
    thought = {"type": "reasoning.text", "text": "Hm.", "signature": "s", "format": "anthropic-claude-v1"}
    wish: Any = {"reasoning_effort": "high"}
    assert "thinking" not in said(max_tokens=1000, **wish)
    assert "thinking" not in said(tools=[TOOL], tool_choice="required", **wish)
    assert "thinking" not in said(USER, {"role": "assistant", "content": "So"}, **wish)
    assert "thinking" not in said(*used, result, tools=[TOOL], **wish)
    thoughtful = [USER, {**used[1], "reasoning_details": [thought]}, result]
    assert said(*thoughtful, tools=[TOOL], **wish)["thinking"]["type"] == "enabled"


def test_thinking_goes_before_sampling() -> None:
    """With thinking there is no temperature, no top_k, and only a high top_p."""
    body = said(reasoning_effort="high", temperature=0.3, top_k=4, top_p=0.5)
    assert not {"temperature", "top_k", "top_p"} & body.keys()
    assert said(reasoning_effort="high", top_p=0.97)["top_p"] == 0.97


def test_two_ways_of_sampling_are_one_too_many() -> None:
    """Models since Opus 4.1 refuse temperature and top_p together, which clients of OpenAI's API often send."""
    both = said(temperature=0.3, top_p=0.5)
    assert (both["temperature"], "top_p" in both) == (0.3, False)
    assert said(top_p=0.5)["top_p"] == 0.5


def test_a_prompt_that_is_all_system_is_said_by_the_user() -> None:
    """There must be a turn, so the system's words become one."""
    body = said({"role": "system", "content": "Say hi."})
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Say hi."}]}]
    assert "system" not in body


def test_what_is_empty_is_left_out() -> None:
    """Empty texts, blank stops and blanks at the end of a begun answer would be refused."""
    body = said(
        USER, {"role": "assistant", "content": ""}, USER, {"role": "assistant", "content": "So \n"}, stop=["\n", "x"]
    )
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"]
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "So"}]
    assert body["stop_sequences"] == ["x"]


def test_thoughts_of_others_are_left_out() -> None:
    """Only what Anthropic signed goes back to it, whatever pieces it came in."""
    details = [
        {"type": "reasoning.text", "text": "of another", "signature": "x", "format": "openai-responses-v1"},
        {"type": "reasoning.text", "text": "never signed", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": "Hm", "format": "anthropic-claude-v1", "index": 1},
        {"type": "reasoning.text", "text": "m.", "format": "anthropic-claude-v1", "index": 1},
        {"type": "reasoning.text", "signature": "s", "format": "anthropic-claude-v1", "index": 1},
        {"type": "reasoning.encrypted", "data": "d", "format": "anthropic-claude-v1", "index": 2},
        {"type": "reasoning.summary", "summary": "no"},
        "junk",
    ]
    body = said(USER, {"role": "assistant", "content": "a", "reasoning_details": details}, USER)
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hmm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "a"},
    ]


def test_files_become_documents() -> None:
    """A PDF and a text in the request itself are documents with their names."""
    files = [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
        {"type": "file", "file": {"file_data": "https://example.org/a.pdf"}},
    ]
    assert said({"role": "user", "content": files})["messages"][0]["content"] == [
        {"type": "document", "title": "a.pdf", "source": PDF},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    ]  # fmt: skip


REFUSED: Any = [
    ([{"type": "input_audio", "input_audio": {}}], {}, "messages[0].content[0]"),
    ([{"type": "image_url", "image_url": {}}], {}, "messages[0].content[0].image_url.url"),
    ([{"type": "image_url", "image_url": {"url": "data:,x"}}], {}, "messages[0].content[0].image_url.url"),
    ([{"type": "file", "file": {"file_id": "f"}}], {}, "messages[0].content[0].file"),
    ([{"type": "file", "file": {"file_data": "data:text/plain;base64,?"}}], {}, "messages[0].content[0].file"),
    ("hi", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
    ("hi", {"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
]


@pytest.mark.parametrize(("content", "more", "place"), REFUSED)
def test_what_cannot_be_said_is_refused_with_its_place(content: Any, more: Any, place: str) -> None:
    """What would change the meaning if it were left out is the request's fault, and named."""
    with pytest.raises(BadRequest, match=re.escape(place)) as caught:
        said({"role": "user", "content": content}, **more)
    assert caught.value.param == place


def test_a_budget_stays_under_the_length() -> None:
    """A budget over the length is cut, and goes where there is no room for the smallest one."""
    for most, left in (
        (5000, {"type": "enabled", "budget_tokens": 3000}),
        (2000, {"type": "enabled", "budget_tokens": 1999}),
        (900, None),
    ):
        body: dict[str, Any] = {"max_tokens": most, "thinking": {"type": "enabled", "budget_tokens": 3000}}
        budgeted(body)
        assert body.get("thinking") == left


WHOLE: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "name": "n",
            "content": [{"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}],
        },
        {
            "role": "assistant",
            "content": "a",
            "refusal": None,
            "reasoning": "r",
            "reasoning_details": [{"type": "reasoning.text", "text": "t", "signature": "s", "format": "f", "index": 0}],
            "tool_calls": [{"id": "i", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "i", "content": [{"type": "text", "text": "t"}], "cache_control": {}},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://a", "detail": "low"}},
                {"type": "file", "file": {"filename": "f", "file_data": "data:text/plain;base64,aGk="}},
            ],
        },
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low", "max_tokens": 2000, "enabled": True, "exclude": False},
    "reasoning_effort": "low",
    "verbosity": "low",
    "service_tier": "auto",
    "cache_control": {"type": "ephemeral"},
    "stop": ["x"],
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "user": "u",
}
JUNK: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 2**40),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.builds(dict),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for name, each in inner for path in paths(each, (*here, name)))]


@given(path=st.sampled_from(paths(WHOLE)[1:]), junk=JUNK)
def test_junk_anywhere_is_said_or_refused(path: tuple[Any, ...], junk: Any) -> None:
    """Whatever a chat caller puts in place of any member, the request is said or refused, and never anything else."""
    body = copy.deepcopy(WHOLE)
    holder: Any = body
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = junk
    with suppress(BadRequest):
        call = openai_chat.read(body, openrouter=True)
        json.dumps(messages_body(call.body, model="m", max_tokens=4000, stream=True))
        MESSAGES.translator(call)
