"""The seam of a continued answer: whatever the text, where it broke and how it comes, nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.types.chunk import Chunk, ListSink, TextChunk
from gateway.upstream.seam import LONGEST, TELLING, Seam, Transcript

LETTERS = st.text(st.sampled_from("ab \n\té漢🌊"), max_size=120)
PROSE = st.lists(st.sampled_from(["weir", " gate", " ", "\n\n", "brook,", " 漢字", "🌊", "\t"]), max_size=40).map(
    "".join
)
TEXTS = LETTERS | PROSE
LONG = st.builds("{} {}".format, st.just("Over the weir the water falls,"), TEXTS)
CUTS = st.lists(st.integers(0, 200), max_size=12)


def text_chunk(text: str | None, **delta: Any) -> Chunk:
    """Return a chunk as it is decoded when it holds nothing but text."""
    members = delta if text is None else {"content": text, **delta}
    return msgspec.convert({"choices": [{"delta": members}]}, TextChunk)


def object_chunk(text: str, **more: Any) -> Chunk:
    """Return a chunk as it is decoded when it holds more than text."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}


def completion_chunk(text: str) -> Chunk:
    """Return a chunk of a text completion."""
    return {"choices": [{"index": 0, "text": text, "finish_reason": None}]}


FORMS = [text_chunk, object_chunk, completion_chunk]


def split(text: str, cuts: Sequence[int]) -> list[str]:
    """Cut ``text`` at some places; no piece is empty."""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


def said(chunks: Sequence[Chunk]) -> str:
    """Return the text in chunks."""
    transcript = Transcript(ListSink(lambda _: None))
    transcript.send(list(chunks))
    return transcript.text


def passed(seam: Seam, pieces: Sequence[str], form: Any = text_chunk, reads: int = 1) -> str:
    """Return the text that comes out when ``pieces`` and an end go in, ``reads`` chunks at a time."""
    chunks = [text_chunk(None, role="assistant"), *map(form, pieces)]
    end: Chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    out: list[Chunk] = []
    every = [*chunks, end]
    for start in range(0, len(every), reads):
        some = every[start : start + reads]
        out += some if seam.clear else seam.feed(some)
    assert seam.clear
    roles = [chunk for chunk in out if type(chunk) is TextChunk and chunk.choices[0].delta.role]
    assert not roles
    assert out[-1] is end
    return said(out[:-1])


