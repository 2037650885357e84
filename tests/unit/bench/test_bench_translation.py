"""The bench of dialects runs every case through the code that serves it."""

from __future__ import annotations

from bench.translation import ANSWER_BAR_US, CHUNK_BAR_US, measure


def test_every_dialect_is_measured() -> None:
    """Answers and chunks of responses and messages, over chat and over their own kind, each with its bar."""
    figures = {figure.name: figure for figure in measure(times=2)}
    assert figures.keys() >= {
        *(f"{dialect} over chat: {what}" for dialect in ("responses", "messages") for what in ("answer", "chunk")),
        *(f"{dialect} over {dialect}: chunk" for dialect in ("responses", "messages")),
        "chat over messages: chunk",
    }
    assert all(figure.total_us > 0 for figure in figures.values())
    assert {figure.bar_us for figure in figures.values()} == {ANSWER_BAR_US, CHUNK_BAR_US}
