"""Tokens of the simulated engines: counts, pieces and digests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.sim import text
from gateway.sim.text import Prompt

ROOT = Path(__file__).parents[3]


@given(st.text(max_size=300))
def test_pieces_join_to_the_text_they_were_cut_from(words: str) -> None:
    """Cutting a text into tokens loses nothing."""
    assert "".join(text.split(words)) == words


@given(st.integers(0, 2**32 - 1), st.integers(0, 500))
def test_an_answer_has_exactly_the_tokens_asked_for(digest: int, length: int) -> None:
    """An answer of n pieces counts n tokens when it comes back as a prompt."""
    pieces = text.pieces(digest, length)
    assert len(pieces) == length
    assert text.count("".join(pieces)) == length
    assert all(pieces)


def test_a_very_long_answer_wraps_around() -> None:
    """Answers longer than the stored words go on."""
    assert len(text.pieces(7, 20_000)) == 20_000


@given(st.text(max_size=200), st.text(max_size=200))
def test_counts_never_shrink_when_text_is_added(first: str, second: str) -> None:
    """A longer prompt never counts fewer tokens."""
    assert text.count(first + " " + second) == text.count(first) + text.count(second)


def test_digests_repeat_in_another_process() -> None:
    """The same prompt and seed give the same answer in every process."""
    program = (
        "from gateway.sim.text import Prompt, pieces\n"
        "print(''.join(pieces(Prompt('how high is the river?', 6).digest(3), 12)).encode().hex())"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    here = "".join(text.pieces(Prompt("how high is the river?", 6).digest(3), 12))
    assert bytes.fromhex(other.stdout.strip()).decode() == here


def test_the_seed_changes_the_answer() -> None:
    """Two seeds give two digests for one prompt."""
    prompt = Prompt("how high is the river?", 6)
    assert prompt.digest(1) != prompt.digest(2)


def test_parts_of_a_message_count_text_by_words_and_others_as_images() -> None:
    """Text parts count their words, an image part counts a fixed number."""
    parts = [{"type": "text", "text": "two words"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    words, tokens = text.message_text(parts)
    assert words.startswith("two words\n")
    assert tokens == 2 + text.TOKENS_PER_IMAGE
    assert text.message_text(None) == ("", 0)
