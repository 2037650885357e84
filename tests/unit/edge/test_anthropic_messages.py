"""Reading Anthropic's requests: what is said in the chat form, and what is refused, each wrong member by its place."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import anthropic_messages
from gateway.types.call import Call, Need
from gateway.types.dialect import Dialect
from gateway.types.errors import BadRequest

TOOL: dict[str, Any] = {"name": "f", "description": "F.", "input_schema": {"type": "object"}}
MARK = {"type": "ephemeral"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
WHOLE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 5000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": MARK}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look", "cache_control": MARK},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
                {"type": "document", "title": "t", "source": PDF},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Plain."}},
                {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "R"}]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "secret"},
                {"type": "text", "text": "Calling."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "One.", "cache_control": MARK},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "no"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "eA=="}},
                    ],
                },
                {"type": "text", "text": "Go on."},
            ],
        },
    ],
    "tools": [{**TOOL, "cache_control": MARK, "strict": True}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 7,
    "stream": True,
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "metadata": {"user_id": "u"},
    "service_tier": "auto",
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
}  # fmt: skip


def read(body: dict[str, Any], **more: Any) -> Call:
    """Read a request."""
    return anthropic_messages.read(copy.deepcopy(body) | more, openrouter=False)


def hi(content: Any = "hi", **more: Any) -> dict[str, Any]:
    """Return a small request."""
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}], **more}


def test_everything_that_chat_can_say_is_said() -> None:
    """Each member and block has its place in the chat form, cache marks and signatures with them."""
    call = read(WHOLE)
    chat = call.body
    system, first, answer, one, two, last = chat.pop("messages")
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": MARK}]}
    assert first["content"] == [
        {"type": "text", "text": "Look", "cache_control": MARK},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"filename": "t", "file_data": "data:application/pdf;base64,aGk="}},
        {"type": "text", "text": "Plain."},
        {"type": "text", "text": "T (S)\nR"},
    ]
    details = answer.pop("reasoning_details")
    assert [detail["type"] for detail in details] == ["reasoning.text", "reasoning.encrypted"]
    assert (details[0]["text"], details[0]["signature"], details[1]["data"]) == ("Hm.", "sig", "secret")
    assert answer == {
        "role": "assistant",
        "content": "Calling.",
        "reasoning": "Hm.",
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "t2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ],
    }
    assert one == {"role": "tool", "tool_call_id": "t1", "content": "One.", "cache_control": MARK}
    assert two == {"role": "tool", "tool_call_id": "t2", "content": "Error: no"}
    assert last["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,eA=="}},
        {"type": "text", "text": "Go on."},
    ]
    function = {"name": "f", "parameters": {"type": "object"}, "description": "F.", "strict": True}
    assert chat == {
        "model": "m",
        "max_tokens": 5000,
        "tools": [{"type": "function", "function": function, "cache_control": MARK}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "user": "u",
        "reasoning": {"enabled": True, "max_tokens": 2048},
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True},
        },
    }
    assert call.dialect is Dialect.MESSAGES
    assert call.native == WHOLE
    assert (call.model, call.max_tokens, call.stream, call.user) == ("m", 5000, True, "u")
    assert call.needs == Need.TOOLS | Need.IMAGES | Need.JSON_SCHEMA


def test_fallbacks_of_the_providers_choice_are_none_here() -> None:
    """The word that Anthropic's clients have for them is no list of models."""
    assert "models" not in read(hi(fallbacks="default")).body
    assert read(hi(fallbacks=[{"model": "b"}])).body["models"] == ["b"]


def test_plain_text_stays_plain() -> None:
    """One text without a mark is a string, as most engines' templates like it best."""
    call = read(hi([{"type": "text", "text": "hi"}], system=[{"type": "text", "text": a} for a in "ab"]))
    assert call.body["messages"] == [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_choices_of_tools(choice: Any, said: Any) -> None:
    """Each choice has its word."""
    assert read(hi(tools=[TOOL], tool_choice=choice)).body["tool_choice"] == said


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (hi(tools=[{"type": "bash_20250124", "name": "bash"}]), "tools.0"),
        (hi(mcp_servers=[{"type": "url", "url": "https://a"}]), "mcp_servers"),
        (hi(compaction={"type": "summarize"}), "compaction"),
        (hi([{"type": "container_upload", "file_id": "f"}]), "messages.0.content.0"),
        (hi([{"type": "image", "source": {"type": "file", "file_id": "f"}}]), "messages.0.content.0.source"),
        (hi([{"type": "document", "source": {"type": "file", "file_id": "f"}}]), "messages.0.content.0.source"),
    ],
)
def test_what_chat_cannot_say_needs_a_backend_that_speaks_messages(body: Any, place: str) -> None:
    """It is noted with its place, and the rest of the request is still read."""
    call = read(body)
    assert call.needs & Need.MESSAGES
    assert call.unsaid.startswith(place + ": ")
    if body["messages"][0]["content"] == "hi":
        assert call.body["messages"][0]["content"] == "hi"


def begun(block: dict[str, Any]) -> dict[str, Any]:
    """Return a request with a block of the assistant's."""
    return hi() | {"messages": [{"role": "assistant", "content": [block]}]}


