"""Bedrock, Vertex AI and Gemini through the real library litellm, each simulated here down to its wire protocol.

What the simulated clouds refuse: a wrong signature, a wrong assertion, a wrong key. The library takes seconds to
import, so all tests share one gateway.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from gateway.types.tokens import Usage
from tests.fakes import bedrock, vertex
from tests.fakes.backend import SSE_HEAD, Visit, event
from tests.fakes.clouds import Clouds, body, clouded, events, reason_of, record_of, streamed, text_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("litellm")]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Look at the river.",
            "parameters": {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]},
        },
    },
    {"type": "function", "function": {"name": "wait", "parameters": {"type": "object", "properties": {}}}},
]
THOUGHTFUL = Usage(9, 24, cache_read=3, reasoning=20)
"""What Google's answers report: thoughts are part of the completion, and cached tokens of the prompt."""
CACHED = Usage(23, 7, cache_read=12)
"""What Bedrock's report: what came from a cache is counted beside the input there, and is part of the prompt here."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clouds]:
    """Run a gateway before the simulated clouds."""
    async with clouded(tmp_path_factory.mktemp("clouds")) as clouds:
        yield clouds


@pytest.fixture
def clouds(running: Clouds) -> Clouds:
    """Return the clouds, all well."""
    running.reset()
    return running


@pytest.mark.parametrize(
    ("model", "usage", "charge", "thought"),
    [
        # 11 x 1 + 12 x 0.1 + 7 x 2 micro-USD; 6 x 1 + 3 x 0.1 + 4 x 2 + 20 x 3 micro-USD
        ("claude", CACHED, 26_200, ""),
        ("sonnet", CACHED, 26_200, ""),
        ("vertex", THOUGHTFUL, 74_300, "hm"),
        ("gemini", THOUGHTFUL, 74_300, "hm"),
    ],
)
async def test_answers_are_metered_and_priced_once(
    clouds: Clouds, model: str, usage: Usage, charge: int, thought: str
) -> None:
    """Whole and streamed: text, reasoning, finish and usage are right; the ledger has each once, at its price."""
    whole = await clouds.stage.chat(body(model))
    assert whole.status_code == 200, whole.text
    document = whole.json()
    message = document["choices"][0]["message"]
    assert (message["content"], message.get("reasoning_content", "")) == ("a weir", thought)
    assert document["choices"][0]["finish_reason"] == "stop"
    found = await streamed(clouds, model)
    assert (text_of(found), text_of(found, "reasoning_content")) == ("a weir", thought)
    assert reason_of(found) == ["stop"]
    for told, identity in ((document["usage"], document["id"]), (found[-1]["usage"], found[-1]["id"])):
        assert (told["prompt_tokens"], told["completion_tokens"]) == (usage.prompt, usage.completion)
        assert told["prompt_tokens_details"]["cached_tokens"] == usage.cache_read
        (attempt,) = (await record_of(clouds, identity)).attempts
        assert attempt.usage == usage
        assert (attempt.source, attempt.status, attempt.charge_nano) == ("upstream", "ok", charge)


async def test_requests_are_said_in_the_words_of_the_clouds(clouds: Clouds) -> None:
    """Where they go and what they hold is what the APIs document; a token is fetched once, not for every request."""
    system = {"role": "system", "content": "Be brief."}
    more = {"temperature": 0.5, "stop": ["END"], "tools": TOOLS, "reasoning_effort": "low"}
    for model in ("claude", "vertex", "gemini"):
        request = body(
            model, **({"max_tokens": 4_000} | more if model != "claude" else more | {"reasoning_effort": None})
        )
        request["messages"].insert(0, system)
        answer = await clouds.stage.chat(request)
        assert answer.status_code == 200, answer.text
    said = clouds.bedrock.bodies[-1]
    assert said.keys() - {"additionalModelRequestFields"} == {"messages", "system", "inferenceConfig", "toolConfig"}
    assert not said.get("additionalModelRequestFields")
    assert said["messages"] == [{"role": "user", "content": [{"text": "What is a weir?"}]}]
    assert said["system"] == [{"text": "Be brief."}]
    assert said["inferenceConfig"] == {"maxTokens": 50, "temperature": 0.5, "stopSequences": ["END"]}
    assert [tool["toolSpec"]["name"] for tool in said["toolConfig"]["tools"]] == ["look", "wait"]
    assert clouds.google.paths[-2:] == [
        "/v1/projects/project-w/locations/europe-west4/publishers/google/models/gemini-2.5-flash:generateContent",
        "/v1beta/models/gemini-2.5-flash:generateContent",
    ]
    for said in clouds.google.bodies[-2:]:
        assert said["contents"] == [{"role": "user", "parts": [{"text": "What is a weir?"}]}]
        assert said["system_instruction"]["parts"] == [{"text": "Be brief."}]
        assert said["generationConfig"]["max_output_tokens"] == 4_000
        assert said["generationConfig"]["thinkingConfig"]["includeThoughts"] is True
        assert [each["name"] for each in said["tools"][0]["function_declarations"]] == ["look", "wait"]
    assert clouds.google.tokens == 1


def _bedrock_tools() -> Callable[[Visit], Awaitable[None]]:
    async def script(visit: Visit) -> None:
        if visit.path.endswith("/converse-stream"):
            await visit.send(bedrock.STREAM_HEAD)
            await visit.events(bedrock.tool_stream(), last=True)
            return
        uses = [("tooluse_1", "look", {"where": "upstream"}), ("tooluse_2", "wait", {})]
        parts = [{"toolUse": {"toolUseId": key, "name": name, "input": given}} for key, name, given in uses]
        await visit.answer(bedrock.answer(*parts, reason="tool_use"))

    return script


def _google_tools() -> Callable[[Visit], Awaitable[None]]:
    async def script(visit: Visit) -> None:
        parts = [vertex.call("look", where="upstream"), vertex.call("wait")]
        if "streamGenerateContent" not in visit.path:
            await visit.answer(vertex.said(*parts, finish="STOP"))
            return
        await visit.send(SSE_HEAD)
        await visit.events(event(vertex.said(*parts)), event(vertex.said({"text": ""}, finish="STOP")), last=True)

    return script


@pytest.mark.parametrize("model", ["claude", "vertex"])
async def test_tools_are_called_in_parallel_and_answered(clouds: Clouds, model: str) -> None:
    """Two calls, whole and in pieces, with the same arguments; their results go back in the words of the cloud."""
    clouds.bedrock.script, clouds.google.script = _bedrock_tools(), _google_tools()
    whole = (await clouds.stage.chat(body(model, tools=TOOLS))).json()
    assert whole["choices"][0]["finish_reason"] == "tool_calls", whole
    calls = whole["choices"][0]["message"]["tool_calls"]
    found = await streamed(clouds, model, tools=TOOLS)
    assert reason_of(found) == ["tool_calls"]
    pieces: dict[int, dict[str, str]] = {}
    for piece in (
        each for chunk in found for choice in chunk["choices"] for each in choice["delta"].get("tool_calls", ())
    ):
        kept = pieces.setdefault(piece["index"], {"name": "", "arguments": "", "id": ""})
        kept["id"] += piece.get("id") or ""
        for name in ("name", "arguments"):
            kept[name] += piece["function"].get(name) or ""
    for name, arguments, call, streamed_call in zip(
        ("look", "wait"), ({"where": "upstream"}, {}), calls, (pieces[0], pieces[1]), strict=True
    ):
        assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (name, arguments)
        assert (streamed_call["name"], json.loads(streamed_call["arguments"])) == (name, arguments)
        assert streamed_call["id"]
    clouds.reset()
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "low water"} for call in calls]
    request = body(model, tools=TOOLS)
    request["messages"] += [{"role": "assistant", "content": None, "tool_calls": calls}, *results]
    assert (await clouds.stage.chat(request)).status_code == 200
    if model == "claude":
        _, asked, told = clouds.bedrock.bodies[-1]["messages"]
        assert [part["toolUse"]["input"] for part in asked["content"]] == [{"where": "upstream"}, {}]
        assert [part["toolResult"]["toolUseId"] for part in told["content"]] == ["tooluse_1", "tooluse_2"]
    else:
        _, asked, told = clouds.google.bodies[-1]["contents"]
        assert [part["function_call"]["args"] for part in asked["parts"]] == [{"where": "upstream"}, {}]
        assert [part["function_response"]["name"] for part in told["parts"]] == ["look", "wait"]


@pytest.mark.parametrize("model", ["claude", "vertex"])
async def test_a_piece_leaves_before_the_next_one_comes(clouds: Clouds, model: str) -> None:
    """Small events, too: none waits for its neighbours to fill a buffer of the library's."""
    seen = [asyncio.Event() for _ in range(3)]

    async def script(visit: Visit) -> None:
        await visit.send(bedrock.STREAM_HEAD if model == "claude" else SSE_HEAD)
        for number, heard in enumerate(seen):
            piece = bedrock.text_delta(f"{number}") if model == "claude" else event(vertex.said({"text": f"{number}"}))
            await visit.events(piece)
            if number:
                await asyncio.wait_for(heard.wait(), 20)
        last = bedrock.stream_end() if model == "claude" else event(vertex.said({"text": ""}, finish="STOP"))
        await visit.events(last, last=True)

    clouds.bedrock.script = clouds.google.script = script
    url, headers = f"{clouds.stage.url}/v1/chat/completions", clouds.stage.headers
    said = ""
    async with clouds.stage.http.stream("POST", url, json=body(model, stream=True), headers=headers) as response:
        async for each in events(response):
            said += text_of([each])
            for number in range(len(said)):
                # The library keeps the first piece back until there is a second one.
                seen[number].set()
    assert said == "012"


