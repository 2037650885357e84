"""One caller takes no backend away from the others: what it alone provokes is told to it, and ejects nobody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway.fleet.health import FAILURES
from gateway.sim import Fault, SimConfig, SimFleet, Timing
from gateway.upstream.budget import FLOOR
from tests.engine.llama_server import LlamaServer
from tests.fakes.backend import DONE, SSE_HEAD, HandBackend, Visit, chunk, event, hand_backend, whole
from tests.fakes.pair import DEAR
from tests.fakes.raw_client import events
from tests.harness import Backend, Stage, configuration, staged

MODEL: Final = "Qwen/Qwen3-32B"
CHEAP: Final = 'cost: {prompt: "0.001", completion: "0.001"}'
BAD: Final = "say what no backend takes"
FLAGGED: Final[dict[str, Any]] = {
    "error": {
        "code": 403,
        "message": 'a/b requires moderation on OpenRouter. Your input was flagged for "violence".',
        "metadata": {"reasons": ["violence"], "flagged_input": "say what", "provider_name": "X", "model_slug": "a/b"},
    }
}
UNSAFE: Final = {
    "code": "The caller does not have permission to execute the specified operation",
    "error": "Content violates usage guidelines. Team: t-1, API key ID: k-2, Failed check: SAFETY_CHECK_TYPE_BIO",
}
INSPECTED: Final = {
    "error": {
        "code": "data_inspection_failed",
        "message": "Output data may contain inappropriate content.",
        "type": "data_inspection_failed",
    }
}
TOO_MUCH: Final = {
    "error": {
        "message": "Request too large for gpt-4o in organization org-a1 on tokens per min (TPM): Limit 30000, "
        "Requested 40000. The input or output tokens must be reduced in order to run successfully.",
        "type": "tokens",
        "code": "rate_limit_exceeded",
    }
}
TOO_DEAR: Final = {
    "error": {
        "message": "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can "
        "only afford 30104. To increase, visit https://openrouter.ai/settings/credits",
        "code": 402,
    }
}
ARGUMENTS: Final = {
    "error": {
        "code": 500,
        "message": "Failed to parse tool call arguments as JSON: [json.exception.parse_error.101] parse error",
        "type": "server_error",
    }
}
NO_TOOLS: Final = {"error": {"message": "No endpoints found that support tool use.", "code": 404}}
TOO_LONG: Final = "Input validation error: `inputs` must have less than 10 tokens. Given: 20"
IN_STREAM: Final = "200 OK"


def said_of(visit: Visit) -> bool:
    """Whether the request is the bad one."""
    return BAD.encode() in visit.body


async def well(visit: Visit) -> None:
    """Answer a request that is in order."""
    if visit.document.get("stream"):
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk("hello")), event(chunk(finish="stop")), DONE, last=True)
    else:
        await visit.answer(whole())


def refusing(status: str, document: object, more: str = "") -> Any:
    """Return a script that answers everything but the bad request."""

    async def script(visit: Visit) -> None:
        if not said_of(visit):
            await well(visit)
        elif status == IN_STREAM:
            await visit.send(SSE_HEAD)
            await visit.events(event(document), last=True)
        else:
            await visit.answer(document, status, more)

    return script


async def bad(stage: Stage, **more: Any) -> httpx.Response:
    """Send the bad request."""
    return await stage.chat(messages=[{"role": "user", "content": BAD}], **more)


CASES: Final = {
    "flagged": ("openai", "403 Forbidden", FLAGGED, 403, "content_policy_violation"),
    "unsafe": ("openai", "403 Forbidden", UNSAFE, 403, "content_policy_violation"),
    "inspected": ("openai", "500 Internal Server Error", INSPECTED, 403, "content_policy_violation"),
    "inspected in a stream": ("openai", IN_STREAM, INSPECTED, 403, "content_policy_violation"),
    "bad in a stream": (
        "openai",
        IN_STREAM,
        {"error": {"message": "bad schema", "type": "invalid_request_error", "code": None}},
        400,
        "invalid_request",
    ),
    "too long in a stream": (
        "openai",
        IN_STREAM,
        {
            "error": {
                "message": "This model's maximum context length is 10 tokens.",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
        400,
        "context_length_exceeded",
    ),
    "too long for TGI": ("tgi", IN_STREAM, {"error": TOO_LONG, "error_type": "validation"}, 400, None),
    "too much for a minute": ("openai", "429 Too Many Requests", TOO_MUCH, 413, "token_limit_exceeded"),
    "more than is left": ("openai", "402 Payment Required", TOO_DEAR, 413, "token_limit_exceeded"),
    "no tools": ("openai", "404 Not Found", NO_TOOLS, 404, "not_found"),
    "arguments": ("llamacpp", "500 Internal Server Error", ARGUMENTS, 400, "invalid_request"),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_is_wrong_with_a_request_is_its_callers_matter(name: str, tmp_path: Path) -> None:
    """It is told so, as often as it asks, and the backend goes on to answer everybody else."""
    kind, status, document, told, kind_told = CASES[name]
    async with (
        hand_backend(refusing(status, document)) as api,
        staged(tmp_path, configuration([Backend("api", api.url, kind)])) as stage,
    ):
        for _ in range(FAILURES):
            answer = await bad(stage, stream=status == IN_STREAM)
            assert answer.status_code == told, answer.text
            assert answer.json()["error"]["metadata"]["error_type"] == (kind_told or "context_length_exceeded")
        load = stage.gateway.registry.fleet.replicas["api"].load
        assert (load.failures, load.ejected_until, load.cooling_until) == (0, 0.0, 0.0)
        assert (await stage.chat()).status_code == 200
    assert len(api.visits) == FAILURES + 1


async def test_a_caller_is_told_what_it_was_flagged_for_but_not_whose_key_it_was(tmp_path: Path) -> None:
    """The words go along unless they name the owner's team or key."""
    async with (
        hand_backend(refusing("403 Forbidden", FLAGGED)) as api,
        staged(tmp_path, configuration([Backend("api", api.url, "openai")])) as stage,
    ):
        flagged = (await bad(stage)).json()["error"]
        api.script = refusing("403 Forbidden", UNSAFE)
        unsafe = (await bad(stage)).json()["error"]
    assert flagged["message"] == FLAGGED["error"]["message"]
    assert flagged["metadata"]["reasons"] == ["violence"]
    assert unsafe["message"] == "the backend's moderation refused the request"
    assert "k-2" not in str(unsafe)


