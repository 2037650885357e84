"""Tokens of the simulated engines: counting prompts, and texts of a known number of tokens.

A token is a run of word characters or one other visible character, with the blanks before it. Everything here is
pure and repeats in every process: the same prompt gives the same count, digest and answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

TOKENS_PER_MESSAGE = 4
"""What a chat template adds to each message."""

TOKENS_PER_IMAGE = 256
"""What a part of a message that is not text counts."""

_COUNTED = re.compile(r"\w+|[^\w\s]")
_SPLIT = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
_CACHED_TEXT = 8_192

_PHRASE = (
    "the river runs slowly past old stone mills and every gauge along its bank keeps count of what flows by "
    "a weir holds water back measures it then lets it go again without losing one drop while routes change "
    "naïve über señor café façade Ελλάδα река 河流 水 測定 강물 نهر 🌊 🙂 ∑ ½ → ,"
)
_WORDS = tuple(_PHRASE.split())

_TAPE_LENGTH = 4_096


def _tape() -> tuple[str, ...]:
    # A fixed seed of its own: the tape must not differ between processes or Python versions.
    source = random.Random(7_919)  # noqa: S311 - a text, not a secret
    return tuple(" " + _WORDS[int(source.random() * len(_WORDS))] for _ in range(_TAPE_LENGTH))


_TAPE = _tape()


def _count(text: str) -> int:
    return len(_COUNTED.findall(text))


_count_short = lru_cache(maxsize=2_048)(_count)


def count(text: str) -> int:
    """Return the number of tokens in ``text``."""
    return _count_short(text) if len(text) <= _CACHED_TEXT else _count(text)


def split(text: str) -> tuple[str, ...]:
    """Cut ``text`` into tokens that join to it again; trailing blanks make one more token."""
    return tuple(_SPLIT.findall(text))


def pieces(digest: int, length: int) -> tuple[str, ...]:
    """Return ``length`` tokens of text chosen by ``digest``; the first has no blank before it."""
    if length < 1:
        return ()
    start = (digest * 2_654_435_761) % _TAPE_LENGTH
    end = start + length
    tape = _TAPE if end <= _TAPE_LENGTH else _TAPE * (end // _TAPE_LENGTH + 1)
    return (tape[start][1:], *tape[start + 1 : end])


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine reads: the flattened ``text`` (its prefix decides on cache hits) and its number of ``tokens``."""

    text: str
    tokens: int

    def digest(self, seed: int) -> int:
        """Return 32 bits that depend on the text and ``seed`` alone."""
        return crc32(self.text.encode("utf-8", "surrogatepass"), seed & 0xFFFFFFFF)


def message_text(content: str | Sequence[object] | None) -> tuple[str, int]:
    """Return text and tokens of a message's ``content``; other parts count as one image each."""
    if content is None:
        return "", 0
    if isinstance(content, str):
        return content, count(content)
    texts: list[str] = []
    tokens = 0
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            texts.append(text)
            tokens += count(text)
        else:
            texts.append(f"<part {crc32(repr(part).encode('utf-8', 'backslashreplace')):08x}>")
            tokens += TOKENS_PER_IMAGE
    return "\n".join(texts), tokens
