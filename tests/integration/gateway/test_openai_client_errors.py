"""Errors reach callers of the official ``openai`` client as the classes it has for them, with the facts that help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from gateway.sim import Fault, Kind, SimConfig, SimServer, Timing
from tests.harness import ADMIN_KEY, Backend, Stage, configuration, staged

MODEL = "qwen/qwen3-32b"
QUESTION: list[Any] = [{"role": "user", "content": "Tell me about weirs."}]
RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway over one simulated engine with a context of 500 tokens."""

    stage: Stage
    sim: SimServer

    async def ask(self, key: str | None = None, **more: Any) -> Any:
        """Ask with the official client; ``more`` changes the request."""
        request: dict[str, Any] = {"model": MODEL, "messages": QUESTION} | more
        return await self.stage.openai(key).chat.completions.create(**request)

    def answered(self) -> int:
        """Return how many requests the engine saw."""
        return len(self.sim.books)


@pytest.fixture
def kind() -> Kind:
    """Return the engine of the scene; a test may ask for others."""
    return "vllm"


@pytest.fixture
async def scene(tmp_path: Path, kind: Kind) -> AsyncIterator[Scene]:
    """Two models on one engine, of which a key may be allowed one."""
    config = SimConfig(kind, ("Qwen/Qwen3-32B",), "gpu-a", context_length=500, timing=Timing(itl=0.004))
    async with SimServer(config) as sim:
        models = "".join(
            f'  - {{id: {name}, context_length: 40960, price: {{prompt: "0.10", completion: "0.30"}}, '
            f"endpoints: [{{backend: gpu-a, model: Qwen/Qwen3-32B}}]}}\n"
            for name in (MODEL, "qwen/qwen3-8b")
        )
        async with staged(tmp_path, configuration([Backend("gpu-a", sim.url, kind)], models=models)) as stage:
            yield Scene(stage, sim)


def facts(error: openai.APIError) -> dict[str, Any]:
    """Return the metadata of an error, which has OpenAI's members besides."""
    body = error.body
    assert isinstance(body, dict)
    assert body["message"] == error.message or body["message"] in error.message
    assert isinstance(body["code"], int)
    if isinstance(error, openai.APIStatusError):
        assert body["code"] == error.status_code
        assert error.request_id is not None
        assert error.request_id.startswith("gen-")
        assert error.response.json()["request_id"] == error.request_id
    metadata: dict[str, Any] = body["metadata"]
    return metadata


async def test_a_key_nobody_has_is_an_authentication_error(scene: Scene) -> None:
    """Every unknown key gets the same words, and the engine hears nothing."""
    words = set()
    for key in ("sk-weir-aaaaaaaa-" + "0" * 40, scene.stage.key[:-1] + "x", "sk-proj-somebody-elses", "x"):
        with pytest.raises(openai.AuthenticationError) as caught:
            await scene.ask(key)
        words.add(caught.value.message)
        assert facts(caught.value)["error_type"] == "authentication"
        assert caught.value.response.headers["www-authenticate"] == "Bearer"
        with pytest.raises(openai.AuthenticationError):
            await scene.stage.openai(key).models.list()
    assert len(words) == 1
    assert scene.answered() == 0


async def test_a_revoked_key_is_an_authentication_error(scene: Scene) -> None:
    """A key works until it is revoked and not once after."""
    issued = await scene.stage.new_key()
    await scene.ask(issued.key)
    await scene.stage.keeper.revoke_key(issued.record.key_id)
    with pytest.raises(openai.AuthenticationError):
        await scene.ask(issued.key)
    assert scene.answered() == 1


async def test_a_management_key_cannot_run_inference(scene: Scene) -> None:
    """It is told so, as a permission and not as a wrong key."""
    with pytest.raises(openai.PermissionDeniedError, match="management keys cannot run inference") as caught:
        await scene.ask(ADMIN_KEY)
    assert facts(caught.value)["error_type"] == "permission_denied"
    assert scene.answered() == 0


async def test_a_model_the_key_may_not_use_is_denied(scene: Scene) -> None:
    """The key sees and uses the models it was made for, and no other."""
    issued = await scene.stage.new_key(models=["qwen/qwen3-8b"])
    client = scene.stage.openai(issued.key)
    assert [model.id async for model in client.models.list()] == ["qwen/qwen3-8b"]
    assert (await scene.ask(issued.key, model="qwen/qwen3-8b")).model == "qwen/qwen3-8b"
    with pytest.raises(openai.PermissionDeniedError, match=MODEL) as caught:
        await scene.ask(issued.key)
    assert facts(caught.value)["error_type"] == "permission_denied"
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve(MODEL)
    assert scene.answered() == 1