@pytest.mark.parametrize("model", ["claude", "vertex"])
@pytest.mark.parametrize("how", ["ended", "broken", "told"])
async def test_a_cut_stream_is_no_success(clouds: Clouds, model: str, how: str) -> None:
    """Ended early, broken off or told to be broken: the caller gets an error after the text and pays nothing."""
    begun = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.send(bedrock.STREAM_HEAD if model == "claude" else SSE_HEAD)
        for piece in ("a ", "weir ", "is"):
            await visit.events(bedrock.text_delta(piece) if model == "claude" else event(vertex.said({"text": piece})))
        await asyncio.wait_for(begun.wait(), 20)
        if how == "told":
            error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
            fault = bedrock.frame("modelStreamErrorException", {"message": "The stream broke."}, exception=True)
            await visit.events(fault if model == "claude" else event(error), last=True)
        elif how == "ended":
            await visit.events(last=True)
        else:
            visit.writer.close()

    clouds.bedrock.script = clouds.google.script = script
    found = []
    url, headers = f"{clouds.stage.url}/v1/chat/completions", clouds.stage.headers
    async with clouds.stage.http.stream("POST", url, json=body(model, stream=True), headers=headers) as response:
        async for each in events(response):
            found.append(each)
            begun.set()
    assert text_of(found).startswith("a ")
    assert "error" in found[-1], found
    assert reason_of(found) in ([], ["error"])
    (attempt,) = (await record_of(clouds, found[0]["id"])).attempts
    assert attempt.status != "ok"
    assert attempt.charge_nano == 0