@pytest.mark.parametrize(
    ("status", "document"),
    [
        ("401 Unauthorized", FLAGGED),
        ("403 Forbidden", {"error": {"code": 403, "message": "Key limit exceeded (total limit)."}}),
        ("403 Forbidden", {"error": {"message": "Your account was flagged for violating the usage policy."}}),
        ("403 Forbidden", {"error": {"metadata": {"reasons": [], "patterns": None}}}),
        ("403 Forbidden", {"error": {"message": "Your account has been suspended for violating our content policy."}}),
        ("403 Forbidden", {"error": {"message": "Organization must accept the content policy to use this model."}}),
        ("404 Not Found", {"detail": "Not Found"}),
        ("500 Internal Server Error", {"error": {"message": "CUDA error", "type": "server_error"}}),
        (IN_STREAM, {"error": {"message": "no such key", "type": "invalid_request_error", "code": "invalid_api_key"}}),
        (IN_STREAM, {"error": {"message": "over", "type": "invalid_request_error", "code": "account_deactivated"}}),
        (IN_STREAM, {"error": {"message": "out of memory"}}),
    ],
)
@pytest.mark.parametrize("profile", ["none", "openrouter"])
async def test_what_is_wrong_with_the_gateways_standing_is_not(
    status: str, document: object, profile: str, tmp_path: Path
) -> None:
    """A key that does not hold, an empty account, an address without an API, an engine that broke: it is spared."""
    async with hand_backend(refusing(status, document)) as api:
        backend = Backend("api", api.url, "openai", more=f"profile: {profile}")
        async with staged(tmp_path, configuration([backend])) as stage:
            for _ in range(FAILURES):
                assert (await bad(stage, stream=status == IN_STREAM)).status_code == 502
            assert stage.gateway.registry.fleet.replicas["api"].load.ejected_until > 0
            assert (await stage.chat()).status_code == 503


