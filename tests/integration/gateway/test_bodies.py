"""What of a caller's body reaches an engine of each kind, seen from the engine's side of a real connection."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from gateway.engines.fields import FORBIDDEN, LENGTH_FIELDS
from gateway.sim import KINDS, BookEntry, Kind, SimConfig, SimFleet
from tests.harness import Backend, Stage, configuration, staged

LONGEST = 64
"""Tokens of the longest answer that the models of these tests give."""

SCHEMA: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CHAT: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "frequency_penalty": 0.1,
    "function_call": "none",
    "functions": [{"name": "old", "parameters": SCHEMA}],
    "logit_bias": {"1734": -100, "9": 0.5},
    "logprobs": True,
    "max_completion_tokens": 50,
    "max_tokens": 40,
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "house"},
        {"role": "user", "content": [{"type": "text", "text": 'naïve \u2028 🙂 \\ " \u0000'}]},
    ],
    "metadata": {"trip": "7"},
    "modalities": ["text"],
    "moderation": {"model": "any"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "Water"},
    "presence_penalty": -2,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"scope": "x"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    "safety_identifier": "s",
    "seed": 2**53 + 1,
    "service_tier": "auto",
    "stop": ["###", "\n\n"],
    "store": False,
    "stream": False,
    "stream_options": None,
    "temperature": 1e-7,
    "tool_choice": "none",
    "tools": [{"type": "function", "function": {"name": "new", "parameters": SCHEMA, "strict": True}}],
    "top_logprobs": 2,
    "top_p": 0.30000000000000004,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
}
"""Every parameter of the official client's chat call but the model, each with a value that is easy to spoil."""

COMPLETION: dict[str, Any] = {
    "best_of": 3,
    "echo": True,
    "frequency_penalty": 0.1,
    "logit_bias": {"1734": -100},
    "logprobs": 2,
    "max_tokens": 40,
    "n": 2,
    "presence_penalty": -2,
    "prompt": ["one", "two\u0000"],
    "seed": 2**53 + 1,
    "stop": "###",
    "stream": False,
    "stream_options": None,
    "suffix": "the end",
    "temperature": 0.30000000000000004,
    "top_p": 1e-7,
    "user": "u",
}
EMBEDDING: dict[str, Any] = {
    "dimensions": 8,
    "encoding_format": "float",
    "input": [[1, 2, 3], [4]],
    "user": "u",
}

