"""Request bodies: rubbish gets a clear 400, good bodies come through unchanged."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import cycle, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import embeddings, openai_chat, openai_completions
from gateway.edge.body import decode
from gateway.types.call import Need
from gateway.types.errors import BadRequest
from gateway.types.nesting import MAX_DEPTH

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"nonsense", "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"model": "x"', "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        (b'{"a": "cut \\ud83d"}', "half of a surrogate pair"),
        (b'{"a": "cut \\ud83d", "b": "and more of it"}', "half of a surrogate pair"),
        (b'{"a": "\\ud83d\\ude00",}', "trailing comma"),
        (b'{"model": "m", "a": "weirs w\xe9irs"}', "not UTF-8 (byte 28)"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[1]", "must be a JSON object"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a":1,"a":2}', "'a' twice"),
        (b'{"m": {"b": 1, "b" : 2}}', "'b' twice"),
        (b'{"a": 1, "\\u0061": 2}', "'a' twice"),
    ],
)
def test_rubbish_is_refused_with_the_reason(raw: bytes, words: str) -> None:
    """Each kind of bad body is a 400 that says what is wrong."""
    with pytest.raises(BadRequest) as caught:
        decode(raw)
    assert words in caught.value.message


@pytest.mark.parametrize("kinds", ["{", "[", "[{"])
def test_a_body_may_be_nested_as_deeply_as_the_limit_says_and_no_deeper(kinds: str) -> None:
    """Objects, arrays and both in turn count alike; text with brackets in it counts as text."""

    def nested(levels: int) -> bytes:
        inner = "0"
        for kind in islice(cycle(kinds), levels - 1):
            inner = f"[{inner}]" if kind == "[" else f'{{"a":{inner}}}'
        return f'{{"text":"{"[{" * 200}","a":{inner}}}'.encode()

    assert decode(nested(MAX_DEPTH))
    with pytest.raises(BadRequest, match="nested too deeply"):
        decode(nested(MAX_DEPTH + 1))


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=6))
def test_a_good_body_is_read_as_the_standard_library_reads_it(body: dict[str, Any]) -> None:
    """Whatever the spacing and the text, no good body is refused or changed."""
    for raw in (
        json.dumps(body),
        json.dumps(body, separators=(",", ":")),
        json.dumps(body, ensure_ascii=False, indent=1, separators=(" ,", " : ")),
    ):
        assert decode(raw.encode()) == body


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No byte string raises anything but the typed error."""
    with suppress(BadRequest):
        decode(raw)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": 7, "messages": [{"role": "user"}]}, "model"),
        ({"model": "m", "messages": "x"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": "9"}, "max_tokens"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 0}, "n"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}, "stream"),
    ],
)
def test_a_wrong_type_names_its_field(body: dict[str, Any], param: str | None) -> None:
    """A caller learns which field to mend."""
    with pytest.raises(BadRequest) as caught:
        openai_chat.read(body, openrouter=False)
    assert caught.value.param == param


def test_what_a_chat_request_needs_is_recognised() -> None:
    """Tools, images, audio, schemas, log probabilities and several choices are seen."""
    call = openai_chat.read(
        {
            "model": "m",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is this"},
                        {"type": "image_url", "image_url": {"url": "data:"}},
                        {"type": "input_audio", "input_audio": {}},
                    ],
                }
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "response_format": {"type": "json_schema", "json_schema": {}},
            "logprobs": True,
            "n": 2,
            "max_completion_tokens": 5,
            "max_tokens": 9,
        },
        openrouter=True,
    )
    assert call.needs == Need.IMAGES | Need.AUDIO | Need.TOOLS | Need.JSON_SCHEMA | Need.LOGPROBS | Need.MANY_CHOICES
    assert (call.choices, call.max_tokens, call.wants_usage) == (2, 5, True)


@pytest.mark.parametrize("link", ["/data/faces/7.png", "file:///etc/passwd", "notes.jpg", "", " https://a.example/b"])
@pytest.mark.parametrize("kind", ["image_url", "video_url", "audio_url"])
def test_a_link_names_nothing_of_the_engines_host(kind: str, link: str) -> None:
    """SGLang opens what is no URL as a file of its own; a link of the web or with its content passes."""
    for said in ({"url": link}, link):
        with pytest.raises(BadRequest, match=f"{kind} must be an http, https or data URL"):
            openai_chat.read(asking({"type": kind, kind: said}), openrouter=False)
    for good in ("https://a.example/b.png", "HTTP://a.example/", "data:image/png;base64,AA=="):
        openai_chat.read(asking({"type": kind, kind: {"url": good}}), openrouter=False)


@pytest.mark.parametrize("kind", ["image_embeds", "audio_embeds"])
def test_tensors_are_not_passed_on(kind: str) -> None:
    """Engines unpickle them: as content they were handed on, as `prompt_embeds` never."""
    with pytest.raises(BadRequest, match=f"{kind} is not passed on"):
        openai_chat.read(asking({"type": kind, kind: "gAJ9cQAu"}), openrouter=False)


def asking(part: dict[str, Any]) -> dict[str, Any]:
    """Return a chat request with ``part``."""
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]}


@pytest.mark.parametrize(("prompt", "choices"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
def test_completion_prompts_of_every_form_are_counted(prompt: Any, choices: int) -> None:
    """Text, texts, tokens and lists of tokens are one or several prompts."""
    call = openai_completions.read({"model": "m", "prompt": prompt, "n": 3}, openrouter=False)
    assert call.choices == choices * 3


def test_embedding_input_of_every_form_is_read() -> None:
    """An embedding request has one answer, whatever its input."""
    for given_input in ("a", ["a", "b"], [1, 2], [[1], [2]]):
        assert embeddings.read({"model": "m", "input": given_input}, openrouter=False).choices == 1
