"""Requests of the Responses API: what becomes of each item, and every wrong field refused by its name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import openai_responses
from gateway.edge.openai_responses import ResponsesCall
from gateway.types.call import Need
from gateway.types.errors import BadRequest
from gateway.types.responses import mended_id, original_id

MODEL = "m"
TOOL: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": None}


def read(**members: Any) -> ResponsesCall:
    """Read a request."""
    return openai_responses.read({"model": MODEL, "input": "x"} | members, openrouter=False)


def messages(*items: Any, **more: Any) -> list[dict[str, Any]]:
    """Return the chat messages that items become."""
    found: list[dict[str, Any]] = read(input=list(items), **more).body["messages"]
    return found


_ITEMS: Any = [
    {"role": "developer", "content": "Be brief."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "S"}],
        "content": [{"type": "reasoning_text", "text": "T"}],
        "encrypted_content": "E",
        "signature": "sig",
        "format": "f",
    },
    {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}],
    },
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
    {"type": "function_call", "call_id": "c2", "name": "look", "arguments": '{"a":1}'},
    {"type": "function_call_output", "call_id": "c2", "output": "two"},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "See", "cache_control": {"type": "ephemeral"}},
            {"type": "input_image", "image_url": "https://a/b.png", "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ],
    },
]
_MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
    {
        "role": "assistant",
        "content": "ab",
        "reasoning": "ST",
        "reasoning_details": [
            {"type": "reasoning.summary", "summary": "S", "format": "f", "index": 0},
            {"type": "reasoning.text", "text": "T", "format": "f", "signature": "sig", "index": 1},
            {"type": "reasoning.encrypted", "data": "E", "format": "f", "index": 2},
        ],
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            {"id": "c2", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "c2", "content": "two"},
    {"role": "tool", "tool_call_id": "c1", "content": "one"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "See", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ],
    },
]


def test_items_become_messages() -> None:
    """Everything that a chat can say is said, and what stands together is one message of the assistant."""
    assert messages(*_ITEMS) == _MESSAGES


def test_the_answer_is_shaped_as_asked() -> None:
    """Tools, formats, lengths and samplers have the names of the chat form; nothing of the chat form slips in."""
    call = read(
        tools=[TOOL, {"type": "function", "name": "other", "parameters": None}],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}, "verbosity": "low"},
        reasoning={"effort": "high", "max_tokens": 100},
        max_output_tokens=50,
        top_p=0.5,
        seed=1,
        top_k=4,
        safety_identifier="who",
        session_id="s",
        n=5,
        max_tokens=9000,
        messages=[{"role": "user", "content": "smuggled"}],
        functions=[{}],
        metadata={"a": "b"},
    )
    assert call.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "tool_choice": "required",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        "verbosity": "low",
        "reasoning_effort": "high",
        "reasoning": {"effort": "high", "max_tokens": 100},
        "max_completion_tokens": 50,
        "top_p": 0.5,
        "seed": 1,
        "top_k": 4,
        "safety_identifier": "who",
        "session_id": "s",
    }
    assert (call.max_tokens, call.choices, call.user, call.session) == (50, 1, "who", "s")
    assert call.needs == Need.TOOLS | Need.JSON_SCHEMA
    assert not call.unsaid


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://a"}]}]},
            "input[0].content[0].file_url",
        ),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ],
    ids=str,
)
def test_what_a_chat_cannot_say_is_left_to_who_can(members: dict[str, Any], place: str) -> None:
    """It is noted by its place, and only a backend that speaks Responses is asked."""
    call = read(**members)
    assert Need.RESPONSES in call.needs
    assert call.unsaid == place


_USER: Any = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [5]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": 5}]}]}, "input[0].content[0].type"),
        (
            {"input": [_USER, {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[1].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "x"}]}]},
            "input[0].content[0].detail",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "/data/7.png"}]}]},
            "input[0].content[0]",
        ),
        ({"input": [{"role": "assistant", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": 7}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "n"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": [{"text": 5}]}]}, "input[0].summary[0].text"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
        ({"instructions": []}, "instructions"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "n", "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [{"type": "function", "name": "n", "strict": "yes"}]}, "tools[0].strict"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[0].vector_store_ids"),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools[0].container"),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}]},
            "tools[0].container.file_ids",
        ),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "none"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": 5}}, "tool_choice.tools"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": [], "mode": "x"}},
            "tool_choice.mode",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"verbosity": "huge"}}, "text.verbosity"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "9"}, "max_output_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"truncation": "some"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"store": "yes"}, "store"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"include": ["everything"]}, "include[0]"),
        ({"stream_options": {}}, "stream_options"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"model": 5}, "model"),
        ({"provider": {"sort": "x"}}, "provider.sort"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_named(members: dict[str, Any], param: str) -> None:
    """Every field of a wrong type, out of range or contradictory is a 400 that names it."""
    with pytest.raises(BadRequest) as caught:
        read(**members)
    assert caught.value.param == param


_RICH: Any = {
    "model": MODEL,
    "models": ["other"],
    "instructions": "Be kind.",
    "input": [
        *_ITEMS,
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ],
    "tools": [TOOL, {"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "web_search"}],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]},
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True, "description": "d"},
        "verbosity": "low",
    },
    "reasoning": {"effort": "low", "summary": "auto", "max_tokens": 5, "enabled": True, "exclude": False},
    "include": ["message.output_text.logprobs"],
    "metadata": {"a": "b"},
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "max_output_tokens": 9,
    "max_tool_calls": 2,
    "temperature": 1,
    "top_p": 0.5,
    "top_logprobs": 2,
    "truncation": "auto",
    "store": True,
    "parallel_tool_calls": True,
    "background": False,
    "service_tier": "auto",
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "p",
    "provider": {"order": ["own"]},
    "session_id": "s",
}
_PUT: list[Any] = [
    None,
    True,
    5,
    -1,
    1.5,
    2**70,
    "",
    "x",
    [],
    {},
    [5],
    [[]],
    [{}],
    {"type": []},
    {"type": {}},
    {"x": 1},
]


def _places(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    return [path, *(place for name, each in inner for place in _places(each, (*path, name)))]


def _changed(thing: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(thing) if isinstance(thing, dict) else list(thing)
    copy[path[0]] = _changed(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("beside", ["tools", "input", "text", ""])
def test_no_change_of_a_good_request_is_a_defect(beside: str) -> None:
    """Every value of a rich request in turn becomes anything else: a call, or a refusal that names a field."""
    rich = {name: value for name, value in _RICH.items() if name != beside} | (
        {"input": "x"} if beside == "input" else {}
    )
    assert openai_responses.read(json.loads(json.dumps(rich)), openrouter=True).body["messages"]
    places = [place for place in _places(rich) if place]
    assert len(places) > 60
    for place in places:
        for value in _PUT:
            body = _changed(rich, place, value)
            try:
                openai_responses.read(body, openrouter=True)
            except BadRequest as error:
                found = error.param
            else:
                found = "none"
            assert found, (place, value)


_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_NAMES = [name for name in openai_responses.ResponsesShape.__struct_fields__ if name != "model"]
_MEMBERS = ["type", "role", "content", "text", "call_id", "name", "arguments", "output", "summary", "id", "image_url"]
_KINDS = ["message", "function_call", "function_call_output", "reasoning", "input_text", "input_image", "input_file"]
_items: Any = st.dictionaries(
    st.sampled_from(_MEMBERS), st.sampled_from(_KINDS) | _json | st.lists(_json, max_size=2), max_size=5
)


@given(st.dictionaries(st.sampled_from(_NAMES), _json, max_size=5))
def test_no_body_is_a_defect(members: dict[str, Any]) -> None:
    """Whatever stands in the fields: a call, or a refusal."""
    with suppress(BadRequest):
        read(**members)


@given(st.lists(_items | _json, max_size=4), st.lists(_items | _json, max_size=2))
def test_no_item_is_a_defect(items: list[Any], tools: list[Any]) -> None:
    """Whatever the items and tools are: a call whose messages are chat messages, or a refusal."""
    with suppress(BadRequest):
        call = read(input=items, tools=tools)
        assert all(message["role"] for message in call.body["messages"])


@given(st.text(max_size=60), st.binary(min_size=16, max_size=16))
def test_ids_are_mended_and_found_again(identity: str, request_id: bytes) -> None:
    """The id of a backend comes back whole from the one its caller was given; no other id seems to be one."""
    assert original_id(mended_id(identity, request_id.hex())) == identity
    assert original_id(f"msg_{request_id.hex()}0001") is None
    assert original_id("msg_short") is None