def seam(known: str, **more: Any) -> Seam:
    """Return a seam of an engine that was given all of ``known`` and is not known to say it again."""
    return Seam(
        known, **({"verbatim": True, "tokens": max(1, len(known) // 4), "singly": False, "echoes": None} | more)
    )


@given(TEXTS, TEXTS, CUTS, st.sampled_from(FORMS), st.integers(1, 5))
@example("ab ", " b", [1], text_chunk, 1)
@example("dddd", "dddddddd", [1, 2, 3], text_chunk, 1)
@example("x\n\n", "\n\ny", [], object_chunk, 1)
def test_what_an_engine_goes_on_with_is_kept_to_the_blank(
    known: str, rest: str, cuts: list[int], form: Any, reads: int
) -> None:
    """An engine that was given the text as it is and does not say it again: all that it says is new."""
    assume(not rest.startswith(known) or len(known) < TELLING)
    assert passed(seam(known), split(rest, cuts), form, reads) == rest


@given(LONG, TEXTS, CUTS, st.sampled_from(FORMS), st.integers(1, 5))
def test_an_echo_is_dropped_exactly_however_it_is_split(
    known: str, rest: str, cuts: list[int], form: Any, reads: int
) -> None:
    """What the engine says again is taken away to the character; blanks at the seam stay."""
    assume(len(known) >= TELLING)
    made = seam(known)
    assert passed(made, split(known + rest, cuts), form, reads) == rest
    assert made.echoed


@given(TEXTS, TEXTS, CUTS, st.integers(1, 5))
def test_a_replica_known_to_echo_is_believed_for_any_text(known: str, rest: str, cuts: list[int], reads: int) -> None:
    """Also text that is short or repeats itself, which alone would not tell."""
    assume(known)
    assert passed(seam(known, echoes=True), split(known + rest, cuts), text_chunk, reads) == rest


@given(TEXTS, TEXTS, CUTS)
def test_an_echo_of_a_short_text_is_known_by_coming_in_one_piece(known: str, rest: str, cuts: list[int]) -> None:
    """Where a piece is a token, several tokens in the first piece were not made by the model."""
    assume(known and (known + known).find(known, 1) == len(known) and len(known) < TELLING)
    pieces = [known + (split(rest, cuts) or [""])[0], *split(rest, cuts)[1:]]
    assert passed(seam(known, singly=True, tokens=3), pieces) == rest


@given(PROSE, st.sampled_from([" ", "\n", "\n\n", " \t"]), PROSE, CUTS, st.integers(1, 5))
@example(" gate" + 7 * "weir", " ", "gate", [], 1)
@example(" gate" + 7 * "weir", " ", "gates", [1, 3, 5], 1)
def test_blanks_that_a_template_cut_off_are_not_doubled(
    known: str, blanks: str, rest: str, cuts: list[int], reads: int
) -> None:
    """The engine makes them once more when they were cut off, and not when they were not."""
    known = known.rstrip() + "." + blanks
    rest = rest.lstrip()
    assume(rest and not rest.startswith(known))
    assert passed(seam(known, verbatim=False), split(blanks + rest, cuts), text_chunk, reads) == rest
    assert passed(seam(known, verbatim=False), split(rest, cuts), text_chunk, reads) == rest


def test_an_answer_that_begins_anew_counts_once() -> None:
    """An engine that ignores what it is to go on with and says all of it again made those tokens twice."""
    words = [f" word{number}" for number in range(20)]
    made = seam("".join(words), tokens=20)
    assert passed(made, [*words, " end"]) == " end"
    assert made.again == 20
    made = seam("".join(words), tokens=20)
    assert passed(made, ["".join(words), " end"]) == " end"
    assert made.again == 0


def test_usage_on_dropped_chunks_is_kept() -> None:
    """An engine that reports usage with every chunk is still believed when its echo is dropped."""
    known = "The gate of the weir is closed, and "
    made = seam(known)
    usage = {"prompt_tokens": 9, "completion_tokens": 0}
    assert made.feed([object_chunk(known[:9], usage=usage)]) == []
    out = made.feed([object_chunk(known[9:] + "then", usage=usage | {"completion_tokens": 1})])
    told = [chunk.get("usage") for chunk in out if isinstance(chunk, dict)]
    assert told == [usage, usage | {"completion_tokens": 1}]
    assert said(out) == "then"


def test_an_engine_that_thinks_again_has_strayed() -> None:
    """Reasoning behind text that has begun is another answer, not the rest of this one."""
    made = seam("The answer is")
    assert made.feed([text_chunk(None, reasoning_content="Well,")]) == []
    assert made.strayed


def test_a_restart_of_an_unseen_answer_only_loses_its_role() -> None:
    """When the caller knows no more than that an answer began, all of the next one is new."""
    made = seam("")
    first = text_chunk("Hello", role="assistant")
    assert made.feed([text_chunk(None, role="assistant")]) == []
    assert made.feed([first]) == [first]
    assert isinstance(first, TextChunk)
    assert first.choices[0].delta.role is None


@given(st.lists(TEXTS, max_size=150), st.sampled_from(FORMS), st.booleans())
def test_the_transcript_is_what_was_sent(pieces: list[str], form: Any, alone: bool) -> None:
    """Any number of chunks of any form, and all of them reach the caller."""
    sent: list[Chunk] = []
    transcript = Transcript(ListSink(sent.extend))
    for piece in pieces:
        chunk = form(piece)
        if alone and isinstance(chunk, TextChunk):
            transcript.say(chunk)
        else:
            transcript.send([chunk])
    assert transcript.text == "".join(pieces) == transcript.text
    assert len(sent) == len(pieces)
    assert not transcript.hindrance


def test_what_cannot_be_continued_is_noted() -> None:
    """Tool calls, log probabilities, parts that are no text, and more text than is worth reading again."""
    broken: list[tuple[Chunk, str]] = [
        ({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}, "tools"),
        ({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": []}}]}, "logprobs"),
        ({"choices": [{"delta": {"content": [{"type": "text"}]}}]}, "speech"),
        ({"choices": [{"delta": {"content": "x" * (LONGEST + 1)}}]}, "length"),
    ]
    for chunk, word in broken:
        transcript = Transcript(ListSink(lambda _: None))
        transcript.send([chunk])
        assert transcript.text == ""
        assert transcript.hindrance == word


@pytest.mark.parametrize("piece", ["delta", "text"])
def test_what_is_remembered_of_a_long_answer_is_bounded(piece: str) -> None:
    """Chat and completions alike: beyond the longest that can be read again nothing is kept."""
    transcript = Transcript(ListSink(lambda _: None))
    word = "x" * 64
    said = {"delta": {"content": word}} if piece == "delta" else {"text": word}
    for _ in range(LONGEST // len(word) + 200):
        transcript.send([{"choices": [said]}])
    assert transcript.hindrance == "length"
    assert sum(len(kept) for kept in transcript._pieces + transcript._text) < 100 * len(word)


def test_reasoning_is_kept_apart() -> None:
    """The text is what comes behind the reasoning."""
    transcript = Transcript(ListSink(lambda _: None))
    transcript.send([text_chunk(None, reasoning_content="Well"), text_chunk(None, reasoning="."), text_chunk("Yes")])
    assert (transcript.reasoning, transcript.text) == ("Well.", "Yes")


def test_only_what_was_made_again_counts_as_such() -> None:
    """Pieces held back for what looked like an echo are not lost when it was none: only the blanks were made twice."""
    known = " gate by gate the weir is opened, and then. "
    made = seam(known, verbatim=False)
    assert passed(made, [" ", "gate", " by", " hand"]) == "gate by hand"
    assert (made.again, made.echoed) == (1, False)