WRONG: Any = [
    ({}, "messages"),
    (hi() | {"max_tokens": 0}, "max_tokens"),
    ({"model": "m", "messages": [{"role": "user", "content": "x"}]}, "max_tokens"),
    (hi() | {"model": None}, "model"),
    (hi() | {"messages": []}, "messages"),
    (hi(thread={"type": "create"}), "thread"),
    (hi(thread={"type": "continue", "previous_message_id": "gen-1"}), "thread"),
    (hi() | {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    (hi() | {"messages": [{"role": "user"}]}, "messages.0.content"),
    (hi(""), "messages.0.content"),
    (hi([]), "messages.0.content"),
    (hi([1]), "messages.0.content.0"),
    (hi([{}]), "messages.0.content.0.type"),
    (hi([{"type": 1}]), "messages.0.content.0.type"),
    (hi([{"type": "text"}]), "messages.0.content.0.text"),
    (hi([{"type": "text", "text": 1}]), "messages.0.content.0.text"),
    (hi([{"type": "text", "text": "a", "cache_control": 1}]), "messages.0.content.0.cache_control"),
    (hi([{"type": "image"}]), "messages.0.content.0.source"),
    (hi([{"type": "image", "source": {}}]), "messages.0.content.0.source.type"),
    (hi([{"type": "image", "source": {"type": "base64"}}]), "messages.0.content.0.source.media_type"),
    (hi([{"type": "image", "source": {"type": "url", "url": "file:///a"}}]), "messages.0.content.0.source.url"),
    (hi([{"type": "document", "title": 1, "source": {}}]), "messages.0.content.0.title"),
    (hi([{"type": "tool_result"}]), "messages.0.content.0.tool_use_id"),
    (hi([{"type": "tool_result", "tool_use_id": "a", "content": 1}]), "messages.0.content.0.content"),
    (hi([{"type": "tool_result", "tool_use_id": "a", "content": [1]}]), "messages.0.content.0.content.0"),
    (hi([{"type": "tool_result", "tool_use_id": "a", "is_error": "no"}]), "messages.0.content.0.is_error"),
    (hi([{"type": "search_result", "title": "a"}]), "messages.0.content.0.content"),
    (begun({"type": "tool_use", "id": "a", "name": "b"}), "messages.0.content.0.input"),
    (begun({"type": "thinking", "thinking": "a", "signature": 1}), "messages.0.content.0.signature"),
    (hi(system=1), "system"),
    (hi(system=[{"type": "image"}]), "system.0.type"),
    (hi(temperature=1.1), "temperature"),
    (hi(top_p=-1), "top_p"),
    (hi(top_k=1.5), "top_k"),
    (hi(stop_sequences="x"), "stop_sequences"),
    (hi(stop_sequences=[1]), "stop_sequences.0"),
    (hi(stream="yes"), "stream"),
    (hi(tools=[{"name": "f"}]), "tools.0.input_schema"),
    (hi(tools=[{"input_schema": {}}]), "tools.0.name"),
    (hi(tools=[{"name": "f", "input_schema": 1}]), "tools.0.input_schema"),
    (hi(tools=[TOOL], tool_choice="auto"), "tool_choice"),
    (hi(tools=[TOOL], tool_choice={"type": "each"}), "tool_choice.type"),
    (hi(tools=[TOOL], tool_choice={"type": "tool"}), "tool_choice.name"),
    (hi(tools=[TOOL], tool_choice={"type": "tool", "name": "g"}), "tool_choice.name"),
    (hi(thinking={"type": "deep"}), "thinking.type"),
    (hi(thinking={"type": "enabled"}), "thinking.budget_tokens"),
    (hi(thinking={"type": "enabled", "budget_tokens": 5}), "thinking.budget_tokens"),
    (hi(thinking={"type": "enabled", "budget_tokens": 2048}), "thinking.budget_tokens"),
    (hi(metadata={"user_id": 1}), "metadata.user_id"),
    (hi(metadata=1), "metadata"),
    (hi(service_tier="gold"), "service_tier"),
    (hi(output_config={"effort": "none"}), "output_config.effort"),
    (hi(output_config={"format": {"type": "text"}}), "output_config.format.type"),
    (hi(output_config={"format": {"type": "json_schema"}}), "output_config.format.schema"),
    (hi(fallbacks=[{"model": 1}]), "fallbacks.0.model"),
    (hi(provider={"sort": "best"}), "provider.sort"),
    (hi(provider={"nope": 1}), "provider.nope"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "place"), WRONG, ids=[f"{number}-{place}" for number, (_, place) in enumerate(WRONG)])
def test_what_is_wrong_is_named_by_its_place(body: Any, place: str) -> None:
    """Each wrong member is refused, named where it is."""
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.param == place
    assert place in caught.value.message


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for name, each in inner for path in paths(each, (*here, name)))]


JUNK: Any = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3),
    st.sampled_from(["text", "image", "tool_use", "url", "base64", "x" * 300]),
    st.lists(st.integers(), max_size=2), st.builds(dict),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@given(path=st.sampled_from(paths(WHOLE)[1:]), junk=JUNK)
def test_junk_anywhere_is_read_or_refused(path: tuple[Any, ...], junk: Any) -> None:
    """Whatever stands in place of any member, the request is read or refused, and never anything else."""
    body = copy.deepcopy(WHOLE)
    holder: Any = body
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = junk
    with suppress(BadRequest):
        json.dumps(read(body).body)


@given(path=st.sampled_from(paths(WHOLE)[1:]))
def test_any_member_may_be_missing(path: tuple[Any, ...]) -> None:
    """A member that is left out is read as such or refused, and never anything else."""
    body = copy.deepcopy(WHOLE)
    holder: Any = body
    for name in path[:-1]:
        holder = holder[name]
    del holder[path[-1]]
    with suppress(BadRequest):
        read(body)
