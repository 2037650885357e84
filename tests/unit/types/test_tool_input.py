"""Arguments of tool calls as Anthropic's messages have them: what was read can be written again, however deep it is."""

from __future__ import annotations

import msgspec
import pytest

from gateway.edge.anthropic_form import content_of
from gateway.types.messages import INVALID_JSON, input_of
from gateway.types.nesting import MAX_DEPTH
from gateway.upstream.anthropic_request import arguments


@pytest.mark.parametrize("levels", [1, MAX_DEPTH, MAX_DEPTH + 1, 500, *range(960, 1001), 100_000])
def test_arguments_of_any_depth_can_be_written(levels: int) -> None:
    """Some hundred levels are read and not written: a whole answer with them was an internal error."""
    text = '{"a":' * levels + "1" + "}" * levels
    (block,) = content_of({"tool_calls": [{"id": "t1", "function": {"name": "f", "arguments": text}}]})
    assert block["input"] == arguments(text) == input_of(text)
    assert ("a" if levels <= MAX_DEPTH else INVALID_JSON) in block["input"]
    document = {"content": [block]}
    for _ in range(20):  # what stands around it, and the steps of whoever writes it
        document = {"more": [document]}
    msgspec.json.encode(document)


def test_many_brackets_are_not_deep() -> None:
    """Arguments may be long; what is no object is kept as it came."""
    assert len(input_of('{"a": [' + ",".join(["{}"] * 1_000) + "]}")["a"]) == 1_000
    assert [input_of(text) for text in ("", " ", "[1]", '{"a"')] == [
        {},
        {},
        {INVALID_JSON: "[1]"},
        {INVALID_JSON: '{"a"'},
    ]
