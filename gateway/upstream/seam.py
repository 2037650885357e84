"""The seam of a continued answer: what its caller has read of it, and where the next replica's stream goes on from.

``Transcript`` remembers what was sent: the words alone, for a chunk that is let go of at once leaves the next one its
memory, which is still warm. ``Seam`` stands before a continuation until its first text is clear: engines may say again
what is known, or make the last blanks once more because a chat template had cut them off. Both are taken away to the
character and nothing else is. Nothing here raises.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.types.chunk import Chunk, Direct, Passed, Sink, TextChunk
from gateway.types.dialect import NATIVE

LONGEST: Final = 1 << 20
"""Characters of an answer up to which it can be continued; it is read again as a prompt."""
TELLING: Final = 32
"""Characters that no engine repeats by chance when it goes on, unless they repeat themselves."""
_WORDS: Final = frozenset({"content", "reasoning_content", "reasoning"})
_PIECES: Final = 64
"""Pieces of text that are kept apart before they are put together."""


class Transcript:
    """What a caller has been sent of one streamed answer with one choice.

    Attributes:
        hindrance: a word for what was sent that cannot be continued, ``""`` when all of it can.
    """

    __slots__ = ("_pieces", "_reasoning", "_size", "_text", "_to", "hindrance")

    def __init__(self, to: Sink) -> None:
        self._to = to
        self._pieces: list[str] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._size = 0
        self.hindrance = ""

    def send(self, chunks: list[Chunk]) -> None:
        """Send ``chunks`` to the caller."""
        self._to.send(chunks)
        for chunk in chunks:
            if type(chunk) is TextChunk:
                self._read_text(chunk)
            else:
                self._read_chunk(chunk)

    def say(self, chunk: TextChunk) -> None:
        """Send a piece of text to the caller."""
        self._to.say(chunk)
        self._read_text(chunk)

    def direct(self, probe: TextChunk) -> Direct | None:
        """See ``Sink``."""
        return self._to.direct(probe)

    def passed(self, run: Passed) -> None:
        """See ``Sink``."""
        self._to.passed(run)
        if run.member == "content":
            self._pieces += run.pieces
            if len(self._pieces) >= _PIECES:
                self._join()
        else:
            self._think("".join(run.pieces))

    @property
    def text(self) -> str:
        """The text so far."""
        self._join()
        self._text = ["".join(self._text)]
        return self._text[0]

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        self._join()
        return "".join(self._reasoning)

    def _read_text(self, chunk: TextChunk) -> None:
        delta = chunk.choices[0].delta
        if content := delta.content:  # what is not set is false
            pieces = self._pieces
            pieces.append(content)
            if len(pieces) >= _PIECES:
                self._join()
        if thought := delta.reasoning_content or delta.reasoning:
            self._think(thought)

    def _read_chunk(self, chunk: dict[str, Any]) -> None:
        if NATIVE in chunk:
            self.hindrance = "dialect"  # nobody else goes on in the middle of events of another API
        for choice in chunk["choices"]:
            self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> None:
        if choice.get("logprobs"):
            self.hindrance = "logprobs"
        delta = choice.get("delta")
        if delta is None:
            delta = {"content": choice["text"]}
        for name, value in delta.items():
            if not value or name == "role":
                continue
            if name in _WORDS and isinstance(value, str):
                if name == "content":
                    self._pieces.append(value)
                else:
                    self._think(value)
            else:
                self.hindrance = "tools" if name in {"tool_calls", "function_call"} else "speech"
        if len(self._pieces) >= _PIECES:
            self._join()

    def _think(self, thought: str) -> None:
        self._reasoning.append(thought)
        self._size += len(thought)
        if self._size > LONGEST:
            self._join()

    def _join(self) -> None:
        """Put the pieces together, and forget everything once it is of no use any more."""
        text, self._pieces = "".join(self._pieces), []
        self._size += len(text)
        if self._size > LONGEST:
            self.hindrance = self.hindrance or "length"
        if self.hindrance:
            self._text, self._reasoning = [], []
        elif text:
            self._text.append(text)


class Seam:
    """Takes the chunks of a continuation until its first text is clear, and leaves the way free for the rest.

    Args:
        known: what the caller has been sent; ``""`` for an answer of which it has seen nothing yet.
        verbatim: the engine was given ``known`` to its last blank.
        tokens: how many tokens ``known`` was made of.
        singly: each delta of the engine is one token.
        echoes: whether this replica is known to say ``known`` again; None when that is not known.

    Attributes:
        echoed: whether the engine said again what was known; None when the text could not tell.
        again: tokens that were made once more.
        clear: whether the first text is clear: chunks need not come this way any more.
        strayed: the engine does not go on with the text, but thinks again.
    """

    __slots__ = (
        "_alone",
        "_blanks",
        "_got",
        "_held",
        "_known",
        "_tokens",
        "_watch",
        "again",
        "clear",
        "echoed",
        "strayed",
    )

    def __init__(self, known: str, *, verbatim: bool, tokens: int, singly: bool, echoes: bool | None) -> None:
        looped = (known + known).find(known, 1) < len(known)  # it repeats itself, so an engine may well go on so
        telling = len(known) >= TELLING and not looped
        self._known = known
        self._tokens = tokens
        # Shorter text is known by coming in one piece, where it was several tokens and a piece is one.
        self._alone = singly and tokens > 2 and not looped and not telling and not echoes
        self._watch = bool(known) and (telling or bool(echoes) or self._alone)
        self._blanks = "" if verbatim else known[len(known.rstrip()) :]
        self._held: list[Chunk] = []
        self._got = ""
        self.again = 0
        self.echoed: bool | None = None
        self.clear = False
        self.strayed = False

    def feed(self, chunks: list[Chunk]) -> list[Chunk]:
        """Return what of ``chunks``, and of what was held before, goes on to the caller now."""
        for place, chunk in enumerate(chunks):
            text, thinks, ends = _without_role(chunk)
            if thinks and self._known:
                self.strayed = True
                self._held = []
                return []
            if text or thinks or ends:
                self._held.append(chunk)
            elif type(chunk) is dict and "usage" in chunk:
                self._held.append({**chunk, "choices": []})
            self._got += text
            if thinks or (text and self._settles()) or ends:
                if ends and not self.clear:
                    self._settles(ended=True)
                self.clear = True
                held, self._held = self._held, []
                return held + chunks[place + 1 :]
        return []

    def _settles(self, *, ended: bool = False) -> bool:
        """Whether the first text is clear by now; when the answer has ``ended``, it is."""
        if self.clear:
            return True
        got, known, blanks = self._got, self._known, self._blanks
        if self._alone and not got.startswith(known):
            self._watch = False
        self._alone = False
        if self._watch:
            if len(got) < len(known) and known.startswith(got) and not ended:
                return False
            self.echoed = got.startswith(known)
            self._watch = False
            if self.echoed:
                dropped = self._drop(len(known))
                # As many pieces as there were tokens: the engine did not repeat the text, it began anew.
                self.again = dropped if 2 * dropped >= self._tokens else 0
                self.clear = True
                return True
        if blanks and len(got) < len(blanks) and blanks.startswith(got) and not ended:
            return False
        if blanks and got.startswith(blanks):
            self.again = self._drop(len(blanks))
        self.clear = True
        return True

    def _drop(self, length: int) -> int:
        """Take the first ``length`` characters out of what is held; return how many chunks lost all their text."""
        gone = 0
        kept: list[Chunk] = []
        for chunk in self._held:
            text = _without_role(chunk)[0]
            taken = min(length, len(text))
            length -= taken
            if taken:
                _put(chunk, text[taken:])
            if taken < len(text) or not text:
                kept.append(chunk)
                continue
            gone += 1
            if type(chunk) is not TextChunk and chunk["choices"][0]["finish_reason"] is not None:
                kept.append(chunk)
            elif type(chunk) is not TextChunk and "usage" in chunk:
                kept.append({**chunk, "choices": []})
        self._held = kept
        return gone


def _put(chunk: Chunk, text: str) -> None:
    """Make ``text`` the text of a chunk with one choice."""
    if type(chunk) is TextChunk:
        chunk.choices[0].delta.content = text
        return
    choice = chunk["choices"][0]
    if "delta" in choice:
        choice["delta"]["content"] = text
    else:
        choice["text"] = text


def _without_role(chunk: Chunk) -> tuple[str, bool, bool]:
    """Take the role out of a chunk; return its text, whether it reasons, and whether it is more than words."""
    if type(chunk) is TextChunk:
        delta = chunk.choices[0].delta
        delta.role = None
        content = delta.content
        return content if isinstance(content, str) else "", bool(delta.reasoning_content or delta.reasoning), False
    if not chunk["choices"]:
        return "", False, False
    choice = chunk["choices"][0]
    ends = choice["finish_reason"] is not None
    members = choice.get("delta")
    if members is None:
        return choice["text"], False, ends
    members.pop("role", None)
    text = members.get("content")
    thinks = bool(members.get("reasoning_content") or members.get("reasoning"))
    others = any(value for name, value in members.items() if name not in _WORDS)
    return text if isinstance(text, str) else "", thinks, ends or others or isinstance(text, list)