async def test_an_unknown_model_is_not_found_with_the_near_names(scene: Scene) -> None:
    """The message says which names were perhaps meant; for embeddings and the catalogue it is 404 too."""
    for name, near in (("qwen/qwen3-32", MODEL), ("Qwen3-8B", "qwen/qwen3-8b"), ("gpt-9", "")):
        with pytest.raises(openai.NotFoundError) as caught:
            await scene.ask(model=name)
        assert name in caught.value.message
        assert (f"did you mean {near}" in caught.value.message) == bool(near)
        assert facts(caught.value)["near"][:1] == ([near] if near else [])
        assert facts(caught.value)["error_type"] == "not_found"
        with pytest.raises(openai.NotFoundError):
            await scene.stage.openai().embeddings.create(model=name, input="a")
        with pytest.raises(openai.NotFoundError):
            await scene.stage.openai().models.retrieve(name)
    assert scene.answered() == 0


async def test_what_a_model_cannot_do_is_not_found(scene: Scene) -> None:
    """A request that no endpoint of the model supports is refused here, with the reason, before any engine sees it."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(openai.NotFoundError, match="image input"):
        await scene.ask(messages=[{"role": "user", "content": [picture]}])
    with pytest.raises(openai.NotFoundError, match="embeddings"):
        await scene.stage.openai().embeddings.create(model=MODEL, input="a")
    assert scene.answered() == 0


async def test_a_wrong_type_is_a_bad_request_naming_the_field(scene: Scene) -> None:
    """Said here, in words, with the field; no engine is troubled."""
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"temperature": "hot"}, "expected `float | null`, got `str`", "temperature"),
        ({"messages": []}, "length >= 1", "messages"),
        ({"messages": [{"content": "who am I?"}]}, "missing required field `role`", "messages[0]"),
        ({"n": 0}, "`int` >= 1", "n"),
        ({"max_tokens": -1}, "`int` >= 1", "max_tokens"),
        ({"stop": 7}, "stop", "stop"),
        ({"tools": "all"}, "expected `array | null`", "tools"),
    ]
    for more, words, param in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            await scene.ask(**more)
        assert words in caught.value.message
        assert caught.value.param == param
        assert caught.value.type == "invalid_request_error"
        assert facts(caught.value)["error_type"] == "invalid_request"
    assert scene.answered() == 0


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_over_the_context_is_a_bad_request_with_the_engines_numbers(
    scene: Scene, kind: Kind, *, stream: bool
) -> None:
    """The engine refuses and says why in its own numbers; nobody else is asked, nobody pays."""
    with pytest.raises(openai.BadRequestError) as caught:
        await scene.ask(messages=[{"role": "user", "content": "water " * 600}], stream=stream)
    metadata = facts(caught.value)
    assert metadata["error_type"] == "context_length_exceeded"
    assert {500, 604} <= set(metadata["raw"]["numbers"])
    assert "604" in caught.value.message
    assert scene.answered() == 1
    (record,) = await scene.stage.settled()
    assert [(a.status, a.charge_nano, a.usage.total) for a in record.attempts] == [("refused", 0, 0)]


@pytest.mark.parametrize("kind", ["tgi"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_too_long_is_a_bad_request_whatever_the_engine_calls_it(
    scene: Scene, kind: Kind, *, stream: bool
) -> None:
    """TGI refuses it with 422, in a stream inside a 200; the caller gets OpenAI's 400 either way, once."""
    with pytest.raises(openai.BadRequestError, match="`inputs` must have less than 499 tokens") as caught:
        await scene.ask(messages=[{"role": "user", "content": "water " * 600}], stream=stream)
    metadata = facts(caught.value)
    assert metadata["error_type"] == "context_length_exceeded"
    assert metadata["raw"]["numbers"] == [499, 604]
    assert scene.answered() == 1


async def test_a_refusal_of_the_request_itself_passes_through(scene: Scene) -> None:
    """An engine's 400 keeps its words and its field, and is not tried elsewhere."""
    choice = {"type": "function", "function": {"name": "nowhere"}}
    tool = {"type": "function", "function": {"name": "here", "parameters": {}}}
    with pytest.raises(openai.BadRequestError, match="'nowhere', which is not among the tools") as caught:
        await scene.ask(tools=[tool], tool_choice=choice)
    assert caught.value.param == "tool_choice"
    assert facts(caught.value)["provider_name"] == "own"
    assert scene.answered() == 1


