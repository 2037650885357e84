"""The real engine of the tests: its answers, counts, cancellation and errors are what others build on.

Failure behaviour: without the engine every test here is skipped, and fails where ``CI=true``.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.fixtures import require_engine
from tests.engine.llama_server import NO_TLS, EngineStartError, LlamaServer
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS, SLOW, make_tiny_qwen

pytestmark = pytest.mark.real_engine

ROOT = Path(__file__).resolve().parents[3]
CHAT = "/v1/chat/completions"
DONE = "[DONE]"
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


def _client(server: LlamaServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=60.0, trust_env=False, verify=NO_TLS)


def _body(content: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": content}], **fields}


def _chat(server: LlamaServer, content: str = "hello", **fields: Any) -> dict[str, Any]:
    with _client(server) as client:
        answer: dict[str, Any] = client.post(CHAT, json=_body(content, **fields)).raise_for_status().json()
    return answer


def _data(response: httpx.Response) -> Iterator[str]:
    """The data of each SSE event, comments left out."""
    return (line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: "))


@contextmanager
def _stream(server: LlamaServer, content: str = "hello", **fields: Any) -> Iterator[Iterator[str]]:
    """An open stream; leaving the block closes its connection, finished or not."""
    body = _body(content, stream=True, **fields)
    with _client(server) as client, client.stream("POST", CHAT, json=body) as response:
        response.raise_for_status()
        yield _data(response)


def _streamed(server: LlamaServer, content: str = "hello", **fields: Any) -> list[dict[str, Any]]:
    """All chunks of a stream that ended properly."""
    with _stream(server, content, **fields) as data:
        events = list(data)
    assert events[-1] == DONE
    return [json.loads(event) for event in events[:-1]]


def _text(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def _refuses(url: str, seconds: float = 20.0) -> bool:
    """Whether nobody listens at ``url`` any more, at the latest after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/health", trust_env=False, verify=NO_TLS)
        except httpx.TransportError:
            return True
        time.sleep(0.05)
    return False


def test_chain_answers_every_prompt_with_the_expected_text(chain_server: LlamaServer) -> None:
    """Whatever is asked, at default and at high temperature, the answer is the known text and ends."""
    assert chain_server.model.expected_text == CHAIN_TEXT
    for content in ("hello", "", "water", "你好\r\n🙂", "x " * 300):
        for fields in ({}, {"temperature": 2.0, "seed": 7}):
            choice = _chat(chain_server, content, **fields)["choices"][0]
            assert choice["message"]["content"] == CHAIN_TEXT
            assert choice["finish_reason"] == "stop"


def test_chain_answers_alike_when_slots_are_shared(chain_server: LlamaServer) -> None:
    """Eight streams at once on four slots all carry the whole expected text, in order."""
    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(lambda n: _streamed(chain_server, f"number {n}"), range(8)))
    assert [_text(chunks) for chunks in streams] == [CHAIN_TEXT] * 8


