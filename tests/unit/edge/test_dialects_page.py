"""docs/dialects.md says of messages what their translators do: each thing that is lost or refused, and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.edge import anthropic_messages
from gateway.upstream import anthropic_answer, anthropic_request

PAGE = (Path(__file__).parents[3] / "docs" / "dialects.md").read_text()


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("From messages to a chat backend: lost, or said another way", anthropic_messages.DROPPED),
        ("From messages to a chat backend: refused, unless a backend speaks messages", anthropic_messages.NATIVE_ONLY),
        ("From chat to kind `anthropic`: lost, or said another way", anthropic_request.DROPPED),
        ("From answers of kind `anthropic` to chat: lost, or said another way", anthropic_answer.DROPPED),
    ],
)
def test_the_tables_are_those_of_the_translators(heading: str, table: Mapping[str, str]) -> None:
    """The rows under each heading are the translator's own list, word for word."""
    section = PAGE.partition(f"### {heading}\n")[2].split("\n#")[0]
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", section, re.MULTILINE)[1:]
    assert {re.sub(r"^`([a-z_.]+)`$", r"\1", name): words for name, words in rows} == dict(table)