ERRORS: dict[str, tuple[Callable[[Visit], Awaitable[None]], int, str]] = {
    "claude is asked nonsense": (
        bedrock.refusal("ValidationException", f"The value {bedrock.SECRET_KEY} at 'x' is wrong.", "400 Bad Request"),
        400,
        "at 'x' is wrong",
    ),
    "claude is asked too much": (
        bedrock.refusal("ValidationException", "Input is too long for requested model.", "400 Bad Request"),
        400,
        "context",
    ),
    "claude is not for us": (
        bedrock.refusal("AccessDeniedException", f"You ({bedrock.KEY_ID}) have no access.", "403 Forbidden"),
        502,
        "",
    ),
    "claude is broken": (bedrock.refusal("InternalServerException", "oops", "500 Internal Server Error"), 502, ""),
    "claude is not there": (bedrock.refusal("ModelNotReadyException", "wait", "429 Too Many Requests"), 503, ""),
    "vertex is asked nonsense": (
        vertex.refusing("400 Bad Request", f"Wrong value, says {vertex.ACCOUNT}.", "INVALID_ARGUMENT"),
        400,
        "Wrong value",
    ),
    "vertex is asked too much": (
        vertex.refusing(
            "400 Bad Request",
            "The input token count (9000) exceeds the maximum number of tokens allowed (8192).",
            "INVALID_ARGUMENT",
        ),
        400,
        "context",
    ),
    "vertex is not for us": (vertex.refusing("403 Forbidden", "No permission for us.", "PERMISSION_DENIED"), 502, ""),
    "vertex is broken": (vertex.refusing("500 Internal Server Error", "oops", "INTERNAL"), 502, ""),
    "vertex is full": (vertex.refusing("429 Too Many Requests", "Try later.", "RESOURCE_EXHAUSTED"), 503, ""),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", sorted(ERRORS))
async def test_errors_keep_their_meaning_and_no_secret(
    clouds: Clouds, case: str, stream: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """The caller's fault is told with its words, the owner's is not; 429 spares the backend; logs hold no prompt."""
    model = case.split(" ", maxsplit=1)[0]
    clouds.bedrock.script = clouds.google.script = ERRORS[case][0]
    answer = await clouds.stage.chat(body(model, stream=stream))
    assert answer.status_code == ERRORS[case][1], answer.text
    assert ERRORS[case][2] in answer.text
    logged = "".join(capfd.readouterr())
    for secret in (bedrock.SECRET_KEY, bedrock.KEY_ID, vertex.TOKEN, "127.0.0.1", "no access", "permission for"):
        assert secret not in answer.text + logged
    assert "What is a weir?" not in logged
    load = clouds.stage.gateway.registry.fleet.replicas["bed" if model == "claude" else "ver"].load
    assert (load.cooling_until > time.monotonic()) is (answer.status_code == 503)
    assert load.failures == (1 if answer.status_code == 502 else 0)


async def test_a_full_cloud_is_left_for_another(clouds: Clouds) -> None:
    """Throttled by Bedrock, a request goes on at Vertex, and the next one goes there at once."""
    clouds.bedrock.script = bedrock.refusal(
        "ThrottlingException", "Too many requests.", "429 Too Many Requests", "retry-after: 30\r\n"
    )
    pinned = {"provider": {"order": ["aws", "google-vertex"]}}
    asked = len(clouds.bedrock.bodies)
    for expected in (1, 1):
        answer = await clouds.stage.chat(body("either", **pinned))
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "a weir"
        assert len(clouds.bedrock.bodies) == asked + expected


async def test_bedrock_is_reached_with_a_key_of_its_own(clouds: Clouds) -> None:
    """The key is presented in the header and stands nowhere in what is sent."""
    answer = await clouds.stage.chat(body("bearer"))
    assert answer.status_code == 200, answer.text
    assert bedrock.BEARER not in json.dumps(clouds.bedrock.bodies[-1])


@pytest.mark.parametrize(("model", "tokens"), [("titan", 5), ("gecko", 4)])
async def test_texts_are_embedded(clouds: Clouds, model: str, tokens: int) -> None:
    """By Bedrock and by Vertex: the vector, the tokens that they counted, and what these cost."""
    url = f"{clouds.stage.url}/v1/embeddings"
    answer = await clouds.stage.http.post(url, json={"model": model, "input": "a weir"}, headers=clouds.stage.headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["embedding"] == [0.5, 0.25]
    assert answer.json()["usage"]["prompt_tokens"] == tokens
    async with asyncio.timeout(10):
        while (newest := (await clouds.stage.settled())[0].attempts[-1]).model != model:
            await asyncio.sleep(0.05)
    assert (newest.source, newest.charge_nano) == ("upstream", tokens * 1_000)


@pytest.mark.parametrize("model", ["titan", "gecko"])
async def test_official_clients_read_the_vector_itself(clouds: Clouds, model: str) -> None:
    """They want base64 unless told otherwise, in which the library sees a wish for a vector of bits."""
    found = await clouds.stage.openai().embeddings.create(model=model, input="a weir")
    assert found.data[0].embedding == [0.5, 0.25]
    asked = {"model": model, "input": "a weir", "encoding_format": "base64"}
    url = f"{clouds.stage.url}/v1/embeddings"
    answer = await clouds.stage.http.post(url, json=asked, headers=clouds.stage.headers)
    assert answer.json()["data"][0]["embedding"] == "AAAAPwAAgD4="  # not all clients look before they decode it


async def test_a_blocked_prompt_is_an_end_and_no_cut(clouds: Clouds) -> None:
    """Gemini says in a single event that it will not answer: the stream ends for the filter, without an error."""
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    }

    async def script(visit: Visit) -> None:
        await visit.send(SSE_HEAD)
        await visit.events(event(blocked), last=True)

    clouds.google.script = script
    found = await streamed(clouds, "vertex")
    assert reason_of(found) == ["content_filter"]
    assert not any("error" in each for each in found)


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


async def test_pictures_and_schemas_are_said(clouds: Clouds) -> None:
    """A picture reaches both clouds as bytes; an answer by a schema comes as text, however they are asked for it."""
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    content = [{"type": "text", "text": "What is this?"}, picture]
    wanted = {"type": "json_schema", "json_schema": {"name": "weir", "strict": True, "schema": SCHEMA}}

    async def script(visit: Visit) -> None:
        if "generateContent" in visit.path:
            await visit.answer(vertex.said({"text": '{"name": "a weir"}'}, finish="STOP"))
            return
        (tool,) = visit.document["toolConfig"]["tools"]
        use = {"toolUseId": "t1", "name": tool["toolSpec"]["name"]}
        if visit.path.endswith("/converse"):
            await visit.answer(bedrock.answer({"toolUse": use | {"input": {"name": "a weir"}}}, reason="tool_use"))
            return
        delta = {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"name": "a weir"}'}}}
        frames = [
            bedrock.START,
            bedrock.frame("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": use}}),
        ]
        frames += [
            bedrock.frame("contentBlockDelta", delta),
            bedrock.frame("contentBlockStop", {"contentBlockIndex": 0}),
        ]
        await visit.send(bedrock.STREAM_HEAD)
        await visit.events(*frames, bedrock.stream_end("tool_use"), last=True)

    clouds.bedrock.script = clouds.google.script = script
    for model in ("claude", "vertex"):
        request = body(model, response_format=wanted) | {"messages": [{"role": "user", "content": content}]}
        answer = await clouds.stage.chat(request)
        assert answer.status_code == 200, answer.text
        choice = answer.json()["choices"][0]
        assert json.loads(choice["message"]["content"]) == {"name": "a weir"}
        assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("stop", False)
    _, sent = clouds.bedrock.bodies[-1]["messages"][0]["content"]
    assert sent == {"image": {"format": "png", "source": {"bytes": PIXEL}}}
    _, sent = clouds.google.bodies[-1]["contents"][0]["parts"]
    assert sent == {"inline_data": {"mime_type": "image/png", "data": PIXEL}}
    assert clouds.google.bodies[-1]["generationConfig"]["response_mime_type"] == "application/json"
    found = await streamed(clouds, "claude", response_format=wanted)
    assert json.loads(text_of(found)) == {"name": "a weir"}
    assert reason_of(found) == ["stop"]


