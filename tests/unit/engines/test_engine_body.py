"""What an engine is sent for a caller's body."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines.body import upstream_body
from gateway.engines.catalogue import ENGINES
from gateway.engines.fields import FORBIDDEN, FORBIDDEN_TEMPLATE_ARGUMENTS, LENGTH_FIELDS
from gateway.engines.profiles import engine_of
from gateway.types.call import WHOLE, Operation
from gateway.types.dialect import Dialect

MESSAGES = [{"role": "user", "content": "hello"}]
CHATTING = sorted(kind for kind, engine in ENGINES.items() if engine.speaks is Dialect.CHAT)
every_engine = pytest.mark.parametrize("kind", CHATTING)
own_engines = pytest.mark.parametrize("kind", sorted(set(CHATTING) - {"openai"}))


def made(
    kind: str,
    body: dict[str, Any],
    *,
    operation: Operation = Operation.CHAT,
    max_tokens: int | None = None,
    stream: bool = False,
) -> dict[str, Any]:
    """Return what the engine ``kind`` is sent."""
    return upstream_body(
        ENGINES[kind], operation, body, upstream_model="Upstream", max_tokens=max_tokens, stream=stream
    )


@every_engine
def test_the_model_is_the_backends_name_for_it(kind: str) -> None:
    """The caller's model never reaches a backend; its own name for it does."""
    assert made(kind, {"model": "house-default", "messages": MESSAGES})["model"] == "Upstream"


@pytest.mark.parametrize("kind", [*CHATTING, "deepseek", "openai profile", "openrouter"])
def test_only_who_knows_developers_hears_of_one(kind: str) -> None:
    """Qwen's template drops the role or raises at it, SGLang and DeepSeek refuse it; the system says the same."""
    known = kind in ("openai profile", "openrouter")
    engine = ENGINES[kind] if kind in ENGINES else engine_of("openai", kind.split(" ", maxsplit=1)[0])
    told = [{"role": "developer", "content": words} for words in ("Be brief.", "Be kind.")]
    body = {"messages": [told[0], *MESSAGES, told[1]]}
    sent = upstream_body(engine, Operation.CHAT, body, upstream_model="Upstream", max_tokens=None, stream=False)
    role = "developer" if known else "system"
    assert [message["role"] for message in sent["messages"]] == [role, "user", role]
    assert [message["content"] for message in sent["messages"]] == ["Be brief.", "hello", "Be kind."]
    assert [each["role"] for each in body["messages"]] == ["developer", "user", "developer"]


@every_engine
@pytest.mark.parametrize("alias", LENGTH_FIELDS)
def test_one_clamped_limit_replaces_every_name_for_it(kind: str, alias: str) -> None:
    """However a caller spells the length limit, one field carries the clamped one."""
    body = {"messages": MESSAGES, alias: 10_000}
    sent = made(kind, body, max_tokens=100)
    assert {name: sent[name] for name in LENGTH_FIELDS if name in sent} in (
        {"max_tokens": 100},
        {"max_completion_tokens": 100},
    )


@every_engine
def test_contradicting_limits_do_not_survive(kind: str) -> None:
    """With several names for the limit at once, only the clamped one is left."""
    sent = made(kind, {"messages": MESSAGES} | dict.fromkeys(LENGTH_FIELDS, 10_000), max_tokens=7)
    assert [sent[name] for name in LENGTH_FIELDS if name in sent] == [7]


def test_an_external_api_gets_the_name_its_caller_chose() -> None:
    """External APIs know one of OpenAI's two names and may refuse or ignore the other."""
    old = made("openai", {"messages": MESSAGES, "max_tokens": 9}, max_tokens=9)
    new = made("openai", {"messages": MESSAGES, "max_completion_tokens": 9}, max_tokens=9)
    assert (old.get("max_tokens"), old.get("max_completion_tokens")) == (9, None)
    assert (new.get("max_tokens"), new.get("max_completion_tokens")) == (None, 9)


def test_text_completions_know_only_max_tokens() -> None:
    """The older API has one name for the limit."""
    body = {"prompt": "x", "max_completion_tokens": 9}
    assert made("openai", body, operation=Operation.COMPLETIONS, max_tokens=9)["max_tokens"] == 9


@every_engine
def test_without_a_limit_none_is_sent(kind: str) -> None:
    """An unusable limit of the caller's is dropped when the gateway sets none."""
    sent = made(kind, {"messages": MESSAGES, "max_tokens": None, "n_predict": -1})
    assert not sent.keys() & set(LENGTH_FIELDS)


@every_engine
def test_usage_is_asked_for_in_every_stream(kind: str) -> None:
    """A stream always reports usage, whatever the caller asked for, on every chunk where the engine can."""
    sent = made(kind, {"messages": MESSAGES, "stream_options": {"include_usage": False}}, stream=True)
    assert sent["stream"] is True
    assert sent["stream_options"]["include_usage"] is True
    assert sent["stream_options"].get("continuous_usage_stats", False) is (kind in {"vllm", "sglang"})


