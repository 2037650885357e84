"""The most a request can cost: worked numbers of the documentation, and never less than any outcome costs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.bound import TEMPLATE_TOKENS, affordable, answer_tokens, most, prompt_tokens
from gateway.access.leases import Wish, slice_of
from gateway.config.snapshot import Capabilities
from gateway.edge import embeddings, openai_chat, openai_completions, rerank
from gateway.fleet.snapshot import Endpoint, Model
from gateway.pricing.charge import bound, charge, rates_id
from gateway.types.call import Call
from gateway.types.money import NANO_PER_USD, Rates, nano_from_usd, usd_text
from gateway.types.tokens import Usage

PAGE = (Path(__file__).parents[3] / "docs" / "budgets.md").read_text()
RATES = Rates(100_000, 300_000)


def model(rates: Rates = RATES, *, context: int = 40_960, max_output: int | None = None) -> Model:
    """Return a model with one endpoint."""
    endpoint = Endpoint("own", "m", "own", None, None, rates, rates_id(rates), context, max_output, Capabilities())
    return Model("m", "M", "", 0, context, max_output, Capabilities(), rates, (endpoint,), ())


def chat(size: int, messages: int, **more: Any) -> Call:
    """Return a chat whose JSON has ``size`` bytes."""
    body = {"model": "m", "messages": [{"role": "user", "content": ""} for _ in range(messages)], **more}
    missing = size - len(json.dumps(body, separators=(",", ":")))
    assert missing >= 0
    body["messages"][0]["content"] = "x" * missing
    return openai_chat.read(body, openrouter=False)


def rows(head: str) -> list[list[str]]:
    """Return the rows of the table of the documentation that begins with ``head``."""
    table = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_the_worked_reservations_are_right() -> None:
    """Every row of the table is what the program reserves."""
    found = rows("| JSON bytes |")
    assert len(found) == 4
    for size, messages, length, choices, prompt, answer, usd in found:
        more = {} if length == "none" else {"max_tokens": int(length)}
        call = chat(int(size), int(messages), n=int(choices), **more)
        endpoint = model().endpoints[0]
        assert prompt_tokens(call) == int(prompt)
        assert answer_tokens(call, endpoint) * call.choices == int(answer)
        assert usd_text(most(call, [model()], "t").whole) == usd


def test_the_worked_slices_are_right() -> None:
    """Every row of the table is what the program lends."""
    need = nano_from_usd("0.0001")
    found = rows("| left to lend |")
    assert len(found) == 4
    for left, lent in found:
        assert slice_of(nano_from_usd(left), Wish(0, need, need)) == nano_from_usd(lent)


@pytest.mark.parametrize(
    "name", ["max_tokens", "max_completion_tokens", "n_predict", "max_new_tokens", "max_output_tokens"]
)
def test_every_name_of_the_length_bounds_the_answer(name: str) -> None:
    """The length counts under any name, for each choice, up to what the endpoint makes."""
    limited = model(max_output=500)
    short, long = chat(300, 1, n=3, **{name: 50}), chat(300, 1, **{name: 5_000})
    assert most(short, [limited], "t").whole - most(short, [limited], "t").fixed == 3 * 50 * 300
    assert answer_tokens(long, limited.endpoints[0]) == 500
    assert answer_tokens(chat(300, 1, n_predict=-1), limited.endpoints[0]) == 40_960


def test_the_dearest_endpoint_class_and_tier_count() -> None:
    """Whichever of the models answers, and whatever its tokens are called, it costs no more."""
    dear = Rates(100_000, 300_000, cache_write=900_000, reasoning=2_000_000, request=77)
    call = chat(300, 1, max_tokens=10)
    cost = most(call, [model(), model(dear)], "t")
    assert (
        cost.whole >= charge(Usage(prompt_tokens(call), 10, cache_write=prompt_tokens(call), reasoning=10), dear).total
    )
    assert most(call, [], "t") == (0, 0, 0)


def test_images_and_audio_are_bounded_without_counting_their_bytes() -> None:
    """A picture of a megabyte reserves what the largest picture costs, not a million tokens."""
    parts = [
        {"type": "text", "text": "what is it"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 1_000_000, "format": "wav"}},
    ]
    call = openai_chat.read({"model": "m", "messages": [{"role": "user", "content": parts}]}, openrouter=False)
    assert 16_384 + 1_000_000 // 32 <= prompt_tokens(call) < 60_000


def test_prompts_of_completions_and_embeddings_are_bounded() -> None:
    """Texts by their bytes, token numbers by their digits, several prompts together; embeddings make nothing."""
    for prompt, least in (("é" * 50, 100), ([1] * 70, 70), (["ab", "cd"], 4), ([[1, 2], [3]], 3)):
        call = openai_completions.read({"model": "m", "prompt": prompt, "max_tokens": 5}, openrouter=False)
        assert prompt_tokens(call) >= least
    call = embeddings.read({"model": "m", "input": ["x" * 10, "y"]}, openrouter=False)
    assert most(call, [model()], "t").length == 0


def test_an_image_to_rank_is_bounded_as_an_image_and_not_by_its_address() -> None:
    """A few bytes of address may be thousands of tokens, and a megabyte of base64 is no more of them than that."""
    for image in ("https://example.com/a.png", "data:image/png;base64," + "A" * 1_000_000):
        documents = [{"image": image}, {"text": "x" * 100, "image": image}, "y" * 100]
        call = rerank.read({"model": "m", "query": "q" * 50, "documents": documents}, openrouter=False)
        assert 2 * 16_384 + 200 + 3 * 50 <= prompt_tokens(call) < 2 * 16_384 + 200 + 3 * (50 + 256) + 100


def test_what_surrounds_a_text_to_embed_counts_for_each_of_them() -> None:
    """An engine may put its marks, or a template, around every one."""
    one, many = (embeddings.read({"model": "m", "input": ["x"] * count}, openrouter=False) for count in (1, 1_000))
    assert prompt_tokens(many) - prompt_tokens(one) >= 999 * (len('"x",') + TEMPLATE_TOKENS)


def test_each_text_to_embed_may_fill_the_context() -> None:
    """Several are several prompts: together they may have more tokens than one context holds."""
    long = "x" * (2 * 40_960)
    one, three = (
        embeddings.read({"model": "m", "input": texts}, openrouter=False) for texts in (long, [long, long, long])
    )
    assert most(one, [model()], "t").whole == bound(model().endpoints[0].price, 40_960, 0)
    assert most(three, [model()], "t").whole == bound(model().endpoints[0].price, 3 * 40_960, 0)


@given(
    size=st.integers(200, 5_000),
    choices=st.integers(1, 4),
    amount=st.integers(0, NANO_PER_USD // 100),
    prompt=st.integers(1, 1_000_000),
    completion=st.integers(1, 1_000_000),
)
def test_the_affordable_length_is_the_longest_that_fits(
    size: int, choices: int, amount: int, prompt: int, completion: int
) -> None:
    """One token more for each choice would cost more than there is; what is affordable does not."""
    found = model(Rates(prompt, completion))
    fits = affordable(chat(size, 1, n=choices), [found], "t", amount, 1_000)
    assert 0 <= fits <= 1_000
    if fits:
        assert _cost(size, choices, fits, found) <= amount
    if fits < 1_000:
        assert _cost(size, choices, fits + 1, found) > amount


def _cost(size: int, choices: int, length: int, found: Model) -> int:
    call = chat(size, 1, n=choices)
    call.max_tokens = length
    return most(call, [found], "t").whole


def test_the_page_names_the_bounds_that_hold() -> None:
    """Numbers in the text are those of the program."""
    from gateway.access import bound, purse

    for number in (bound.TEMPLATE_TOKENS, bound.MESSAGE_TOKENS, bound.IMAGE_TOKENS, bound.AUDIO_BYTES, purse.SHORTEST):
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", PAGE)