async def test_thoughts_of_claude_come_with_their_signature(clouds: Clouds) -> None:
    """They are reasoning, streamed as it comes, and can be given back."""

    async def script(visit: Visit) -> None:
        await visit.send(bedrock.STREAM_HEAD)
        await visit.events(bedrock.thinking_stream(), last=True)

    clouds.bedrock.script = script
    found = await streamed(clouds, "claude", reasoning_effort="low", max_tokens=4_000)
    assert (text_of(found, "reasoning_content"), text_of(found)) == ("hm, water", "a weir")
    assert clouds.bedrock.bodies[-1]["additionalModelRequestFields"]["thinking"]["type"] == "enabled"
    pieces = [choice["delta"].get("reasoning_details", ()) for each in found for choice in each["choices"]]
    details = [detail for piece in pieces for detail in piece]
    assert [detail.get("text") or detail["signature"] for detail in details] == ["hm, ", "water", "c2lnbmVk"]
    clouds.reset()
    call = {"id": "tooluse_1", "type": "function", "function": {"name": "look", "arguments": '{"where": "upstream"}'}}
    request = body("claude", tools=TOOLS, reasoning_effort="low", max_tokens=4_000)
    request["messages"] += [
        {"role": "assistant", "content": None, "reasoning_details": details, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "tooluse_1", "content": "low water"},
    ]
    assert (await clouds.stage.chat(request)).status_code == 200
    thought, _ = clouds.bedrock.bodies[-1]["messages"][1]["content"]
    assert thought == {"reasoningContent": {"reasoningText": {"text": "hm, water", "signature": "c2lnbmVk"}}}


