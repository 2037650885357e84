"""What callers ask of routing is read exactly, or refused with its path."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge import embeddings, openai_chat, openai_completions
from gateway.edge.controls import read_headers
from gateway.types.call import Call
from gateway.types.errors import BadRequest
from gateway.types.preferences import Cutoffs, MaxPrice, Preferences, Sort
from gateway.types.priority import Priority


def read(**more: Any) -> Call:
    """Return a chat call with ``more`` in its body."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | more
    return openai_chat.read({name: value for name, value in body.items() if value is not ...}, openrouter=False)


def wishes(**provider: Any) -> Preferences:
    """Return what a ``provider`` object asks for."""
    found = read(provider=provider).preferences
    assert found is not None
    return found


def test_a_plain_request_asks_for_nothing() -> None:
    """Most requests carry no preferences at all, so that routing has nothing to look at."""
    call = read(temperature=0.5, tools=[], provider=None, models=None)
    assert (call.preferences, call.session, call.preset, call.priority) == (None, "", None, Priority.STANDARD)


def test_every_member_of_the_object() -> None:
    """Each member arrives in the unit in which routing works."""
    found = wishes(
        order=["Acme", "own/FP8", "acme"],
        only=["acme", "own"],
        ignore=["budget"],
        allow_fallbacks=False,
        require_parameters=True,
        data_collection="deny",
        zdr=True,
        quantizations=["fp8", "BF16"],
        sort={"by": "throughput", "partition": "none"},
        max_price={"prompt": 0.1, "completion": "0.3000009", "request": 0.001, "audio": 2},
        preferred_min_throughput=50,
        preferred_max_latency={"p50": 0.5, "p99": 4},
        options={"ACME": {"top_k": 3}, "own": None},
    )
    assert found.order == ("acme", "own/fp8")
    assert (found.only, found.ignore) == (("acme", "own"), ("budget",))
    assert not found.allow_fallbacks
    assert found.require_parameters
    assert found.deny_collection
    assert found.zdr
    assert found.quantizations == ("fp8", "bf16", "mxfp8")
    assert (found.sort, found.across_models) == (Sort.THROUGHPUT, True)
    assert found.max_price == MaxPrice(prompt=100_000, completion=300_000, request=1_000_000, audio=2_000_000)
    assert found.min_throughput == Cutoffs(p50=50)
    assert found.max_latency == Cutoffs(p50=0.5, p99=4)
    assert dict(found.options) == {"acme": {"top_k": 3}}
    assert found.parameters == frozenset()


def test_null_members_mean_nothing() -> None:
    """Clients send null for what is not set."""
    nulls = dict.fromkeys(("order", "only", "sort", "max_price", "zdr", "quantizations", "options", "data_collection"))
    assert wishes(**nulls, allow_fallbacks=None, ignore=["x"]).allow_fallbacks


@pytest.mark.parametrize(
    ("body", "model", "models"),
    [
        ({"models": ["a", "b"]}, "m", ("a", "b")),
        ({"model": ..., "models": ["a", "b", "a"]}, "a", ("b",)),
        ({"model": None, "models": ["a"]}, "a", None),
        ({"models": ["m", "b"], "route": "fallback"}, "m", ("b",)),
        ({"models": []}, "m", None),
    ],
)
def test_models_combine_with_model(body: dict[str, Any], model: str, models: tuple[str, ...] | None) -> None:
    """``model`` goes first; without it the first of ``models`` does; nothing is tried twice."""
    call = read(**body)
    assert call.model == model
    assert (call.preferences.models if call.preferences else None) == models


def test_all_dialects_read_the_controls() -> None:
    """Text completions and embeddings have the same controls."""
    provider = {"provider": {"only": ["acme"]}, "models": ["a"]}
    for call in (
        openai_completions.read({"prompt": "x", **provider}, openrouter=True),
        openai_chat.read({"messages": [{"role": "user"}], **provider}, openrouter=True),
        embeddings.read({"input": "x", **provider}, openrouter=True),
    ):
        assert call.model == "a"
        assert call.preferences is not None
        assert call.preferences.only == ("acme",)