SAMPLING: dict[Kind, dict[str, Any]] = {
    "vllm": {"top_k": 20, "min_p": 0.05, "guided_choice": ["a"], "ignore_eos": False, "chat_template_kwargs": {"a": 1}},
    "sglang": {"top_k": 20, "regex": "a+", "ebnf": "root ::= 'a'", "separate_reasoning": True},
    "tgi": {"guideline": "be nice", "tool_prompt": "tools:"},
    "openai": {"top_k": 20, "anything_at_all": {"deep": [1, None, 2.5]}},
}
"""Fields that each kind of engine has beyond OpenAI's."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway over one engine of each kind; the models are called as the kinds are."""

    stage: Stage
    fleet: SimFleet

    async def sent(self, kind: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> BookEntry:
        """Send ``body`` to the engine ``kind`` and return what that engine saw of a request that was answered."""
        model = f"{kind}-embedder" if "embeddings" in path else kind
        response = await self.stage.http.post(
            self.stage.url + path, json={"model": model} | body, headers=self.stage.headers
        )
        assert response.status_code == 200, response.text
        return self.fleet[kind].books[-1]


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Each engine asks for a key of its own."""
    monkeypatch.setenv("ENGINE_KEY", "sk-of-the-engine")
    configs = [SimConfig(kind, ("Up/Chat", "Up/Embed"), kind, api_key="sk-of-the-engine") for kind in KINDS]
    async with SimFleet(configs) as fleet:
        backends = [Backend(kind, fleet[kind].url, kind, more='api_key: "${ENGINE_KEY}"') for kind in KINDS]
        price = f'context_length: 40960, max_output: {LONGEST}, price: {{prompt: "0.10", completion: "0.30"}}'
        models = [
            f"  - {{id: {kind}, {price}, capabilities: {{vision: true}}, "
            f"endpoints: [{{backend: {kind}, model: Up/Chat}}]}}"
            for kind in KINDS
        ] + [
            f"  - {{id: {kind}-embedder, {price}, capabilities: {{embeddings: true}}, "
            f"endpoints: [{{backend: {kind}, model: Up/Embed}}]}}"
            for kind in KINDS
            if kind != "tgi"
        ]
        async with staged(tmp_path, configuration(backends, models="\n".join(models))) as stage:
            yield Scene(stage, fleet)


def test_the_bodies_here_are_complete() -> None:
    """A parameter that a newer official client has must be added here, and so to the rules it has to pass."""
    chat = chat_create_params.CompletionCreateParamsBase.__annotations__
    completion = completion_create_params.CompletionCreateParamsBase.__annotations__
    embedding = embedding_create_params.EmbeddingCreateParams.__annotations__
    assert set(CHAT) == chat.keys() - {"model"} | {"stream"}
    assert set(COMPLETION) == completion.keys() - {"model"} | {"stream"}
    assert set(EMBEDDING) == embedding.keys() - {"model"}


async def test_every_chat_parameter_reaches_the_engine(scene: Scene) -> None:
    """All arrive with their exact values; model, stream and the one limit are set by the gateway."""
    for kind in KINDS:
        body = copy.deepcopy(CHAT)
        expected = {**body, "model": "Up/Chat"}
        for name in (*LENGTH_FIELDS, "stream_options"):
            expected.pop(name, None)
        if kind in {"vllm", "sglang", "llamacpp"}:  # an effort is said to the model's template, too
            expected["chat_template_kwargs"] = {"enable_thinking": True, "thinking": True}
        expected["max_completion_tokens" if kind == "openai" else "max_tokens"] = 50
        if kind == "tgi":
            del body["n"], expected["n"]
        entry = await scene.sent(kind, body)
        assert entry.body == expected, kind
        assert not entry.stream


async def test_every_completion_parameter_reaches_the_engine(scene: Scene) -> None:
    """As for chat; ``best_of`` alone is left out, as it makes tokens that nobody sees."""
    for kind in KINDS:
        body = copy.deepcopy(COMPLETION)
        if kind == "tgi":
            del body["n"]
        expected = {**body, "model": "Up/Chat"}
        del expected["best_of"], expected["stream_options"]
        entry = await scene.sent(kind, body, "/v1/completions")
        assert entry.body == expected, kind


async def test_every_embedding_parameter_reaches_the_engine(scene: Scene) -> None:
    """All of them, and of a chat's fields none."""
    for kind in ("vllm", "sglang", "openai"):
        more = {"stream": False, "max_tokens": 5, "temperature": 1}
        entry = await scene.sent(kind, EMBEDDING | more, "/v1/embeddings")
        passed = {"temperature": 1} if kind == "openai" else {}
        assert entry.body == EMBEDDING | passed | {"model": "Up/Embed"}, kind


async def test_a_stream_always_asks_for_usage(scene: Scene) -> None:
    """Whatever the caller's options are, the engine is asked for usage, on every chunk where it can give that."""
    for kind in KINDS:
        for options in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": None}):
            entry = await scene.sent(kind, {"messages": CHAT["messages"], "stream": True, **options})
            assert isinstance(entry.body, dict)
            asked = {"include_usage": True}
            if kind in {"vllm", "sglang"}:
                asked["continuous_usage_stats"] = True
            assert (entry.stream, entry.body["stream_options"]) == (True, asked), kind


async def test_one_clamped_limit_under_one_name(scene: Scene) -> None:
    """However a caller spells its limit, the engine gets it once, cut to the model's longest answer, and keeps it."""
    for kind in KINDS:
        for alias in LENGTH_FIELDS:
            for wanted in (LONGEST - 54, LONGEST * 100):
                entry = await scene.sent(kind, {"messages": CHAT["messages"], alias: wanted})
                assert isinstance(entry.body, dict)
                limits = {name: value for name, value in entry.body.items() if name in LENGTH_FIELDS}
                name = alias if kind == "openai" and alias == "max_completion_tokens" else "max_tokens"
                assert limits == {name: min(wanted, LONGEST)}, (kind, alias)
                assert entry.completion_tokens == min(wanted, 24)
        for nothing in ({"n_predict": -1}, {"max_tokens": None}, {}):
            entry = await scene.sent(kind, {"messages": CHAT["messages"], **nothing})
            assert isinstance(entry.body, dict)
            assert not entry.body.keys() & set(LENGTH_FIELDS), kind
        entry = await scene.sent(kind, {"prompt": "one", "n_predict": 7}, "/v1/completions")
        assert entry.body == {"model": "Up/Chat", "prompt": "one", "max_tokens": 7, "stream": False}


async def test_an_engines_own_fields_reach_that_engine_alone(scene: Scene) -> None:
    """Each kind gets what it knows and nothing of the others'; an external API gets whatever is not forbidden."""
    everything = {name: value for fields in SAMPLING.values() for name, value in fields.items()}
    for kind in KINDS:
        entry = await scene.sent(kind, {"messages": CHAT["messages"], **everything})
        assert isinstance(entry.body, dict)
        extra = {name: value for name, value in entry.body.items() if name not in {"model", "messages", "stream"}}
        if kind == "openai":
            assert extra == everything
        else:
            assert extra.items() >= SAMPLING[kind].items(), kind
            assert "anything_at_all" not in extra
            assert ("regex" in extra) == (kind == "sglang")
            assert ("guideline" in extra) == (kind == "tgi")


async def test_forbidden_fields_reach_nobody(scene: Scene) -> None:
    """Not by name, not in any operation, not in another spelling; the request is answered without them."""
    sneaky: dict[str, Any] = dict.fromkeys(FORBIDDEN, "http://169.254.169.254/")
    sneaky |= {"API_BASE": "x", "Id_Slot": 3, "best_of": 3}
    # What is addressed to the gateway is checked there; none of it goes on, nor what hides inside.
    sneaky |= {
        "provider": {"options": {"own": {"id_slot": 3, "Api_Base": "http://169.254.169.254/", "messages": [], "n": 9}}},
        "models": ["vllm"],
        "route": "fallback",
        "preset": "balanced",
        "priority": "batch",
        "plugins": [{"id": "web", "enabled": False, "api_base": "http://169.254.169.254/"}],
        "transforms": ["middle-out"],
    }
    for kind in KINDS:
        paths = {"/v1/chat/completions": {"messages": CHAT["messages"]}, "/v1/completions": {"prompt": "a"}}
        if kind != "tgi":
            paths["/v1/embeddings"] = {"input": "a"}
        for path, body in paths.items():
            entry = await scene.sent(kind, body | sneaky, path)
            assert isinstance(entry.body, dict)
            assert entry.body.keys() == body.keys() | {"model"} | ({"stream"} if "embed" not in path else set())
            assert b"169.254" not in entry.raw_body


async def test_neutral_values_that_an_engine_refuses_are_left_out(scene: Scene) -> None:
    """TGI refuses ``top_p: 1``, which means nothing; any other value reaches it."""
    for value, arrives in ((1, False), (1.0, False), (0.5, True)):
        entry = await scene.sent("tgi", {"messages": CHAT["messages"], "top_p": value})
        assert isinstance(entry.body, dict)
        assert ("top_p" in entry.body) is arrives


async def test_more_than_one_choice_is_refused_where_the_engine_has_one(scene: Scene) -> None:
    """TGI gives one choice: chat and text completions that want two are told so; several prompts are no matter."""
    for path, body in (
        ("/v1/chat/completions", {"messages": CHAT["messages"]}),
        ("/v1/completions", {"prompt": "a"}),
    ):
        response = await scene.stage.http.post(
            scene.stage.url + path, json={"model": "tgi", "n": 2, **body}, headers=scene.stage.headers
        )
        assert response.status_code == 404
        assert "more than one choice" in response.json()["error"]["message"]
    await scene.sent("tgi", {"prompt": ["a", "b"], "n": 1}, "/v1/completions")


async def test_the_callers_headers_stay_here(scene: Scene) -> None:
    """An engine gets its own key, the id of the request and what HTTP needs; nothing else the caller sent."""
    more = {
        "x-api-key": scene.stage.key,
        "cookie": "session=1",
        "x-forwarded-for": "192.0.2.1",
        "http-referer": "https://notes.example.org",
        "openai-organization": "org-1",
        "x-anything": "1",
    }
    for kind in KINDS:
        scene.stage.http.headers.update(more)
        entry = await scene.sent(kind, {"messages": CHAT["messages"]})
        headers = entry.headers
        assert headers.keys() == {
            "host", "content-type", "accept", "accept-encoding", "user-agent", "authorization", "x-request-id",
            "content-length",
        }  # fmt: skip
        assert headers["authorization"] == "Bearer sk-of-the-engine"
        assert headers["x-request-id"].startswith("gen-")
        assert headers["accept-encoding"] == "identity"
        assert scene.stage.key.encode() not in entry.raw_body


async def test_the_callers_trace_goes_on(scene: Scene) -> None:
    """An engine gets the caller's W3C trace context and state; a state longer than must be passed on is left out."""
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for state, passed in (("rojo=1,congo=2", "rojo=1,congo=2"), ("r" * 513, None)):
        scene.stage.http.headers.update({"traceparent": parent, "tracestate": state})
        headers = (await scene.sent("vllm", {"messages": CHAT["messages"]})).headers
        assert headers["traceparent"] == parent
        assert headers.get("tracestate") == passed


async def test_a_body_is_sent_as_it_was_understood(scene: Scene) -> None:
    """Escapes, blanks and number spellings of the caller's text do not matter: the engine gets the decoded object."""
    raw = (
        b' {"model":"vllm" , "mess\\u0061ges":[{"role":"user","content":"\\u0041\\ud83d\\ude42\\/"}],\r\n'
        b'"temperature":1.50e0, "seed":-9007199254740993,"stop":[] } '
    )
    response = await scene.stage.http.post(
        f"{scene.stage.url}/v1/chat/completions",
        content=raw,
        headers=scene.stage.headers | {"content-type": "application/json"},
    )
    assert response.status_code == 200, response.text
    assert scene.fleet["vllm"].books[-1].body == {
        "model": "Up/Chat",
        "messages": [{"role": "user", "content": "A🙂/"}],
        "temperature": 1.5,
        "seed": -9007199254740993,
        "stop": [],
        "stream": False,
    }
