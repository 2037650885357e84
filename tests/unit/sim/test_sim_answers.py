"""What a simulated engine decides to say."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sim import SimConfig
from gateway.sim.requests import BadRequest
from gateway.sim.work import Work, Works

CONFIG = SimConfig(answer_tokens=24)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


def chat(config: SimConfig = CONFIG, *, content: str = "How high is the river today?", **fields: Any) -> Work:
    """Return what a chat request comes to."""
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    return Works(config, embeddings=True).read("/v1/chat/completions", msgspec.json.encode(body))


def test_the_natural_answer_has_the_configured_length() -> None:
    """Without a limit an answer has ``answer_tokens`` tokens and stops by itself."""
    (choice,) = chat().choices
    assert (len(choice.pieces), choice.finish) == (24, "stop")


@given(st.integers(1, 60))
def test_a_limit_is_kept_and_named(limit: int) -> None:
    """``max_tokens`` below the natural length cuts with "length", above it changes nothing."""
    (choice,) = chat(max_tokens=limit).choices
    assert len(choice.pieces) == min(limit, 24)
    assert choice.finish == ("length" if limit < 24 else "stop")


def test_the_newer_name_of_the_limit_wins() -> None:
    """``max_completion_tokens`` beats ``max_tokens``."""
    (choice,) = chat(max_tokens=3, max_completion_tokens=7).choices
    assert len(choice.pieces) == 7


def test_a_limited_answer_begins_like_the_whole_one() -> None:
    """Cutting an answer does not change its words."""
    (whole,), (cut,) = chat().choices, chat(max_tokens=9).choices
    assert whole.content.startswith(cut.content)


def test_ignore_eos_fills_the_limit() -> None:
    """``ignore_eos`` makes an answer as long as the limit, however long that is."""
    (choice,) = chat(max_tokens=500, ignore_eos=True).choices
    assert (len(choice.pieces), choice.finish) == (500, "length")


def test_min_tokens_lengthen_an_answer() -> None:
    """``min_tokens`` beyond the natural length is reached."""
    assert len(chat(min_tokens=40).choices[0].pieces) == 40


def test_drawn_lengths_stay_in_their_range_and_repeat() -> None:
    """With ``answer_tokens_max`` lengths differ by prompt, inside the range, the same each time."""
    config = SimConfig(answer_tokens=5, answer_tokens_max=50)
    lengths = [len(chat(config, content=f"question {n}").choices[0].pieces) for n in range(60)]
    again = [len(chat(config, content=f"question {n}").choices[0].pieces) for n in range(60)]
    assert lengths == again
    assert len(set(lengths)) > 10
    assert all(5 <= length <= 50 for length in lengths)


def test_several_choices_differ_and_are_numbered() -> None:
    """``n`` answers are n different texts."""
    choices = chat(n=3).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert len({choice.content for choice in choices}) == 3


def test_the_request_seed_changes_the_words() -> None:
    """Another ``seed``, another text; the same seed, the same text."""
    assert chat(seed=1).choices[0].content != chat(seed=2).choices[0].content
    assert chat(seed=1).choices[0].content == chat(seed=1).choices[0].content


@given(st.integers(0, 22), st.integers(1, 2))
def test_a_stop_string_ends_the_text_before_it(start: int, words: int) -> None:
    """The text ends before the first occurrence of a stop string; the tokens that made it are counted."""
    (whole,) = chat().choices
    stop = "".join(whole.pieces[start : start + words]) + ""
    (choice,) = chat(stop=["never said", stop]).choices
    assert stop not in choice.content
    assert choice.content == whole.content[: whole.content.index(stop)]
    assert choice.stop_reason == stop
    assert choice.finish == "stop"
    assert len("".join(whole.pieces[: len(choice.pieces)])) >= whole.content.index(stop) + len(stop)


def test_reasoning_comes_first_and_counts() -> None:
    """With reasoning switched on, thoughts come before the content and count as completion tokens."""
    (choice,) = chat(SimConfig(answer_tokens=24, reasoning_tokens=10)).choices
    assert (len(choice.pieces), choice.reasoning) == (34, 10)
    assert choice.thoughts
    assert choice.thoughts + choice.content == "".join(choice.pieces)
    (cut,) = chat(SimConfig(answer_tokens=24, reasoning_tokens=10), max_tokens=4).choices
    assert (len(cut.pieces), cut.reasoning, cut.content) == (4, 4, "")


@pytest.mark.parametrize("choice", [None, "auto"])
def test_a_tool_is_called_when_the_user_says_tool(choice: str | None) -> None:
    """The word "tool" in the last user message makes the engine call the first tool."""
    fields: dict[str, Any] = {"tools": [WEATHER, CLOCK]} | ({} if choice is None else {"tool_choice": choice})
    (call,) = chat(content="use a tool, please", **fields).choices
    assert call.tool is not None
    assert call.tool.name == "get_weather"
    assert msgspec.json.decode(call.content) == {"city": "river", "days": 1}
    assert call.finish == "tool_calls"
    assert chat(content="what time is it?", **fields).choices[0].tool is None


def test_tool_choice_decides() -> None:
    """A tool is called when "required" or named, and not when "none" was said."""
    tools = [WEATHER, CLOCK]
    required = chat(tools=tools, tool_choice="required").choices[0].tool
    named = chat(tools=tools, tool_choice={"type": "function", "function": {"name": "get_time"}}).choices[0].tool
    assert required is not None
    assert required.name == "get_weather"
    assert named is not None
    assert named.name == "get_time"
    assert chat(content="a tool", tools=tools, tool_choice="none").choices[0].tool is None
    with pytest.raises(BadRequest, match="get_moon"):
        chat(tools=tools, tool_choice={"type": "function", "function": {"name": "get_moon"}})


def test_a_cut_tool_call_says_so() -> None:
    """A limit cuts the arguments and finishes with "length"."""
    call = chat(tools=[WEATHER], tool_choice="required", max_tokens=4).choices[0]
    assert (len(call.pieces), call.finish) == (4, "length")


def test_structured_answers_are_json() -> None:
    """``response_format`` gives an object, in the shape of its schema where there is one."""
    assert isinstance(msgspec.json.decode(chat(response_format={"type": "json_object"}).choices[0].content), dict)
    schema = {"type": "object", "properties": {"level": {"type": "number"}}, "required": ["level"]}
    for shaped in (
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        {"type": "json", "value": schema},
    ):
        assert msgspec.json.decode(chat(response_format=shaped).choices[0].content) == {"level": 1}
    assert chat(response_format={"type": "text"}).choices[0].content == chat().choices[0].content


def test_the_context_bounds_the_answer() -> None:
    """An answer without a limit ends where the context ends."""
    config = SimConfig(answer_tokens=100, context_length=40)
    work = chat(config)
    assert work.prompt.tokens + len(work.choices[0].pieces) == 40
    assert work.choices[0].finish == "length"


def test_prompts_are_counted_per_message_with_tools() -> None:
    """Each message costs four tokens more than its words, and tools are part of the prompt."""
    assert chat(content="three little words").prompt.tokens == 7
    assert chat(tools=[WEATHER]).prompt.tokens > chat().prompt.tokens


def test_completions_answer_every_prompt() -> None:
    """A list of prompts gives ``n`` choices for each, numbered through; token ids count themselves."""
    works = Works(CONFIG, embeddings=True)
    body = {"model": "m", "prompt": ["one two", "three"], "n": 2, "max_tokens": 5}
    work = works.read("/v1/completions", msgspec.json.encode(body))
    assert [choice.index for choice in work.choices] == [0, 1, 2, 3]
    assert (work.prompt.tokens, work.longest) == (3, 2)
    ids = works.read("/v1/completions", msgspec.json.encode({"model": "m", "prompt": [5, 6, 7]}))
    assert ids.prompt.tokens == 3
    lists = works.read("/v1/embeddings", msgspec.json.encode({"model": "m", "input": [[5, 6], [7]]}))
    assert [prompt.tokens for prompt in lists.prompts] == [2, 1]


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("chat/completions", b'{"messages": [{"role": "user", "content": 5}]}', "messages"),
        ("chat/completions", b'{"messages": []}', "messages"),
        ("chat/completions", b'{"messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens"),
        ("chat/completions", b'{"messages": [{"role": "user"}], "max_tokens": "9"}', "max_tokens"),
        ("chat/completions", b'{"messages": [{"role": "user"}], "n": 0}', "n must be"),
        ("chat/completions", b"not json", "parsing"),
        ("chat/completions", b'{"messages": [{"role": "user", "content": "\xff"}]}', "parsing"),
        ("chat/completions", b'{"messages": [{"role": "user", "content": ' + b"[" * 10_000, "parsing"),
        ("completions", b'{"prompt": [1, "two"]}', "input"),
        ("completions", b'{"prompt": []}', "empty"),
        ("embeddings", b'{"input": "x", "dimensions": 0}', "dimensions"),
        ("embeddings", b'{"input": "x", "encoding_format": "hex"}', "encoding_format"),
        ("embeddings", b"{}", "input"),
    ],
)
def test_bodies_that_are_no_requests_are_named(path: str, body: bytes, word: str) -> None:
    """A wrong body raises BadRequest with the field or the reason, and never anything else."""
    with pytest.raises(BadRequest, match=word):
        Works(CONFIG, embeddings=True).read(f"/v1/{path}", body)


@given(st.binary(max_size=200))
def test_random_bytes_are_never_an_accident(body: bytes) -> None:
    """Any body at all gives work or BadRequest."""
    works = Works(CONFIG, embeddings=True)
    for path in works.paths:
        with contextlib.suppress(BadRequest):
            assert works.read(path, body).prompt.tokens >= 0


def test_equal_bodies_are_understood_once() -> None:
    """Work is kept per path and body, and the keeping has an end."""
    works = Works(CONFIG, embeddings=True)
    body = b'{"model": "m", "prompt": "hello"}'
    assert works.read("/v1/completions", body) is works.read("/v1/completions", body)
    for number in range(1_000):
        works.read("/v1/completions", b'{"model": "m", "prompt": "hello %d"}' % number)
    assert len(works._kept) <= 256