@every_engine
def test_a_whole_answer_has_no_stream_options(kind: str) -> None:
    """Engines refuse stream options without a stream."""
    sent = made(kind, {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}})
    assert sent["stream"] is False
    assert "stream_options" not in sent


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp", "openai"])
def test_embeddings_have_neither_stream_nor_limit(kind: str) -> None:
    """An embeddings request carries its own parameters and nothing of generation."""
    body = {"model": "m", "input": "x", "dimensions": 8, "stream": True, "max_tokens": 9, "stream_options": {}}
    sent = made(kind, body, operation=Operation.EMBEDDINGS, max_tokens=5)
    assert sent == {"model": "Upstream", "input": "x", "dimensions": 8}


@pytest.mark.parametrize(
    ("kind", "operation"), [(kind, operation) for kind in CHATTING for operation in ENGINES[kind].paths]
)
def test_a_forbidden_field_never_passes(kind: str, operation: Operation) -> None:
    """Fields that reach other tenants, the host or the gateway's own destinations are dropped for every kind."""
    for name in FORBIDDEN:
        assert name not in made(kind, {"messages": MESSAGES, name: "x"}, operation=operation, stream=True)
    together = made(kind, {"messages": MESSAGES} | dict.fromkeys(FORBIDDEN, "x"), operation=operation)
    assert not together.keys() & FORBIDDEN.keys()


@pytest.mark.parametrize("name", ["API_BASE", "Api_Base", "api_baſe", "KV_Transfer_Params", "\u212av_transfer_params"])
def test_an_odd_spelling_of_a_forbidden_field_does_not_pass_to_external_apis(name: str) -> None:
    """Decoders that match names without regard to case cannot be used to get a forbidden field through."""
    assert made("openai", {"messages": MESSAGES, name: "x"}) == {
        "messages": MESSAGES, "model": "Upstream", "stream": False,
    }  # fmt: skip


@own_engines
def test_unknown_fields_are_dropped_for_own_engines(kind: str) -> None:
    """What nobody knows does not reach an engine of ours."""
    assert "frobnicate" not in made(kind, {"messages": MESSAGES, "frobnicate": 1})


def test_unknown_fields_reach_external_apis() -> None:
    """External APIs have parameters of their own."""
    assert made("openai", {"messages": MESSAGES, "enable_search": True})["enable_search"] is True


@pytest.mark.parametrize(
    ("kind", "extras"),
    [
        ("vllm", {"top_k": 5, "min_p": 0.1, "structured_outputs": {"regex": "a"}, "guided_json": {}}),
        ("vllm", {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"}),
        ("sglang", {"top_k": 5, "regex": "a+", "ebnf": "x", "separate_reasoning": True}),
        ("tgi", {"guideline": "be brief", "tool_prompt": "use it"}),
        ("llamacpp", {"grammar": 'root ::= "a"', "cache_prompt": False, "repeat_penalty": 1.1, "top_k": 1}),
    ],
)
def test_an_engines_own_safe_extras_pass(kind: str, extras: dict[str, Any]) -> None:
    """Each engine gets the extras it knows and that touch nothing but the request itself."""
    assert made(kind, {"messages": MESSAGES} | extras).items() >= extras.items()


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp", "openai"])
def test_the_renderers_own_arguments_are_taken_out_of_template_arguments(kind: str) -> None:
    """A template of the caller's, and a second tokenization, cannot be smuggled in beside template variables."""
    for name in FORBIDDEN_TEMPLATE_ARGUMENTS:
        body = {"messages": MESSAGES, "chat_template_kwargs": {"enable_thinking": True, name: "{{ x }}"}}
        before = copy.deepcopy(body)
        assert made(kind, body)["chat_template_kwargs"] == {"enable_thinking": True}
        assert body == before


def test_a_value_that_an_engine_refuses_and_that_means_nothing_is_dropped() -> None:
    """TGI refuses ``top_p: 1``, the default many clients send; any other value reaches it."""
    assert "top_p" not in made("tgi", {"messages": MESSAGES, "top_p": 1})
    assert "top_p" not in made("tgi", {"messages": MESSAGES, "top_p": 1.0})
    assert made("tgi", {"messages": MESSAGES, "top_p": 0.9})["top_p"] == 0.9
    assert made("vllm", {"messages": MESSAGES, "top_p": 1})["top_p"] == 1


names = st.one_of(
    st.sampled_from(sorted(FORBIDDEN)),
    st.sampled_from(sorted(ENGINES["vllm"].fields[Operation.CHAT])),
    st.text(max_size=12),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@given(
    kind=st.sampled_from(CHATTING),
    operation=st.sampled_from(list(Operation)),
    body=st.dictionaries(names, values, max_size=8),
    limit=st.none() | st.integers(1, 10_000),
    stream=st.booleans(),
)
def test_whatever_a_body_holds(
    kind: str, operation: Operation, body: dict[str, Any], limit: int | None, stream: bool
) -> None:
    """Any body gives one with our model, at most one limit, nothing forbidden; the caller's stays as it was."""
    engine = ENGINES[kind]
    if operation not in engine.paths:
        return
    before = copy.deepcopy(body)
    sent = made(kind, body, operation=operation, max_tokens=limit, stream=stream)
    assert body == before
    assert sent["model"] == "Upstream"
    assert not sent.keys() & FORBIDDEN.keys()
    assert [sent[name] for name in LENGTH_FIELDS if name in sent] == (
        [limit] if limit is not None and operation not in WHOLE else []
    )
    if not engine.passes_unknown:
        assert sent.keys() <= engine.fields[operation] | {"model"}