def test_parameters_by_their_names_in_the_catalogue() -> None:
    """Aliases count as what they stand for; null is no use; a schema is structured output."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    found = read(max_completion_tokens=5, n_predict=5, seed=None, top_k=3, response_format=schema, anything=1)
    assert found.preferences is not None
    assert found.preferences.parameters == {"max_tokens", "top_k", "response_format", "structured_outputs"}


@pytest.mark.parametrize(
    ("body", "headers", "session"),
    [
        ({"session_id": "a", "prompt_cache_key": "b"}, {b"x-session-id": b"c"}, "a"),
        ({"prompt_cache_key": "b"}, {b"x-session-id": b"c"}, "c"),
        ({"prompt_cache_key": "b", "user": "u"}, {}, "b"),
        ({"user": "u"}, {}, ""),
        ({"session_id": ""}, {b"x-session-id": b"c"}, "c"),
        ({"session_id": "a", "provider": {"order": ["own"]}}, {b"x-session-id": b"c"}, ""),
    ],
)
def test_the_session_and_its_precedence(body: dict[str, Any], headers: dict[bytes, bytes], session: str) -> None:
    """Body before header before cache key; an order of the caller's own ends stickiness."""
    call = read(**body)
    read_headers(call, headers)
    assert call.session == session


def test_headers_in_their_units() -> None:
    """Milliseconds become seconds; the body's band goes before the header's; metadata only when it is enabled."""
    headers = {
        b"x-slo-ttft-ms": b"800",
        b"x-slo-tpot-ms": b"40.5",
        b"x-weir-deadline-ms": b"30000",
        b"x-weir-priority": b"batch",
        b"x-weir-policy": b"fastest",
        b"x-openrouter-experimental-metadata": b"Enabled",
    }
    call = read()
    read_headers(call, headers)
    assert (call.slo_ttft, call.slo_itl, call.deadline) == (0.8, 0.0405, 30.0)
    assert (call.priority, call.preset, call.explains) == (Priority.BATCH, "fastest", True)
    call = read(priority="interactive", preset="balanced")
    read_headers(call, headers | {b"x-openrouter-metadata": b"disabled"})
    assert (call.priority, call.preset, call.explains) == (Priority.INTERACTIVE, "balanced", False)
    assert read(priority=-5).priority is Priority.STANDARD


@given(st.integers(0, 10**16), st.integers(0, 12), st.booleans())
def test_a_price_limit_is_never_rounded_up(digits: int, decimals: int, text: bool) -> None:
    """Whatever is written as a number or text is taken exactly, or as the next lower pico-USD."""
    exact = Decimal(digits).scaleb(-decimals)
    written: Any = format(exact, "f") if text else float(exact)
    found = wishes(max_price={"prompt": written}).max_price
    assert found is not None
    named = exact if text else Decimal(repr(written))
    assert found.prompt == min(2**63 - 1, int((named * 10**6).to_integral_value(rounding=ROUND_FLOOR)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    [
        "order",
        "only",
        "ignore",
        "allow_fallbacks",
        "sort",
        "max_price",
        "preferred_max_latency",
        "quantizations",
        "options",
    ]
)


@given(st.dictionaries(MEMBERS, JSON | st.dictionaries(st.sampled_from(["by", "p50", "prompt"]), JSON), max_size=4))
def test_any_object_is_read_or_refused_with_a_path(provider: dict[str, Any]) -> None:
    """No value raises anything but the typed error, and that names a path below ``provider``."""
    refused: list[BadRequest] = []
    try:
        wishes(ignore=["x"], **{name: value for name, value in provider.items() if name != "ignore"})
    except BadRequest as error:
        refused.append(error)
    assert all(error.param is not None and error.param.startswith("provider") for error in refused)
