"""Plugins that a caller asks for are either what Weir does anyway, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.edge import anthropic_messages, embeddings, openai_chat, openai_completions, openai_responses
from gateway.edge.plugins import REFUSED
from gateway.types.call import Call
from gateway.types.errors import BadRequest

TURNS = [{"role": "user", "content": "x"}]
FORMS: dict[str, tuple[Callable[..., Call], dict[str, Any]]] = {
    "chat": (openai_chat.read, {"messages": TURNS}),
    "completions": (openai_completions.read, {"prompt": "x"}),
    "embeddings": (embeddings.read, {"input": "x"}),
    "messages": (anthropic_messages.read, {"messages": TURNS, "max_tokens": 5}),
    "responses": (openai_responses.read, {"input": "x"}),
}


def read(form: str = "chat", **more: Any) -> Call:
    """Return a call with ``more`` in its body."""
    reader, body = FORMS[form]
    return reader({"model": "m"} | body | more, openrouter=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["web", "no-such-plugin"])
def test_what_cannot_be_had_is_refused_in_every_form(form: str, name: str) -> None:
    """As ``:online`` is: nobody pays for an answer that was to come from a search and did not."""
    with pytest.raises(BadRequest, match=f"'{name}', and there is no") as caught:
        read(form, plugins=[{"id": "web", "enabled": False}, {"id": name, "max_results": 3}])
    assert caught.value.param == "plugins[1]"


@pytest.mark.parametrize("name", [*REFUSED, "no-such-plugin"])
def test_one_that_is_switched_off_asks_for_nothing(name: str) -> None:
    """Callers switch off what their account has on; unless it is off, it is on."""
    read(plugins=[{"id": name, "enabled": False}])
    for said in ({}, {"enabled": True}, {"enabled": None}):
        with pytest.raises(BadRequest, match=name):
            read(plugins=[{"id": name, **said}])


@pytest.mark.parametrize(
    "asked",
    [
        {"plugins": None, "transforms": None},
        {"plugins": [], "transforms": []},
        {"plugins": [{"id": "file-parser", "pdf": {"engine": "native"}}]},
        {"plugins": [{"id": "context-compression"}], "transforms": ["middle-out"]},
        {"plugins": [{"id": "context-compression", "engine": "middle-out", "enabled": True}]},
    ],
)
def test_what_comes_to_the_same_is_taken(asked: dict[str, Any]) -> None:
    """Files go to backends as they are, and a prompt that fits stays whole under ``middle-out``, too."""
    assert read(**asked).preferences is None


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"plugins": {"id": "web"}}, "plugins"),
        ({"plugins": ["web"]}, "plugins[0]"),
        ({"plugins": [{"enabled": False}]}, "plugins[0]"),
        ({"plugins": [{"id": ""}]}, "plugins[0].id"),
        ({"plugins": [{"id": "web", "enabled": "false"}]}, "plugins[0].enabled"),
        ({"plugins": [{"id": "file-parser"}]}, "plugins[0]"),
        ({"plugins": [{"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}]}, "plugins[0]"),
        ({"plugins": [{"id": "context-compression", "engine": "zip"}]}, "plugins[0].engine"),
        ({"transforms": ["middle-out", "zip"]}, "transforms[1]"),
        ({"transforms": "middle-out"}, "transforms"),
    ],
)
def test_the_place_is_named(asked: dict[str, Any], param: str) -> None:
    """A plugin of the wrong form is not passed over either."""
    with pytest.raises(BadRequest) as caught:
        read(**asked)
    assert caught.value.param == param
