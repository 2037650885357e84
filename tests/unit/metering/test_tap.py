"""The tap: tokens are counted whatever the engine says or fails to say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering.tap import Basis, Tap, usage_of
from gateway.types.call import Operation
from gateway.types.tokens import Usage, UsageSource


def tap(choices: int = 1, *, delta_is_token: bool = True, counts_all_choices: bool = True) -> Tap:
    return Tap(Basis(Operation.CHAT, choices, 7, delta_is_token=delta_is_token, counts_all_choices=counts_all_choices))


def delta(
    text: str = "x", index: int = 0, reason: str | None = None, usage: dict[str, Any] | None = None
) -> dict[str, Any]:
    chunk: dict[str, Any] = {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]}
    if usage is not None:
        chunk["usage"] = usage
    return chunk


def usage(completion: int, prompt: int = 11) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def test_the_engines_usage_counts() -> None:
    """A normal stream is counted as the engine counts it."""
    it = tap()
    for text in ("a", "b", "c"):
        it.chunk(delta(text))
    it.chunk(delta("", reason="stop"))
    it.chunk({"choices": [], "usage": usage(3)})
    assert it.finished
    assert it.count() == (Usage(11, 3), UsageSource.UPSTREAM)


def test_usage_sent_twice_or_falling_counts_once() -> None:
    """A second usage chunk neither doubles nor lowers the count."""
    it = tap()
    it.chunk(delta("a", reason="stop"))
    for tokens in (3, 3, 1):
        it.chunk({"choices": [], "usage": usage(tokens)})
    assert it.count() == (Usage(11, 3), UsageSource.UPSTREAM)


def test_without_usage_deltas_count_where_a_delta_is_a_token() -> None:
    """An engine that says nothing is counted by its deltas."""
    it = tap()
    for _ in range(5):
        it.chunk(delta("word "))
    assert it.count() == (Usage(7, 5), UsageSource.COUNTED)


def test_without_usage_bytes_are_an_estimate_elsewhere() -> None:
    """An external API without usage is estimated at four bytes a token, and says so."""
    it = tap(delta_is_token=False)
    it.chunk(delta("12345678"))
    assert it.count() == (Usage(7, 2), UsageSource.ESTIMATED)


def test_every_choice_counts_where_the_engine_counts_one() -> None:
    """llama.cpp reports one choice of several; the deltas tell the rest."""
    it = tap(2, counts_all_choices=False)
    for index in (0, 1, 0, 1):
        it.chunk(delta("x", index))
    it.chunk(delta("", 0, "stop"))
    assert not it.finished
    it.chunk(delta("", 1, "stop"))
    it.chunk({"choices": [], "usage": usage(2)})
    assert it.finished
    assert it.count() == (Usage(11, 4), UsageSource.COUNTED)


def test_a_stream_cut_after_the_last_report_counts_the_later_deltas() -> None:
    """With continuous usage the deltas behind the last report are not lost."""
    it = tap()
    it.chunk(delta("a", usage=usage(1)))
    it.chunk(delta("b"))
    assert it.count() == (Usage(11, 2), UsageSource.COUNTED)


def test_an_error_finish_is_a_failure() -> None:
    """A finish reason of error ends the answer, badly."""
    it = tap()
    it.chunk(delta("a", reason="error"))
    assert it.finished
    assert it.failed


@pytest.mark.parametrize(("total", "completion"), [(18, 8), (23, 13), (None, 8), (40, 8)])
def test_reasoning_that_is_no_part_of_the_completion_is_added(total: int | None, completion: int) -> None:
    """Where the total says that reasoning was counted apart, it is part of the completion here."""
    said = {
        "prompt_tokens": 10,
        "completion_tokens": 8,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert usage_of(said) == Usage(10, completion, reasoning=5)


def test_details_are_read_and_rubbish_counts_as_nothing() -> None:
    """Cached and reasoning tokens are classes of their own; negative or textual numbers are zero."""
    assert usage_of(
        {
            "prompt_tokens": 10,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": None},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
    ) == Usage(10, 8, cache_read=4, reasoning=5)
    counts = {"prompt_tokens": 10, "completion_tokens": 8}
    assert usage_of(counts | {"prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4}) == Usage(
        10, 8, cache_read=6
    )
    assert usage_of(counts | {"cached_tokens": 7}) == Usage(10, 8, cache_read=7)
    written = {"cached_tokens": 2, "cache_creation_input_tokens": 3}
    assert usage_of(counts | {"prompt_tokens_details": written}) == Usage(10, 8, cache_read=2, cache_write=3)
    assert usage_of({"prompt_tokens": -3, "completion_tokens": "many", "prompt_tokens_details": []}) == Usage()
    assert usage_of({"total": 4}) is None
    assert usage_of([1]) is None


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_no_usage_document_breaks_the_tap(document: Any) -> None:
    """Whatever an engine sends as usage, counting goes on."""
    it = tap()
    it.chunk({"choices": [], "usage": document})
    counted, _ = it.count()
    assert counted.total >= 0


@given(st.lists(st.integers(0, 50), min_size=9, max_size=9))
def test_disjoint_classes_add_up_to_the_totals(numbers: list[int]) -> None:
    """Splitting never makes or loses a token, even when the parts contradict the totals."""
    whole = Usage(*numbers)
    parts = whole.split()
    assert parts.prompt + parts.cache_read + parts.cache_write + parts.audio_prompt + parts.image_prompt == whole.prompt
    assert parts.completion + parts.reasoning + parts.audio_completion + parts.image_completion == whole.completion
    assert min(parts.prompt, parts.completion, parts.cache_read, parts.reasoning) >= 0


NONSENSE = [
    {"prompt_tokens": "7", "completion_tokens": "40"},
    {"prompt_tokens": True, "completion_tokens": True},
    {"prompt_tokens": 0, "completion_tokens": 0},
    {"prompt_tokens": -7, "completion_tokens": -40},
    {"prompt_tokens": 7},
    {"prompt_tokens": 7, "completion_tokens": 2**41},
    {"prompt_tokens": 7, "completion_tokens": 2**40 - 1},
    {"prompt_tokens": 7, "completion_tokens": 5_000},
    {"prompt_tokens": 7, "completion_tokens": 40.5},
    {"prompt_tokens": 7, "completion_tokens": None},
    {},
]


@pytest.mark.parametrize("told", NONSENSE)
def test_usage_that_cannot_be_true_is_no_usage(told: dict[str, Any]) -> None:
    """What was seen counts then: a member that is missing, no number, nothing, or more than the answer may have."""
    seen = Tap(Basis(Operation.CHAT, 1, 7, delta_is_token=True, counts_all_choices=True, context=40_000, longest=1_000))
    for _ in range(40):
        seen.chunk({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]})
    seen.chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    seen.chunk({"choices": [], "usage": told})
    assert seen.count() == (Usage(7, 40), UsageSource.COUNTED)


def test_whole_floats_are_numbers() -> None:
    """Some JSON writers have no integers."""
    seen = tap()
    seen.chunk({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]})
    seen.chunk({"choices": [], "usage": {"prompt_tokens": 9.0, "completion_tokens": 40.0}})
    assert seen.count() == (Usage(9, 40), UsageSource.UPSTREAM)


def test_a_prompt_beyond_the_context_is_estimated() -> None:
    """The engine could not have read it."""
    seen = Tap(Basis(Operation.CHAT, 1, 7, delta_is_token=True, counts_all_choices=True, context=4_096))
    seen.chunk({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]})
    seen.chunk({"choices": [], "usage": {"prompt_tokens": 10**9, "completion_tokens": 1}})
    assert seen.count()[0] == Usage(7, 1)


def test_a_whole_answer_without_usage_is_estimated_by_its_size() -> None:
    """Nobody reads a whole answer for its size unless the engine said nothing; then all choices are read, once."""
    it = tap(2)
    message = {"role": "assistant", "content": "word" * 5}
    it.answer({"choices": [{"index": index, "message": message, "finish_reason": "stop"} for index in range(2)]})
    assert not it.silent
    assert it.count() == it.count() == (Usage(7, 10), UsageSource.ESTIMATED)