@pytest.mark.parametrize(("limits", "word"), [({"rpm": 1}, "requests"), ({"tpm": 60}, "tokens")])
async def test_a_key_over_its_limit_is_a_rate_limit_error(scene: Scene, limits: dict[str, Any], word: str) -> None:
    """The second request is told which limit it was and when there is room again."""
    issued = await scene.stage.new_key(**limits)
    await scene.ask(issued.key, max_tokens=40)
    with pytest.raises(openai.RateLimitError, match=word) as caught:
        await scene.ask(issued.key, max_tokens=40)
    headers = caught.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60
    assert facts(caught.value)["error_type"] == "rate_limit_exceeded"
    assert scene.answered() == 1
    told = facts(caught.value)["headers"]
    assert told == {name: headers[name] for name in RATE_LIMIT}
    assert int(told["X-RateLimit-Limit"]) == next(iter(limits.values())) > int(told["X-RateLimit-Remaining"])
    assert 0 < int(told["X-RateLimit-Reset"]) / 1000 - time.time() <= 60


async def test_only_so_many_requests_of_a_key_at_once(scene: Scene) -> None:
    """While one stream runs the next request is over the limit; once it is read to its end there is room."""
    issued = await scene.stage.new_key(concurrent=1)
    scene.sim.faults.arm(Fault(kind="stall", count=1, after_chunks=2))
    stream = await scene.ask(issued.key, stream=True)
    assert (await anext(stream)).choices
    with pytest.raises(openai.RateLimitError) as caught:
        await scene.ask(issued.key)
    headers = caught.value.response.headers
    assert [headers.get(name) for name in RATE_LIMIT] == ["1", "0", None], "nobody knows when the other one ends"
    await stream.close()
    async with asyncio.timeout(20):
        while True:
            try:
                await scene.ask(issued.key)
            except openai.RateLimitError:
                await asyncio.sleep(0.02)
            else:
                break


async def test_an_engine_that_fails_is_an_internal_server_error(scene: Scene) -> None:
    """A 500 of the only engine becomes a 502 that names the provider and each try, never the engine's insides."""
    scene.sim.faults.arm(Fault(kind="error_status", status=500, body="<html>Traceback at 10.0.0.7</html>"))
    with pytest.raises(openai.InternalServerError) as caught:
        await scene.ask()
    assert caught.value.status_code == 502
    assert facts(caught.value)["attempts"] == [{"provider": "own", "cause": "error", "status": 500}]
    assert "10.0.0.7" not in caught.value.response.text


async def test_an_engine_that_is_full_is_unavailable_for_as_long_as_it_says(scene: Scene) -> None:
    """Its wish for a pause becomes the caller's ``retry-after``."""
    headers = {"retry-after": "7"}
    scene.sim.faults.arm(Fault(kind="error_status", status=503, headers=headers))
    with pytest.raises(openai.InternalServerError) as caught:
        await scene.ask()
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "7"
    assert facts(caught.value)["error_type"] == "provider_unavailable"


@pytest.mark.parametrize(
    "fault", [Fault(kind="error_in_200", after_chunks=5), Fault(kind="cut_mid_stream", after_chunks=5)]
)
async def test_a_stream_that_breaks_is_an_api_error_after_its_text(scene: Scene, fault: Fault) -> None:
    """What came before the break is kept; then the client raises, and does not mistake the end for success."""
    expected = (await scene.ask()).choices[0].message.content
    scene.sim.faults.arm(fault)

    def read() -> tuple[str, openai.APIError]:
        chunks: list[ChatCompletionChunk] = []
        with OpenAI(api_key=scene.stage.key, base_url=scene.stage.url + "/v1", max_retries=0) as client:
            stream = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
            with pytest.raises(openai.APIError) as caught:
                chunks.extend(stream)  # keeps what came before the error
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), caught.value

    text, error = await asyncio.to_thread(read)
    assert text
    assert expected.startswith(text)
    assert text != expected
    assert not isinstance(error, openai.APIConnectionError | openai.APIStatusError)
    assert facts(error)["error_type"] == "provider_unavailable"


async def test_the_client_retries_by_itself_what_may_pass(scene: Scene) -> None:
    """The client's own retries work with the gateway's answers: full once, then an answer."""
    scene.sim.faults.arm(Fault(kind="error_status", status=503, count=1, headers={"retry-after": "1"}))
    client: AsyncOpenAI = scene.stage.openai(retries=2)
    answer = await client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert answer.choices[0].finish_reason == "stop"
    assert scene.answered() == 2
