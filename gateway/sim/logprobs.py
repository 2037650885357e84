"""Log-probabilities of simulated tokens, in OpenAI's two shapes; they depend on the token alone."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32


def logprob(piece: str) -> float:
    """Return the log-probability of ``piece``, between -1 and 0."""
    return -(crc32(piece.encode()) % 1000 + 1) / 1024


def chat_logprobs(pieces: Sequence[str], top: int) -> list[dict[str, object]]:
    """Return ``logprobs.content`` of a chat choice, with ``top`` alternatives each."""
    return [{**_entry(piece, logprob(piece)), "top_logprobs": _top(piece, top)} for piece in pieces]


def text_logprobs(pieces: Sequence[str], top: int, offset: int = 0) -> dict[str, object]:
    """Return ``logprobs`` of a text completion; ``offset`` is the length of the text before ``pieces``."""
    offsets: list[int] = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    return {
        "text_offset": offsets,
        "token_logprobs": [logprob(piece) for piece in pieces],
        "tokens": list(pieces),
        "top_logprobs": [dict(_alternatives(piece, max(1, top))) for piece in pieces],
    }


def _entry(piece: str, value: float) -> dict[str, object]:
    return {"token": piece, "logprob": value, "bytes": list(piece.encode())}


def _top(piece: str, top: int) -> list[dict[str, object]]:
    return [_entry(token, value) for token, value in _alternatives(piece, top)]


def _alternatives(piece: str, top: int) -> list[tuple[str, float]]:
    value = logprob(piece)
    return [(piece if rank == 0 else f"{piece}{rank}", value - rank) for rank in range(top)]
