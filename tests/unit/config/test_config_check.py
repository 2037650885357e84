"""A bad file is refused with all its problems, each with its place, its key and its mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.problem import ConfigError
from tests.unit.config.example import ENVIRON, Loader, Refuser


def only(problems: list[str]) -> str:
    """Return the one problem there must be."""
    assert len(problems) == 1, problems
    return problems[0]


def test_form_of_a_problem(refuse: Refuser, example: str) -> None:
    """A problem reads ``file:line:column key: message -> mend``."""
    assert refuse(example.replace("10.0.0.12:8000", "10.0.0.12:8000#a")) == [
        "weir.yaml:10:31 backends[1].url: has a query or fragment -> write only scheme, host, port and path"
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("gpu: 2xH100", "gpus: 2xH100", '8:5 backends[0].gpus: is not a known key -> did you mean "gpu"?'),
        ("max_running", "maxrunning", 'capacity.maxrunning: is not a known key -> did you mean "max_running"?'),
        ("provider: own\n", "zzzzzz: own\n", "backends[0].zzzzzz: is not a known key -> known here: name, kind,"),
        ("teams:", "keys:", "keys: is not a known key -> keys never stand in this file: make them with `weir keys"),
        ("teams:", "server: {a: 1}\nteams:", "is not a known key -> the process is set by environment variables"),
        ("name: gpu-a\n", "<<: {a: 1}\n    name: gpu-a\n", "is not a known key -> merge keys are not supported"),
        ("kind: vllm\n", "kind: vlm\n", 'llamacpp, openai, anthropic, litellm -> did you mean "vllm"?'),
        ("kind: vllm\n", "kind: bedrock\n", '"bedrock" is not one of: vllm, tgi, sglang, llamacpp, openai, anthropic'),
        ("kind: vllm\n", "kind: 7\n", "backends[0].kind: must be text, not a number -> put it in quotes"),
        ("    kind: vllm\n", "", "2:5 backends[0].kind: is missing -> add `kind: vllm`; The engine it runs."),
        ("gpu: 2xH100", "gpu:", "8:5 backends[0].gpu: has no value -> give it one, or remove the key"),
        ("gpu: 2xH100", "gpu: 2", "backends[0].gpu: must be text, not a number -> put it in quotes"),
        ("gpu: 2xH100", 'gpu: " "', "backends[0].gpu: is empty, longer than 300 characters"),
        ("rpm: 600", 'rpm: "600"', "limits.rpm: must be a whole number, not text -> remove the quotes"),
        ("rpm: 600", "rpm: 1.5", "limits.rpm: must be a whole number, not a fraction"),
        ("rpm: 600", "rpm: true", "limits.rpm: must be a whole number, not true or false"),
        ("rpm: 600", "rpm: 0", "limits.rpm: must be at least 1"),
        ("rpm: 600", "rpm: 1" + "0" * 15 + "1", "limits.rpm: must be at most 1000000000000000"),
        ("{rpm: 600}", "600", "backends[2].limits: must be a mapping of keys to values, not a number"),
        ("{rpm: 600}", "{}\n    tags: x", "backends[2].tags: must be a list, not text"),
        ("{rpm: 600}", "{}\n    timeouts: {idle: 0}", "backends[2].timeouts.idle: must be more than 0"),
        ("{rpm: 600}", "{}\n    timeouts: {idle: .inf}", "backends[2].timeouts.idle: must be a number, not text"),
        ("{rpm: 600}", "{}\n    timeouts: {idle: 1e999}", "backends[2].timeouts.idle: "),
        ("drain", "drop", '"drop" is not one of: '),
        ('"4.60"', "4.60", "usd_per_hour: money must be a decimal string, not a number -> put it in quotes"),
        ('"0.16"', "0.16", "endpoints[2].cost.prompt: money must be a decimal string"),
        ('"0.16"', '"-1"', "endpoints[2].cost.prompt: is not a plain decimal amount of USD"),
        ('"0.16"', '"0.1234567"', "cost.prompt: has more than 6 decimals -> write at most 6"),
        (', completion: "0.64"', "", "endpoints[2].cost.completion: is missing -> add `completion: "),
        ("embeddings: true", "embeddings: 1", "capabilities.embeddings: must be true or false, not a number"),
        ("name: gpu-a\n", 'name: "gpu a"\n', "backends[0].name: is not a name"),
        ("slug: search", "slug: Search", "teams[0].slug: is not a slug"),
        ("id: embedder", "id: /embedder", "models[1].id: is not a model id"),
        ("embedder: 5", "embedder: 0", "aliases.house-default.embedder: must be at least 1"),
        ("embedder: 5", "embedder: 0.5", "aliases.house-default.embedder: must be a whole number, not a fraction"),
        ("embedder: 5", "embeder: 5", 'there is no model "embeder" -> did you mean "embedder"?'),
        ("{qwen/qwen3-32b: 95, embedder: 5}", "{}", "aliases.house-default: needs at least one entry"),
        ("{qwen/qwen3-32b: 95, embedder: 5}", "embedder", "aliases.house-default: must be a mapping"),
        ("house-default:", "embedder:", "aliases.embedder: is the id of a model"),
        ("house-default:", "b: {house-default: 1}, house-default:", "aliases.b.house-default: is an alias itself"),
        ("house-default:", '"a b":', 'aliases["a b"]: is not a model id'),
        ("default: balanced", "default: balance", 'there is no preset "balance" -> did you mean "balanced"?'),
        ('["10.0.0.0/8"]', '["10.0.0.0/8", "10.0.0.5/8"]', 'egress.allow[1]: has bits set behind its prefix -> did'),
        ('["10.0.0.0/8"]', '["10.0.0.0/8", lan]', "egress.allow[1]: is not a network"),
        ('["10.0.0.0/8"]', '["10.0.0.0/8", 7]', "egress.allow[1]: must be text"),
        ("name: gpu-b", "name: GPU-A", '"GPU-A" is already taken by backends[0].name in line 2'),
        ("id: embedder", "id: qwen/qwen3-32b", "models[1].id: \"qwen/qwen3-32b\" is already taken by models[0].id"),
        ("- {slug", "- {slug: search, name: x}\n  - {slug", "teams[1].slug: \"search\" is already taken"),
        ("{backend: gpu-b}", "{backend: gpu-c}", 'endpoints[0].backend: there is no backend "gpu-c" -> did you mean'),
        ("{backend: gpu-b}", "{backend: zzz}", "known here: gpu-a, gpu-b, dashscope"),
        ("{backend: gpu-b}", "{backend: gpu-b}\n      - {backend: gpu-b}", "endpoints[1]: is the same model on"),
        ("context_length: 8192", "context_length: 9\n    max_output: 10", "models[1].max_output: is more than the con"),
        ("{backend: gpu-b}", "{backend: gpu-b, max_output: 9000}", "endpoints[0].max_output: is more than the context"),
    ],
)  # fmt: skip
def test_one_mistake(refuse: Refuser, example: str, old: str, new: str, expected: str) -> None:
    """Each single mistake in a good file gives a problem with its key, what is wrong and the mend."""
    assert old in example
    problems = refuse(example.replace(old, new, 1))
    assert any(expected in problem for problem in problems), problems
    assert all(" -> " in problem and not problem.endswith("-> ") for problem in problems)


def test_model_without_any_price(refuse: Refuser, example: str) -> None:
    """A model without a price is refused, not free; the price of another endpoint counts only there."""
    price = '    price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}\n'
    problems = refuse(example.replace(price, ""))
    expected = 'has no price, and neither has its model "qwen/qwen3-32b"; the price of another endpoint counts'
    for problem, endpoint in zip(problems, ("endpoints[0]", "endpoints[1]"), strict=True):
        assert f"models[0].{endpoint}: {expected}" in problem


def test_replicas_of_one_endpoint_have_one_price(refuse: Refuser, accept: Loader, example: str) -> None:
    """Two replicas of a group with different prices are refused; in different groups they are fine."""
    apart = example.replace(
        "- {backend: gpu-b, model: Qwen/Qwen3-32B, quantization: fp8}",
        '- {backend: gpu-b, model: Q, quantization: fp8, price: {prompt: "1", completion: "1"}}',
    )
    problem = only(refuse(apart))
    assert "models[0].endpoints[1].price: differs from the price of models[0].endpoints[0]" in problem
    assert "(provider own, quantization fp8, region eu)" in problem
    for old, new in (("quantization: fp8, price", "quantization: bf16, price"), ("own, region: eu}", "own}")):
        assert len(accept(apart.replace(old, new)).models["qwen/qwen3-32b"].endpoints) == 3


def test_prices_that_say_the_same_are_one_price(accept: Loader, example: str) -> None:
    """A price that spells out its fallbacks equals one that leaves them away."""
    text = example.replace(
        "- {backend: gpu-b, model: Qwen/Qwen3-32B, quantization: fp8}",
        "- {backend: gpu-b, model: Q, quantization: fp8, price: "
        '{prompt: "0.1", completion: "0.3", cache_read: "0.02", reasoning: "0.3"}}',
    )
    assert len(accept(text).models) == 2


def test_backend_may_be_named_like_its_own_provider(accept: Loader, example: str) -> None:
    """The name of a provider is free for a backend that belongs to it."""
    text = example.replace("gpu-a", "own")
    assert accept(text).backends["own"].provider == "own"


def test_backend_named_like_a_foreign_provider(refuse: Refuser, example: str) -> None:
    """A name that could mean a backend or another provider is refused: callers write both in one place."""
    problem = only(
        refuse(
            example.replace("name: dashscope", "name: own\n    provider: ext").replace(
                "backend: dashscope", "backend: own"
            )
        )
    )
    assert 'backends[2].name: "own" is also the provider of another backend -> choose another name' in problem


def test_all_problems_are_told_at_once(refuse: Refuser, example: str) -> None:
    """Mistakes of every sort are told together, in the order of the file; one section's do not hide another's."""
    text = (
        example.replace("gpu: 2xH100", "gpuu: 2xH100")
        .replace("10.0.0.12", "192.168.0.12")
        .replace("DASHSCOPE_API_KEY", "UNSET")
        .replace("name: Qwen3 32B", "name: Qwen3 32B\n    name: again\n    nam: 1")
        .replace("{backend: gpu-a,", "{backend: gpu-x,")
        .replace('prompt: "0.01"', "prompt: 0.01")
        .replace("{backend: gpu-b}", "{backend: gpu-y}")
        .replace("default: balanced", "default: fastest")
    )
    keys = [problem.split(" ", 2)[1].rstrip(":") for problem in refuse(text)]
    assert keys == [
        "backends[0].gpuu",
        "backends[1].url",
        "backends[2].api_key",
        "models[0].name",
        "models[0].nam",
        "models[0].endpoints[0].backend",
        "models[1].price.prompt",
        "models[1].endpoints[0].backend",
        "routing.default",
    ]


def test_missing_sections(refuse: Refuser) -> None:
    """A file needs backends, which are asked for with an example; models may be adopted later."""
    problem = only(refuse("routing: {default: balanced}\n"))
    assert "backends: is missing -> add `backends: [{" in problem


def test_empty_sections(refuse: Refuser) -> None:
    """A list without entries is refused like a missing one."""
    problem = only(refuse("backends: []\nmodels: []\n"))
    assert problem.split(" ", 1)[1] == "backends: needs at least one entry -> add one"


def test_a_backend_that_keeps_nothing_and_may_store_prompts(refuse: Refuser) -> None:
    """Two promises about data that cannot both be kept are refused."""
    backend = "{name: a, kind: vllm, url: https://a.example, zdr: true, data_collection: allow}"
    assert "backends[0].zdr: promises that nothing is kept" in only(refuse(f"backends: [{backend}]\n"))


@pytest.mark.parametrize("text", ["hello", "- a", "7", "~", "[]"])
def test_file_that_is_no_mapping(refuse: Refuser, text: str) -> None:
    """A file must be a mapping at its top."""
    assert ("must be a mapping of keys to values" in only(refuse(text))) == (text != "~")


def test_unknown_default_without_a_routing_section(tmp_path: Path, example: str) -> None:
    """The built-in default preset must exist as well."""
    (tmp_path / "weir.yaml").write_text(example.replace("routing: {default: balanced}\n", ""))
    with pytest.raises(ConfigError, match=r'routing.default: there is no preset "balanced" -> known here: fastest'):
        load(tmp_path / "weir.yaml", presets=["fastest"], environ=ENVIRON)


def test_unprintable_text_is_escaped(refuse: Refuser, example: str) -> None:
    """Control characters of the file do not reach a terminal."""
    problem = only(refuse(example.replace("gpu: 2xH100", '"\\e[31mgpu\\n": x')))
    assert problem.isprintable()
    assert '["\\x1b[31mgpu\\n"]' in problem