async def test_the_owners_account_pays_for_no_teams_key(clouds: Clouds) -> None:
    """A team's key goes to Bedrock in place of the owner's signature; Vertex, which has no keys, is not asked."""
    for provider in ("aws-signed", "google-account"):
        document = {"provider": provider, "key": bedrock.THEIRS, "is_required": True}
        url = f"{clouds.stage.url}/api/v1/byok"
        created = await clouds.stage.http.post(url, json=document, headers=clouds.stage.admin)
        assert created.status_code == 201, created.text
    answer = await clouds.stage.chat(body("signed"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["is_byok"] is True
    assert clouds.bedrock.keys[-1] == f"Bearer {bedrock.THEIRS}"
    asked = len(clouds.google.bodies)
    refused = await clouds.stage.chat(body("account"))
    assert refused.status_code == 502, refused.text
    assert len(clouds.google.bodies) == asked


async def test_a_wrong_signature_is_the_owners_matter(clouds: Clouds) -> None:
    """The simulated Bedrock does check: another secret is refused, and the caller is not told why."""
    answer = await clouds.stage.chat(body("unsigned"))
    assert answer.status_code == 502
    assert "signature" not in answer.text


async def test_tokens_come_through_the_egress_guard(clouds: Clouds, caplog: pytest.LogCaptureFixture) -> None:
    """A service account cannot send the gateway where the egress rules forbid; its key is in no answer and no log."""
    asked = len(clouds.google.bodies)
    answer = await clouds.stage.chat(body("lost"))
    assert answer.status_code == 503, answer.text
    assert len(clouds.google.bodies) == asked
    for words in (answer.text, caplog.text):
        assert "PRIVATE KEY" not in words
        assert "10.1.2.3" not in words
