"""The fast path of a stream: pieces of text that come one by one and differ in nothing but their words.

Once a few of them have come the long way, a ``FastPath`` stands in for the connection. What an engine puts around the
words is known by then, so is what the caller gets around them: bytes are compared instead of parsed, and what is the
same for every piece is done for many at once (``Sink.passed``). It touches little memory, which is most of what a chunk
costs that comes long after the one before (docs/decisions/0043-fast-path.md).

A read that is not exactly such a piece goes the long way, behind everything that came before it: words in which more
than the ends of lines is escaped, several events in a read, the end. So does every piece once the caller pauses the
stream, and every piece behind a read that leaves something open: half a piece of a body, half a line, a finish that is
held back. Nothing is passed on here that the long way would have refused, or in other bytes.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from gateway.types.chunk import PROBE, Direct, Passed, Sink, TextChunk, TextUsage
from gateway.upstream.openai import UNREADABLE, decode_text

if TYPE_CHECKING:
    from gateway.upstream.wire import Connection

STRANGERS: Final = 3
"""Reads in a row that are no such piece after which another pattern is looked for."""
LONGEST: Final = 8_192
"""Bytes of words that a piece may have: up to ``MOST_PASSED`` of them are kept until they are told."""
_SIZE_LINE: Final = 12
"""Bytes in which the size of a piece of a body is said: nobody needs more."""
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_PLACE: Final = re.compile(rb'"(content|reasoning_content|reasoning)"[ \t]*:[ \t]*"')
_COUNTS: Final = re.compile(rb'"(completion_tokens|total_tokens)"[ \t]*:[ \t]*([0-9]+)')
_PROBE: Final = PROBE.encode()
_COMPLETION, _TOTAL = 7, 9


class Pattern(NamedTuple):
    """What an engine puts around the words of a piece, from ``data:`` on.

    Attributes:
        probe: what it says with other words in it.
        member: of the delta, which the words are.
        before: from the beginning of the event to the first letter.
        after: from the quotation mark behind the words to the first count, or to the end when it counts nothing.
        between: between its two counts, or None.
        end: behind the second one.
        total_first: whether the first of them is that of all tokens, and the second that of the completion.
    """

    probe: TextChunk
    member: str
    before: bytes
    after: bytes
    between: bytes | None
    end: bytes
    total_first: bool


class Passing(Protocol):
    """The attempt whose pieces take the fast path."""

    def passed(self, count: int, size: int, last: float) -> None:
        """Take note of ``count`` pieces, about ``size`` bytes as they came, the last of them at ``last``."""

    def slowed(self, *, fruitful: bool) -> None:
        """What comes from now on goes the long way; ``fruitful`` is whether any piece passed before that."""

    @property
    def plain(self) -> bool:
        """Whether nothing that came by the long way waits for what comes next, or changes how that is read."""


def learned(event: bytes) -> Pattern | None:
    """Return the pattern of ``event``, one whole event; None where it is no plain piece of text.

    What is taken to be the words, or a count, is put to the proof: other words there must be read as other words.
    """
    try:
        chunk = decode_text(event[6:-2])
    except UNREADABLE:
        return None
    for place in _PLACE.finditer(event):
        start, member = place.end(), place[1].decode()
        end = event.find(b'"', start)
        if not getattr(chunk.choices[0].delta, member) or _words(event[start:end]) is None:
            continue
        before, after, wanted = event[:start], event[end:], _saying(chunk, member, PROBE)
        if wanted is None:
            return None
        if chunk.usage is not None:
            found = _counting(member, before, after, wanted)
        elif _read(before + _PROBE + after) == wanted:
            found = Pattern(wanted, member, before, after, None, b"", total_first=False)
        else:
            found = None
        if found is not None:
            return found
    return None


def _counting(member: str, before: bytes, after: bytes, wanted: TextChunk) -> Pattern | None:
    """Return the pattern of an event that says the usage so far; ``wanted`` is what it says with the probe in it."""
    counts = list(_COUNTS.finditer(after))
    if len(counts) != 2:
        return None
    first, second = counts
    total_first = first[1] == b"total_tokens"
    between, end = after[first.end() : second.start(2)], after[second.end() :]
    one, other = (_TOTAL, _COMPLETION) if total_first else (_COMPLETION, _TOTAL)
    after = after[: first.start(2)]
    probed = b"%s%s%s%d%s%d%s" % (before, _PROBE, after, one, between, other, end)
    assert wanted.usage is not None
    usage = msgspec.structs.replace(wanted.usage, completion_tokens=_COMPLETION, total_tokens=_TOTAL)
    if _read(probed) != msgspec.structs.replace(wanted, usage=usage):
        return None
    return Pattern(wanted, member, before, after, between, end, total_first)


def _saying(chunk: TextChunk, member: str, words: str) -> TextChunk | None:
    """Return ``chunk`` with other words; None when it says anything beside them."""
    choice = chunk.choices[0]
    delta = choice.delta
    if [bool(each) for each in (delta.content, delta.reasoning_content, delta.reasoning)].count(True) != 1:
        return None
    other = msgspec.structs.replace(choice, delta=msgspec.structs.replace(delta, **{member: words}))
    said: TextChunk = msgspec.structs.replace(chunk, choices=(other,))
    return said


def _read(event: bytes) -> TextChunk | None:
    try:
        return decode_text(event[6:-2])
    except UNREADABLE:
        return None


def _words(raw: bytes) -> str | None:
    """Return words that are the same bytes wherever they are said, or None."""
    try:
        words = raw.decode()
    except UnicodeDecodeError:
        return None
    return words if words.isprintable() and "\\" not in words else None


def entered(attempt: Passing, connection: Connection, sink: Sink, read: bytes, event: bytes) -> FastPath | None:
    """Return the fast path from here on, or None where there is none.

    Args:
        attempt: whose answer it is.
        connection: where it comes from; from now on its reads come here.
        sink: where it goes.
        read: what was read last, framing and all.
        event: the body of that.
    """
    line, _, rest = read.partition(b"\r\n")
    if line.lower() != b"%x" % len(event) or rest != event + b"\r\n":
        return None  # only between two whole pieces of a body can what reads them be left out
    pattern = learned(event)
    direct = sink.direct(pattern.probe) if pattern is not None else None
    transport = connection.transport
    if pattern is None or direct is None or transport is None:
        return None
    path = FastPath(attempt, connection, sink, pattern, direct)
    transport.set_protocol(path)
    return path


def _whole(data: bytes) -> bool:
    """Whether ``data`` is nothing but whole pieces of a body, so that whoever reads them is between two again."""
    place = 0
    while place < len(data):
        end = data.find(b"\r\n", place, place + _SIZE_LINE)
        if end <= place or not _HEX.issuperset(data[place:end]):
            return False
        place = end + 2 + int(data[place:end], 16) + 2
        if data[place - 2 : place] != b"\r\n":
            return False
    return True


class FastPath(asyncio.Protocol):
    """Stands in for ``connection`` while its reads are pieces that follow ``pattern``."""

    __slots__ = (
        "_attempt",
        "_before",
        "_before_length",
        "_bounds",
        "_connection",
        "_counts",
        "_event_length",
        "_foot",
        "_fruitful",
        "_head",
        "_here",
        "_last",
        "_most",
        "_most_tokens",
        "_pattern",
        "_pieces",
        "_rest",
        "_sink",
        "_strangers",
        "_until",
        "_write",
    )

    def __init__(self, attempt: Passing, connection: Connection, sink: Sink, pattern: Pattern, direct: Direct) -> None:
        self._attempt = attempt
        self._connection = connection
        self._sink = sink
        self._pattern = pattern
        self._before, self._before_length = pattern.before, len(pattern.before)
        self._counts: tuple[int, int] | None = None
        self._rest = pattern.after + b"\r\n" if pattern.between is None else b""  # what the next piece ends with
        self._head, self._foot = direct.before, direct.after + b"\r\n"
        self._event_length = len(direct.before) + len(direct.after)
        self._write = direct.write
        self._bounds = direct.bounds
        self._most_tokens = direct.tokens
        self._most, self._until = direct.bounds()
        self._strangers = 0
        self._pieces: list[str] = []
        self._last = 0.0
        self._here, self._fruitful = True, False

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Pass one piece on; whatever else it is goes the long way."""
        begin = data.find(b"\r\n", 0, _SIZE_LINE) + 2
        start = begin + self._before_length
        end = data.find(b'"', start)
        rest, counts = data[end:], self._counts
        if not data.startswith(self._before, begin) or (rest != self._rest and (counts := self._counted(rest)) is None):
            return self._go_round(data)
        raw = data[start:end]
        try:
            words = raw.decode()
        except UnicodeDecodeError:
            return self._go_round(data)
        if not (0 < end - start <= LONGEST and words.isprintable()):
            return self._go_round(data)
        if "\\" in words:
            if "\\" in words.replace("\\n", ""):
                return self._go_round(data)
            words = words.replace("\\n", "\n")  # the only escape that every encoder writes alike, and often
        if data[:begin].lower() != b"%x\r\n" % (len(data) - begin - 2):
            return self._go_round(data)
        self._last = now = monotonic()
        pieces = self._pieces
        pieces.append(words)
        if counts is not None:
            self._count(counts)  # before it is written: a caller that is full then asks for what has passed
        self._write(b"%x\r\n%s%s%s" % (self._event_length + end - start, self._head, raw, self._foot))
        if len(pieces) >= self._most or now >= self._until:
            self.tell()
        return None

    def eof_received(self) -> None:
        """See ``Connection``."""
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``Connection``."""
        self.leave()
        self._connection.connection_lost(exc)

    # What the attempt does with it

    def tell(self) -> None:
        """Tell attempt and sink what has passed since the last time."""
        pieces = self._pieces
        if not pieces:
            return
        self._pieces, self._strangers, self._fruitful = [], 0, True
        self._attempt.passed(len(pieces), sum(map(len, pieces)) + len(pieces) * self._before_length, self._last)
        self._sink.passed(Passed(pieces, self._pattern.member, self._last, self._usage()))
        self._most, self._until = self._bounds()

    def leave(self) -> None:
        """Give the connection its reads back, once."""
        self.tell()
        if not self._here:
            return
        self._here = False
        self._attempt.slowed(fruitful=self._fruitful)
        transport = self._connection.transport
        if transport is not None:
            transport.set_protocol(self._connection)

    # Internals

    def _go_round(self, data: bytes) -> None:
        """Have ``data`` read the long way."""
        self.tell()
        self._strangers += 1
        if self._strangers >= STRANGERS or not _whole(data):
            self.leave()
        self._connection.data_received(data)
        if self._here:
            self._most, self._until = self._bounds()  # what went round counts towards them
            if self._most <= 0 or not self._attempt.plain:
                self.leave()

    def _counted(self, rest: bytes) -> tuple[int, int] | None:
        """Return the counts that ``rest`` says, or None where it says anything but counts that may be."""
        *_, after, between, end, total_first = self._pattern
        if between is None or not rest.startswith(after) or not rest.endswith(end + b"\r\n"):
            return None
        one, _, other = rest[len(after) : -len(end) - 2].partition(between)
        if not (one.isdigit() and other.isdigit()) or b"0" in {one[:1], other[:1]}:
            return None
        counts = int(one), int(other)
        before = self._counts[total_first] - 1 if self._counts is not None else 0
        return counts if before <= counts[total_first] <= self._most_tokens else None

    def _count(self, counts: tuple[int, int]) -> None:
        """Take ``counts``, and expect one more of both with the next piece."""
        _, _, _, after, between, end, total_first = self._pattern
        one, other = self._counts = counts[0] + 1, counts[1] + 1
        late = (other if total_first else one) > self._most_tokens
        self._rest = b"" if late else b"%s%d%s%d%s\r\n" % (after, one, between, other, end)

    def _usage(self) -> TextUsage | None:
        """Return the usage that was said last."""
        usage, counts = self._pattern.probe.usage, self._counts
        if usage is None or counts is None:
            return None
        completion, total = counts if not self._pattern.total_first else counts[::-1]
        said: TextUsage = msgspec.structs.replace(usage, completion_tokens=completion - 1, total_tokens=total - 1)
        return said