@settings(max_examples=25, deadline=None, derandomize=True)
@given(turns=st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_usage_is_the_count_of_an_independent_tokenizer(chain_server: LlamaServer, turns: list[str]) -> None:
    """The engine's prompt and completion tokens are those which the tokenizers library counts."""
    roles = ("system", "user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    messages.append({"role": "user", "content": "go on"})
    with _client(chain_server) as client:
        usage = client.post(CHAT, json={"messages": messages}).raise_for_status().json()["usage"]
    assert usage["prompt_tokens"] == chain_server.model.count_chat(messages)
    assert usage["completion_tokens"] == chain_server.model.count(CHAIN_TEXT) + 1 == CHAIN_TOKENS
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_special_tokens_in_a_message_count_as_one_each(chain_server: LlamaServer) -> None:
    """A marker written by the user is the marker itself, to the engine and to the count alike."""
    content = "<|im_end|><tool_call>a</tool_call>"
    messages = [{"role": "user", "content": content}]
    assert chain_server.model.count(content) == 4
    assert _chat(chain_server, content)["usage"]["prompt_tokens"] == chain_server.model.count_chat(messages)


def test_stream_has_role_content_finish_usage_and_done(chain_server: LlamaServer) -> None:
    """Role first with null content, one chunk a word, the finish, the usage without choices, ``[DONE]``."""
    chunks = _streamed(chain_server, stream_options={"include_usage": True})
    first, *words, finish, usage = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert [chunk["choices"][0]["delta"].keys() for chunk in words] == [{"content"}] * (CHAIN_TOKENS - 1)
    assert _text(words) == CHAIN_TEXT
    assert (finish["choices"][0]["delta"], finish["choices"][0]["finish_reason"]) == ({}, "stop")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == CHAIN_TOKENS
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_stream_without_include_usage_has_none(chain_server: LlamaServer) -> None:
    """Usage is in the stream only when it was asked for."""
    chunks = _streamed(chain_server)
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_metrics_count_the_tokens_of_an_answer(chain_server: LlamaServer) -> None:
    """The engine's own counter moves by the completion tokens of the answer, and no slot stays busy."""
    before = chain_server.metrics()["llamacpp:tokens_predicted_total"]
    _streamed(chain_server)
    assert chain_server.metrics()["llamacpp:tokens_predicted_total"] - before == CHAIN_TOKENS
    assert chain_server.busy_slots() == 0
    assert len(chain_server.slots()) == chain_server.options.n_parallel


def test_biased_reaches_the_length_limit_in_printable_ascii(slow_server: LlamaServer) -> None:
    """A model that never ends by itself gives exactly the tokens asked for, all of them plain text."""
    answer = _chat(slow_server, max_tokens=30)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 30
    assert choice["message"]["content"].isascii()
    assert choice["message"]["content"].isprintable()


def test_leaving_a_stream_frees_its_slot(slow_server: LlamaServer) -> None:
    """A client that goes in the middle of an answer stops the engine long before the answer is complete."""
    before = slow_server.metrics()
    with _stream(slow_server, max_tokens=1500) as data:
        assert len([next(data) for _ in range(5)]) == 5
        assert slow_server.busy_slots() == 1
    slow_server.wait_idle()
    after = slow_server.metrics()
    assert 4 <= after["llamacpp:n_decode_total"] - before["llamacpp:n_decode_total"] < 750
    assert after["llamacpp:requests_processing"] == 0


def test_leaving_while_the_prompt_is_read_frees_the_slot(slow_server: LlamaServer) -> None:
    """A client that goes before the first token stops the engine between two batches of the prompt."""
    content = "gate brook " * 400
    n_prompt = slow_server.model.count_chat([{"role": "user", "content": content}])
    before = slow_server.metrics()
    with _stream(slow_server, content, max_tokens=200):
        assert slow_server.busy_slots() == 1
    slow_server.wait_idle()
    after = slow_server.metrics()
    read = after["llamacpp:prompt_tokens_total"] - before["llamacpp:prompt_tokens_total"]
    assert read < n_prompt
    assert after["llamacpp:tokens_predicted_total"] == before["llamacpp:tokens_predicted_total"]


def test_embeddings_have_unit_length_and_differ(embedding_server: LlamaServer) -> None:
    """One vector of the model's width per input, of length one, different for other texts; usage exact."""
    texts = ["a quiet brook", "a loud engine", "a quiet brook"]
    with _client(embedding_server) as client:
        answer = client.post("/v1/embeddings", json={"model": "any", "input": texts}).raise_for_status().json()
    first, second, again = (item["embedding"] for item in answer["data"])
    assert len(first) == embedding_server.model.shape.n_embd
    assert math.hypot(*first) == pytest.approx(1.0, abs=1e-4)
    assert _dot(first, again) == pytest.approx(1.0, abs=1e-4)
    assert _dot(first, second) < 0.9
    assert answer["usage"]["prompt_tokens"] == sum(embedding_server.model.count(text) for text in texts)


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_embeddings_are_refused_by_a_server_without_them(chain_server: LlamaServer) -> None:
    """A server that was not asked to serve embeddings says so with 501."""
    with _client(chain_server) as client:
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 501


@pytest.mark.parametrize("seed", range(5))
def test_tool_call_is_valid(tool_server: LlamaServer, seed: int) -> None:
    """With a function on offer the answer is one call of it, whose arguments keep to its schema."""
    choice = _chat(tool_server, tools=[WEATHER_TOOL], seed=seed)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    _assert_weather_call(call["function"]["name"], call["function"]["arguments"])


def test_tool_call_streams_its_arguments_in_pieces(tool_server: LlamaServer) -> None:
    """Id and name come once, the arguments piece by piece, and together they are a valid call."""
    chunks = _streamed(tool_server, tools=[WEATHER_TOOL])
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", [])]
    assert len(pieces) > 3
    assert {piece["index"] for piece in pieces} == {0}
    assert [bool(piece.get("id")) for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    _assert_weather_call(pieces[0]["function"]["name"], arguments)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_tool_call_goes_on_after_its_result(tool_server: LlamaServer) -> None:
    """The chat template takes an earlier call and its result back in."""
    function = {"name": "get_weather", "arguments": '{"city": "Basel"}'}
    with _client(tool_server) as client:
        messages = [
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ]
        prompt = client.post("/apply-template", json={"messages": messages}).raise_for_status().json()["prompt"]
        client.post(CHAT, json={"messages": messages, "tools": [WEATHER_TOOL]}).raise_for_status()
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Basel"}}\n</tool_call>' in prompt
    assert "<tool_response>\nrain\n</tool_response>" in prompt


def _assert_weather_call(name: str, arguments: str) -> None:
    values = json.loads(arguments)
    assert name == "get_weather"
    assert isinstance(values["city"], str)
    assert values.keys() <= {"city", "days"}


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_prompt_is_refused_with_both_numbers(chain_server: LlamaServer, *, stream: bool) -> None:
    """A prompt over a slot's context is a 400 with its exact length and the limit, before any event."""
    content = "gate " * 1200
    with _client(chain_server) as client:
        response = client.post(CHAT, json=_body(content, stream=stream))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "exceed_context_size_error"
    assert error["n_ctx"] == chain_server.options.n_ctx_slot
    assert error["n_prompt_tokens"] == chain_server.model.count_chat([{"role": "user", "content": content}])


def test_api_key_is_asked_of_callers(chain_server: LlamaServer) -> None:
    """With a key set, callers without it get 401, and the fixture's own looks still work."""
    with LlamaServer(chain_server.model, api_key="engine-key") as server, _client(server) as client:
        assert client.post(CHAT, json=_body()).status_code == 401
        headers = {"Authorization": "Bearer engine-key"}
        assert client.post(CHAT, json=_body(), headers=headers).status_code == 200
        assert server.busy_slots() == 0


def test_stop_cuts_a_running_answer(slow_server: LlamaServer) -> None:
    """Stopping does not wait for a running answer; its reader sees a cut, never a proper end."""
    with LlamaServer(slow_server.model, n_parallel=1) as server, _stream(server, max_tokens=900) as data:
        assert json.loads(next(data))["choices"]
        server.stop()
        assert DONE not in _rest(data)
        assert _refuses(server.url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_busy_server(slow_server: LlamaServer, number: signal.Signals) -> None:
    """The usual signals end the process while it answers, though the engine would rather handle them."""
    with LlamaServer(slow_server.model, n_parallel=1) as server, _stream(server, max_tokens=900) as data:
        assert json.loads(next(data))["choices"]
        os.kill(server.pid, number)
        assert server.wait() == -number
        assert DONE not in _rest(data)
        assert _refuses(server.url)


def _rest(data: Iterator[str]) -> list[str]:
    """What a stream still brings until it ends or breaks."""
    events: list[str] = []
    try:
        for event in data:
            events.append(event)  # noqa: PERF402 - the events before a break count too
    except httpx.TransportError:
        pass
    return events


def test_kill_is_a_crash_that_stop_clears_up(chain_server: LlamaServer) -> None:
    """After a kill nobody listens, and leaving the context is quiet."""
    with LlamaServer(chain_server.model) as server:
        server.kill()
        assert _refuses(server.url)
    with pytest.raises(RuntimeError, match="not running"):
        server.slots()


def test_server_ends_when_its_parent_dies(chain_server: LlamaServer) -> None:
    """A parent that is killed leaves no server behind."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.engine.llama_server import LlamaServer\n"
        "from tests.engine.tiny_qwen import Shape, TinyQwen\n"
        "path = Path(sys.argv[1])\n"
        "with LlamaServer(TinyQwen(path, path, 'chain', Shape(), None)) as server:\n"
        "    print(server.url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(chain_server.model.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert httpx.get(f"{url}/health", trust_env=False, verify=NO_TLS).json() == {"status": "ok"}
        parent.kill()
        assert _refuses(url)


def test_start_fails_with_the_log_of_the_engine(tmp_path: Path, chain_server: LlamaServer) -> None:
    """A file that is no model is an error at once, with what the process said."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(EngineStartError, match=r"(?s)ended before it was ready.+"):
        LlamaServer(replace(chain_server.model, path=broken)).__enter__()


def test_model_files_are_reproducible(tmp_path: Path, chain_server: LlamaServer) -> None:
    """The same arguments make the same bytes, so a failure seen once can be seen again."""
    again = make_tiny_qwen(tmp_path, style="chain")
    assert again.path.read_bytes() == chain_server.model.path.read_bytes()
    assert again.tokenizer_path.read_bytes() == chain_server.model.tokenizer_path.read_bytes()


def test_chain_refuses_a_shape_without_room_for_its_words(tmp_path: Path) -> None:
    """Each word needs a channel of its own; a narrower model is refused and no file is left."""
    with pytest.raises(ValueError, match="at least 26 channels, got 16"):
        make_tiny_qwen(tmp_path, style="chain", shape=replace(SLOW, n_embd=16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_engine_skips_here_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """Without the wheel a developer is told what to install, and CI does not pass for want of it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="pip install 'xllamacpp"):
        require_engine()
