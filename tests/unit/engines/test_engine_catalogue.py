"""What is written down about engines holds together, and follows OpenAI's own client."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from gateway.config.snapshot import EXTERNAL, KINDS
from gateway.engines import catalogue, fields
from gateway.engines.catalogue import ENGINES
from gateway.engines.kind import joined
from gateway.types.call import Operation
from gateway.types.dialect import Dialect

every_engine = pytest.mark.parametrize("kind", sorted(ENGINES))
chatting_engine = pytest.mark.parametrize(
    "kind", sorted(kind for kind, engine in ENGINES.items() if engine.speaks is Dialect.CHAT and kind != "litellm")
)


def test_every_kind_that_can_be_configured_is_described() -> None:
    """The kinds of the configuration file and of the catalogue are the same, each under its own name."""
    assert set(ENGINES) == set(KINDS)
    assert all(engine.kind == kind for kind, engine in ENGINES.items())
    assert {kind for kind, engine in ENGINES.items() if engine.external} == EXTERNAL


def test_one_file_per_kind() -> None:
    """Each kind has its own module, named after it."""
    folder = Path(inspect.getfile(catalogue)).parent
    assert {path.stem for path in folder.glob("*.py")} == {
        *ENGINES, "__init__", "body", "catalogue", "fields", "kind", "parameters", "profiles", "reference", "resume",
        "thinking",
    }  # fmt: skip


@every_engine
def test_a_forbidden_field_is_in_no_pass_list(kind: str) -> None:
    """No pass-list of any operation lets a forbidden field through."""
    for passing in ENGINES[kind].fields.values():
        assert not passing & fields.FORBIDDEN.keys()


def test_every_forbidden_field_has_a_reason() -> None:
    """A field is forbidden for a reason that is written down, and in the spelling that is compared."""
    for name, reason in fields.FORBIDDEN.items():
        assert reason
        assert name == name.casefold()


@chatting_engine
def test_every_chat_parameter_of_openai_passes(kind: str) -> None:
    """Whatever OpenAI's client can say in a chat reaches every engine; TGI alone gives one choice only."""
    parameters = set(chat_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    missing = parameters - ENGINES[kind].fields[Operation.CHAT]
    assert missing == ({"n"} if kind == "tgi" else set())


@chatting_engine
def test_every_completion_parameter_of_openai_but_best_of_passes(kind: str) -> None:
    """``best_of`` makes tokens that the reserved limit does not cover, so own engines do not get it."""
    parameters = set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    missing = parameters - ENGINES[kind].fields[Operation.COMPLETIONS]
    assert missing == {"best_of"} | ({"n"} if kind == "tgi" else set())


@chatting_engine
def test_every_embedding_parameter_of_openai_passes(kind: str) -> None:
    """Engines with an embeddings API get all of its parameters."""
    engine = ENGINES[kind]
    if Operation.EMBEDDINGS in engine.paths:
        assert set(embedding_create_params.EmbeddingCreateParams.__annotations__) <= engine.fields[Operation.EMBEDDINGS]
    else:
        assert kind == "tgi"


@every_engine
def test_an_engine_has_fields_for_every_operation_it_offers(kind: str) -> None:
    """An operation with a path has a pass-list, which holds the length field and what the gateway sets."""
    engine = ENGINES[kind]
    assert engine.paths.keys() == engine.fields.keys()
    assert Operation.CHAT in engine.paths
    assert {"model", "stream", "stream_options", engine.length_field} <= engine.fields[Operation.CHAT]


@every_engine
def test_words_of_a_context_error_are_compared_in_lower_case(kind: str) -> None:
    """The words are matched against a lower-cased message, so they are in lower case themselves."""
    words = ENGINES[kind].context_error
    assert words
    assert all(word == word.lower() for word in words)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vllm", "This model's maximum context length is 4096 tokens. However, you requested 9000 output tokens"),
        (
            "vllm",
            "the model's context length is only 4096 tokens, resulting in a maximum input length of 4095",
        ),
        ("sglang", "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
        ("sglang", "Requested token count exceeds the model's maximum context length of 4096 tokens."),
        ("tgi", "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 1 `inputs` tokens"),
        ("tgi", "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000"),
        ("llamacpp", "the request exceeds the available context size. try increasing the context size"),
        ("openai", "This model's maximum context length is 128000 tokens."),
    ],
)
def test_the_engines_own_words_for_a_prompt_that_is_too_long_are_known(kind: str, message: str) -> None:
    """Each engine's refusal of a long prompt is told from its other refusals."""
    lowered = message.lower()
    assert any(words in lowered for words in ENGINES[kind].context_error)
    assert not any(words in "temperature must be positive" for words in ENGINES[kind].context_error)


def test_a_full_engine_is_not_a_broken_one() -> None:
    """The statuses by which engines say that they are full are known for each."""
    assert 503 in ENGINES["vllm"].overload_statuses
    assert 503 in ENGINES["sglang"].overload_statuses
    assert ENGINES["tgi"].overload_statuses == {429}
    assert 503 not in ENGINES["openai"].overload_statuses
    assert all(429 in engine.overload_statuses for engine in ENGINES.values())


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("", "/v1/chat/completions", "/v1/chat/completions"),
        ("/", "/health", "/health"),
        ("/v1", "/v1/models", "/v1/models"),
        ("/v1", "/metrics", "/metrics"),
        ("/compatible-mode/v1", "/v1/models", "/compatible-mode/v1/models"),
        ("/gpu-a", "/health", "/gpu-a/health"),
    ],
)
def test_a_url_may_end_in_v1_or_not(base: str, path: str, expected: str) -> None:
    """Engine paths find their place below a URL with and without ``/v1``."""
    assert joined(base, path) == expected


def test_metric_names_are_plain() -> None:
    """Names are searched for as bytes, so they hold nothing but the characters of metric names."""
    for engine in ENGINES.values():
        names = engine.metrics
        for name in (
            *names.running, *names.waiting, *names.kv_usage, *names.kv_used_tokens, *names.kv_total_tokens,
        ):  # fmt: skip
            assert re.fullmatch(r"[a-z_]+(:[a-z_]+)?", name)