async def test_text_completions_that_an_api_does_not_have_are_missing_and_no_more(tmp_path: Path) -> None:
    """No configuration says which models complete texts: whoever tries leaves chats as they are."""
    words = "This is a chat model and not supported in the v1/completions endpoint."

    async def script(visit: Visit) -> None:
        if visit.path.endswith("/chat/completions"):
            await well(visit)
        else:
            await visit.answer({"error": {"message": words, "param": "model"}}, "404 Not Found")

    async with (
        hand_backend(script) as api,
        staged(tmp_path, configuration([Backend("api", api.url, "openai")])) as stage,
    ):
        request = {"model": "qwen/qwen3-32b", "prompt": "A weir is"}
        for _ in range(FAILURES):
            url = f"{stage.url}/v1/completions"
            answer = await stage.http.post(url, json=request, headers=stage.headers)
            assert (answer.status_code, answer.json()["error"]["message"]) == (404, words)
        assert (await stage.chat()).status_code == 200


RANKER: Final = """
  - id: qwen/ranker
    context_length: 40960
    price: {prompt: "0.10", completion: "0.30"}
    operations: [rerank]
    endpoints: [{backend: api, model: m}]
"""


@pytest.mark.parametrize("status", ["404 Not Found", "501 Not Implemented"])
async def test_reranking_that_a_backend_does_not_have_leaves_its_chats(status: str, tmp_path: Path) -> None:
    """The owner has promised too much: it is not the caller's fault, nor a sign that the backend is ill."""

    async def script(visit: Visit) -> None:
        if visit.path.endswith("/rerank"):
            await visit.answer({"detail": "Not Found"}, status)
        else:
            await well(visit)

    async with hand_backend(script) as api:
        plain = configuration([Backend("api", api.url, "llamacpp")])
        async with staged(tmp_path, plain.replace("\negress", f"{RANKER}egress", 1)) as stage:
            request = {"model": "qwen/ranker", "query": "A weir", "documents": ["a", "b"]}
            for _ in range(FAILURES):
                answer = await stage.http.post(f"{stage.url}/v1/rerank", json=request, headers=stage.headers)
                assert answer.status_code == 502, answer.text
            assert (await stage.chat(stream=True)).status_code == 200


async def test_a_model_that_is_gone_is_no_lack_of_text_completions(tmp_path: Path) -> None:
    """A replica that serves another model fails for all that it is asked, and the next one of the provider answers."""
    words = {"object": "error", "message": f"The model `{MODEL}` does not exist.", "type": "NotFoundError", "code": 404}

    async def gone(visit: Visit) -> None:
        await visit.answer(words, "404 Not Found")

    async def there(visit: Visit) -> None:
        await visit.answer(whole() | {"choices": [{"index": 0, "text": "hello", "finish_reason": "stop"}]})

    async with hand_backend(gone) as first, hand_backend(there) as second:
        backends = [
            Backend("first", first.url, endpoint='cost: {prompt: "0.001", completion: "0.001"}'),
            Backend("second", second.url, endpoint=DEAR),
        ]
        async with staged(tmp_path, configuration(backends, more="routing: {default: cheapest}")) as stage:
            for _ in range(FAILURES + 1):
                request = {"model": "qwen/qwen3-32b", "prompt": "A weir is"}
                answer = await stage.http.post(f"{stage.url}/v1/completions", json=request, headers=stage.headers)
                assert answer.status_code == 200, answer.text
            assert len(first.visits) == FAILURES
            assert stage.gateway.registry.fleet.replicas["first"].load.ejected_until == 0


def beginning(document: object, *deltas: dict[str, Any]) -> Any:
    """Return a script that begins every answer with ``deltas``, each in a read of its own, and then errs."""

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        for delta in deltas:
            begun = chunk()
            begun["choices"][0]["delta"] = delta
            await visit.events(event(begun))
            await asyncio.sleep(0.05)
        await visit.events(event(document), last=True)

    return script


ROLE: Final = {"role": "assistant", "content": ""}
BEGUN: Final = {
    "bad": (CASES["bad in a stream"][2], [ROLE], 400, "invalid_request"),
    "too long": (CASES["too long in a stream"][2], [ROLE], 400, "context_length_exceeded"),
    "flagged": (INSPECTED, [ROLE], 403, "content_policy_violation"),
    "flagged in its answer": (INSPECTED, [ROLE, {"content": "I"}], 403, "content_policy_violation"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", BEGUN)
async def test_a_refusal_behind_the_beginning_of_an_answer_is_one(name: str, stream: bool, tmp_path: Path) -> None:
    """Many APIs name the role before they look at the request, and some judge what their model says."""
    document, deltas, told, kind = BEGUN[name]
    more = "on_disconnect: count"  # whole answers are streamed inside
    async with hand_backend(beginning(document, *deltas)) as first, hand_backend(well) as second:
        backends = [
            Backend(each, url, "openai", MODEL, "one", more, price)
            for each, url, price in (("first", first.url, CHEAP), ("second", second.url, DEAR))
        ]
        async with staged(tmp_path, configuration(backends, more="routing: {default: cheapest}")) as stage:
            answer = await stage.chat(stream=stream)
            assert answer.status_code == (200 if stream else told), answer.text
            error = (events(answer.content)[-1] if stream else answer.json())["error"]
            assert (error["code"], error["metadata"]["error_type"]) == (told, kind)
            assert stage.gateway.registry.fleet.replicas["first"].load.failures == 0
            assert (await stage.settled())[0].attempts[-1].charge_nano == 0
            assert (await stage.keeper.audit()).ok
    assert not second.visits  # the same provider would say the same


async def test_a_response_that_moderation_ends_is_not_to_be_asked_for_again(tmp_path: Path) -> None:
    """Clients of the Responses form ask once more after a ``server_error``."""
    document, deltas, _, _ = BEGUN["flagged in its answer"]
    async with (
        hand_backend(beginning(document, *deltas)) as api,
        staged(tmp_path, configuration([Backend("api", api.url, "openai")])) as stage,
    ):
        request = {"model": "qwen/qwen3-32b", "input": BAD, "stream": True}
        answer = await stage.http.post(f"{stage.url}/v1/responses", json=request, headers=stage.headers)
    failed = json.loads(answer.text.rstrip().rpartition("data: ")[2])
    assert (failed["type"], failed["response"]["error"]["code"]) == ("response.failed", "invalid_prompt")


def two_of(providers: tuple[str, str], first: HandBackend, second: HandBackend) -> str:
    """Return a configuration in which ``first`` is asked first."""
    backends = [
        Backend("first", first.url, "openai", MODEL, providers[0], endpoint=CHEAP),
        Backend("second", second.url, "openai", MODEL, providers[1], endpoint=DEAR),
    ]
    return configuration(backends, more="routing: {default: cheapest}")


@pytest.mark.parametrize("case", ["flagged", "too much for a minute", "no tools"])
async def test_another_provider_may_take_what_one_refuses(case: str, tmp_path: Path) -> None:
    """What one provider moderates or lacks is its own matter, and that of all its backends; limits are an account's."""
    _, status, document, told, _ = CASES[case]
    async with hand_backend(refusing(status, document)) as first, hand_backend(well) as second:
        async with staged(tmp_path / "two", two_of(("one", "two"), first, second)) as stage:
            assert (await bad(stage)).status_code == 200
            assert (len(first.visits), len(second.visits)) == (1, 1)
        async with staged(tmp_path / "one", two_of(("one", "one"), first, second)) as stage:
            same = case != "too much for a minute"
            assert (await bad(stage)).status_code == (told if same else 200)
            assert (len(first.visits), len(second.visits)) == (2, 1 if same else 2)


async def test_requests_that_are_refused_leave_the_others_their_retries(tmp_path: Path) -> None:
    """Second opinions are bounded for themselves: when a backend fails, another one takes over as ever."""
    broken = False
    refuse = refusing("403 Forbidden", FLAGGED)

    async def script(visit: Visit) -> None:
        if broken:
            await visit.answer({"error": {"message": "boom"}}, "500 Internal Server Error")
        else:
            await refuse(visit)

    async with (
        hand_backend(script) as first,
        hand_backend(refuse) as second,
        staged(tmp_path, two_of(("one", "two"), first, second)) as stage,
    ):
        for _ in range(FLOOR + 5):
            assert (await bad(stage)).status_code == 403
        assert len(second.visits) == FLOOR
        broken = True
        assert (await stage.chat()).status_code == 200


async def test_a_request_is_not_at_fault_where_another_backend_was_merely_full(tmp_path: Path) -> None:
    """It may be asked again: who refused it was not the only one who could have taken it."""

    async def full(visit: Visit) -> None:
        await visit.answer({"error": {"message": "busy"}}, "429 Too Many Requests")

    lacking = refusing("404 Not Found", NO_TOOLS)
    async with hand_backend(full) as first, hand_backend(lacking) as second:
        config = two_of(("one", "two"), first, second)
        async with staged(tmp_path, config) as stage:
            answer = await bad(stage)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


async def test_a_request_too_large_for_a_minute_puts_no_key_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No wait would help it, and every other request may go on with the key."""
    monkeypatch.setenv("A_KEY", "sk-aaaaaaaaaaaa")
    monkeypatch.setenv("B_KEY", "sk-bbbbbbbbbbbb")
    keys = 'api_keys: [{key: "${A_KEY}"}, {key: "${B_KEY}"}]'
    async with (
        hand_backend(refusing("429 Too Many Requests", TOO_MUCH)) as api,
        staged(tmp_path, configuration([Backend("api", api.url, "openai", more=keys)])) as stage,
    ):
        for _ in range(FAILURES):
            answer = await bad(stage)
            assert answer.status_code == 413, answer.text
            assert "org-a1" not in answer.text
        assert (await stage.chat()).status_code == 200
    assert len(api.visits) == FAILURES + 1


async def test_a_failed_generation_of_tgi_is_no_fault_of_its_request(tmp_path: Path) -> None:
    """Its 424 is an engine that broke, and another replica answers."""
    async with SimFleet([SimConfig(name=name, kind="tgi") for name in ("first", "second")]) as fleet:
        backends = [Backend("first", fleet["first"].url, "tgi"), Backend("second", fleet["second"].url, "tgi")]
        fleet["first"].faults.arm(Fault(kind="error_status", status=424))
        async with staged(tmp_path, configuration(backends)) as stage:
            assert (await stage.chat(provider={"order": ["first", "second"]})).status_code == 200
            assert stage.gateway.registry.fleet.replicas["first"].load.failures == 1


async def test_the_limit_of_a_first_token_is_none_of_a_whole_answer(tmp_path: Path) -> None:
    """Nobody sees the first token of an answer that comes in one piece: it takes as long as the backend may take."""
    timing = Timing(itl=0.02)
    async with SimFleet([SimConfig(name="a", timing=timing, answer_tokens=40)]) as fleet:
        model = (
            f"  - {{id: qwen/qwen3-32b, context_length: 40960, endpoints: [{{backend: a, model: {MODEL}}}], "
            'limits: {ttft: 0.4}, price: {prompt: "0.1", completion: "0.3"}}'
        )
        async with staged(tmp_path, configuration([Backend("a", fleet["a"].url)], models=model)) as stage:
            assert (await stage.chat()).status_code == 200
            assert stage.gateway.registry.fleet.replicas["a"].load.failures == 0
            fleet["a"].faults.arm(Fault(kind="slow", delay=5.0))
            late = await stage.chat(stream=True)
            assert late.status_code == 504, late.text


@pytest.mark.real_engine
async def test_arguments_that_are_no_json_do_not_eject_a_real_engine(tool_server: LlamaServer, tmp_path: Path) -> None:
    """Clients send back what a model wrote; llama.cpp answers 500 to tool calls that it cannot read."""
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{not json"}}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "nothing"},
    ]
    backend = Backend("a", tool_server.url, "llamacpp", "tiny-qwen3")
    async with staged(tmp_path, configuration([backend])) as stage:
        for _ in range(FAILURES):
            answer = await stage.chat(messages=messages, max_tokens=4)
            assert answer.status_code == 400, answer.text
            assert "tool call arguments" in answer.json()["error"]["message"]
        assert stage.gateway.registry.fleet.replicas["a"].load.failures == 0
        assert (await stage.chat(max_tokens=4)).status_code == 200
