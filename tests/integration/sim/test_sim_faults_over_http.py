"""Every fault, seen from the client's side of the socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import httpx
import msgspec
import pytest

from gateway.sim import KINDS, Fault, Kind, SimConfig, SimServer, Timing
from gateway.sim.engine import Phase

PATH = "/v1/chat/completions"
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def tokens(stream: bytes) -> int:
    """Return how many token events are in a plain vLLM stream; the opening event has empty content."""
    return stream.count(b'"delta":{"content":"')


async def test_a_closed_listener_refuses_and_comes_back(start: Any, client: Any, connect: Any, until: Any) -> None:
    """``refuse`` resets what is open, refuses what comes, and serves on the same port once it is cleared."""
    sim = await start(control_port=0)
    old = await connect(sim.url)
    old.send("/health", method="GET")
    await old.read()
    sim.faults.arm(Fault(kind="refuse"))
    await sim.settled()
    with pytest.raises(ConnectionResetError):
        await old.rest()
    with pytest.raises(ConnectionRefusedError):
        await connect(sim.url)
    listed = (await client.get(f"{sim.control_url}/sim/faults")).json()
    assert [fault["kind"] for fault in listed["faults"]] == ["refuse"]
    assert (await client.get(f"{sim.control_url}/health")).status_code == 404
    await client.delete(f"{sim.control_url}/sim/faults")
    await sim.settled()
    assert (await client.get(f"{sim.url}/health")).status_code == 200


async def test_refusal_for_some_seconds_ends_by_itself(start: Any, client: Any, until: Any) -> None:
    """With ``seconds`` the listener comes back without anybody asking."""
    sim = await start(faults=(Fault(kind="refuse", seconds=1.0),))
    with pytest.raises(httpx.ConnectError):
        await client.get(f"{sim.url}/health")
    await until(lambda: not sim.faults.listing())
    await sim.settled()
    assert (await client.get(f"{sim.url}/health")).status_code == 200


async def test_accepted_connections_can_be_reset(start: Any, connect: Any, client: Any) -> None:
    """``refuse`` in mode "rst" accepts and resets the next ``count`` connections; what was open stays open."""
    sim = await start()
    old = await connect(sim.url)
    old.send("/health", method="GET")
    await old.read()
    sim.faults.arm(Fault(kind="refuse", mode="rst", count=2))
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            await client.get(f"{sim.url}/health")
    assert (await client.get(f"{sim.url}/health")).status_code == 200
    old.send("/health", method="GET")
    assert (await old.read()).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_before_anything_is_answered(stream: bool, start: Any, connect: Any, chat: Any) -> None:
    """``reset`` ends the connection without a byte; the books have the request."""
    sim = await start(faults=(Fault(kind="reset", count=1),))
    raw = await connect(sim.url)
    raw.send(PATH, chat(stream=stream))
    with pytest.raises(ConnectionResetError):
        await raw.rest()
    entry = sim.books[0]
    assert (entry.status, entry.outcome, entry.faults, entry.completion_tokens) == (0, "broken", ("reset",), 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_in_the_middle(stream: bool, start: Any, connect: Any, chat: Any, until: Any) -> None:
    """``reset_mid_stream`` delivers the chunks it promises, then resets."""
    sim = await start(faults=(Fault(kind="reset_mid_stream", after_chunks=3),))
    raw = await connect(sim.url)
    raw.send(PATH, chat(stream=stream))
    answer = await raw.read(until=lambda a: tokens(a.body) >= 3 if stream else len(a.body) > 50)
    with pytest.raises(ConnectionResetError):
        await raw.rest()
    assert not answer.complete
    assert tokens(answer.body) == (3 if stream else 0)
    assert sim.books[0].outcome == "broken"
    assert sim.books[0].completion_tokens == (3 if stream else 24)
    assert not sim.engine.running


@pytest.mark.parametrize(("mode", "clean"), [("fin", False), ("end", True)])
async def test_a_cut_stream_has_no_finish(mode: Any, clean: bool, start: Any, connect: Any, chat: Any) -> None:
    """``cut_mid_stream`` ends without a finish: with FIN inside the body, or with a well-formed end of the body."""
    sim = await start(faults=(Fault(kind="cut_mid_stream", after_chunks=5, mode=mode),))
    raw = await connect(sim.url)
    raw.send(PATH, chat(stream=True))
    if clean:
        body = (await raw.read()).body
    else:
        with pytest.raises(EOFError) as ended:
            await raw.read()
        body = str(ended.value).encode()
    assert tokens(body) == 5
    assert b'"finish_reason":"' not in body
    assert b"[DONE]" not in body
    assert (sim.books[0].outcome, sim.books[0].completion_tokens) == ("broken", 5)


async def test_a_cut_never_comes_after_the_finish(start: Any, connect: Any, chat: Any) -> None:
    """Asked to strike later than the answer is long, the cut still comes before the finish."""
    sim = await start(faults=(Fault(kind="cut_mid_stream", after_chunks=500, mode="end"),))
    for length in (1, 4):
        raw = await connect(sim.url)
        raw.send(PATH, chat(stream=True, max_tokens=length))
        body = (await raw.read()).body
        assert tokens(body) == length - 1
        assert b'"finish_reason":"' not in body


async def test_a_cut_json_answer_is_shorter_than_it_says(start: Any, connect: Any, chat: Any) -> None:
    """A whole answer is cut inside the length its head announced."""
    sim = await start(faults=(Fault(kind="cut_mid_stream"),))
    raw = await connect(sim.url)
    raw.send(PATH, chat())
    head, body = (await raw.rest()).split(b"\r\n\r\n", 1)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    assert 0 < len(body) < length


@pytest.mark.parametrize("mode", ["end", "fin"])
async def test_a_stream_without_done(mode: Any, start: Any, connect: Any, chat: Any) -> None:
    """``cut_before_done`` sends finish and usage but never [DONE]."""
    sim = await start(faults=(Fault(kind="cut_before_done", mode=mode),))
    raw = await connect(sim.url)
    raw.send(PATH, chat(**WITH_USAGE))
    if mode == "end":
        body = (await raw.read()).body
        raw.send(PATH, chat(**WITH_USAGE))
        assert (await raw.read()).status == 200
    else:
        with pytest.raises(EOFError) as ended:
            await raw.read()
        body = str(ended.value).encode()
    assert b'"finish_reason":"stop"' in body
    assert b'"completion_tokens":24' in body
    assert b"[DONE]" not in body


async def test_stalls(start: Any, connect: Any, chat: Any, until: Any) -> None:
    """``stall`` sends the headers, or some chunks, or nothing, and then holds the slot until the client goes."""
    cases: list[tuple[Fault, bool, int]] = [
        (Fault(kind="stall"), True, 0),
        (Fault(kind="stall", after_chunks=4), True, 4),
        (Fault(kind="stall", mode="silent"), False, 0),
    ]
    for kind in ("vllm", "sglang"):
        sim = await start(kind=kind)
        for fault, headers, chunks in cases:
            for stream in (True, False):
                sim.faults.arm(fault)
                raw = await connect(sim.url)
                raw.send(PATH, chat(stream=stream))
                await until(lambda sim=sim: any(run.phase is Phase.DECODE for run in sim.engine.running))
                expected = chunks + 1 if stream and chunks else 0
                data = b""
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(20) as limit:
                        while not raw.reader.at_eof():
                            if data.startswith(b"HTTP/1.1 200 OK") is headers and data.count(b"data: {") >= expected:
                                limit.reschedule(asyncio.get_running_loop().time() + 0.05)  # for what is too much
                            data += await raw.reader.read(65536)
                assert data.startswith(b"HTTP/1.1 200 OK") is headers
                assert b"[DONE]" not in data
                assert data.count(b"data: {") == expected
                assert not raw.reader.at_eof()
                assert len(sim.engine.running) == 1
                raw.writer.close()
                await until(lambda sim=sim: not sim.engine.running)
                assert (sim.books[-1].outcome, sim.books[-1].faults) == ("cancelled", ("stall",))


async def test_slowness_is_a_factor_and_a_delay(start: Any, client: Any, chat: Any) -> None:
    """``slow`` multiplies the latencies and adds a delay before the first token."""
    sim = await start(timing=Timing(base_ttft=0.01, itl=0.002))
    sim.faults.arm(Fault(kind="slow", factor=10, delay=0.1, count=1))
    begun = time.monotonic()
    await client.post(sim.url + PATH, json=chat(max_tokens=6))
    assert time.monotonic() - begun >= 0.29
    assert sim.books[0].first_token_at - sim.books[0].received_at >= 0.19


async def test_error_answers(start: Any, client: Any, chat: Any) -> None:
    """``error_status`` answers with any status, in the engine's words or the given ones, and more headers."""
    for kind in KINDS:
        sim = await start(kind=kind)
        sim.faults.arm(Fault(kind="error_status", status=424, count=1))
        answer = await client.post(sim.url + PATH, json=chat(stream=True))
        assert answer.status_code == 424
        assert "424" in answer.text
        sim.faults.arm(Fault(kind="error_status", status=429, body="busy", headers={"Retry-After": "7"}))
        answer = await client.post(sim.url + PATH, json=chat())
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (429, "busy", "7")
        assert [entry.outcome for entry in sim.books] == ["refused", "refused"]


@pytest.mark.parametrize("kind", KINDS)
async def test_wrong_and_missing_usage(kind: Kind, start: Any, client: Any, chat: Any, events: Any) -> None:
    """``wrong_usage`` and ``no_usage`` lie in whole answers and streams; the books stay right."""
    sim = await start(kind=kind)
    for fault, expected in (
        (Fault(kind="wrong_usage", factor=2, offset=1), 49),
        (Fault(kind="wrong_usage"), 31),
        (Fault(kind="wrong_usage", factor=0), 0),
        (Fault(kind="no_usage"), None),
    ):
        sim.faults.clear()
        sim.faults.arm(fault)
        whole = (await client.post(sim.url + PATH, json=chat())).json()
        stream = events((await client.post(sim.url + PATH, json=chat(**WITH_USAGE))).content)[:-1]
        streamed = [event["usage"] for event in stream if event.get("usage")]
        if expected is None:
            assert "usage" not in whole
            assert streamed == []
        else:
            assert whole["usage"]["completion_tokens"] == expected
            assert [usage["completion_tokens"] for usage in streamed] == [expected]
    assert {entry.completion_tokens for entry in sim.books} == {24}


async def test_usage_twice(start: Any, client: Any, chat: Any, events: Any) -> None:
    """``usage_twice`` sends the usage event two times."""
    sim = await start(faults=(Fault(kind="usage_twice"),))
    stream = events((await client.post(sim.url + PATH, json=chat(**WITH_USAGE))).content)
    assert [bool(event.get("usage")) for event in stream[-3:-1]] == [True, True]


async def test_malformed_streams_still_carry_every_event(start: Any, connect: Any, chat: Any) -> None:
    """``malformed_sse`` dresses the events oddly, splits characters between chunks, and loses nothing."""
    sim = await start()
    raw = await connect(sim.url)
    raw.send(PATH, chat(max_tokens=24))
    whole = msgspec.json.decode((await raw.read()).body)["choices"][0]["message"]["content"]
    for styles in (("crlf",), ("no_space",), ("comments",), ("no_blank",), ("split",), None):
        fault = Fault(kind="malformed_sse") if styles is None else Fault(kind="malformed_sse", styles=styles)
        sim.faults.arm(fault)
        raw.send(PATH, chat(max_tokens=24, stream=True))
        answer = await raw.read()
        lines = answer.body.decode().replace("\r\n", "\n").split("\n")
        payloads = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
        assert payloads.pop() == "[DONE]"
        choices = [msgspec.json.decode(payload)["choices"][0] for payload in payloads]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == whole
        if styles == ("split",):
            assert any(_cut_inside_a_character(part) for part in answer.parts)
        if styles == ("crlf",):
            assert b"\r\n\r\n" in answer.body
        if styles == ("no_blank",):
            assert b"\n\n" not in answer.body
        if styles == ("comments",):
            assert b"\n: a comment inside\nid: 7\ndata: " in answer.body


def _cut_inside_a_character(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
async def test_broken_json(kind: Kind, start: Any, client: Any, chat: Any) -> None:
    """``bad_json_event`` puts one event into the stream that is not JSON; a whole answer is not JSON at all."""
    sim = await start(kind=kind, faults=(Fault(kind="bad_json_event", after_chunks=2),))
    body = (await client.post(sim.url + PATH, json=chat(**WITH_USAGE))).content
    payloads = [block.removeprefix(b"data: ") for block in body.split(b"\n\n")[:-1]]
    broken = [place for place, payload in enumerate(payloads) if payload != b"[DONE]" and not payload.endswith(b"}")]
    assert len(broken) == 1
    before = b"".join(payloads[: broken[0]])
    assert before.count(b'"choices":[{') - before.count(b'"content":""') == 2
    assert payloads[-1] == b"[DONE]"
    whole = await client.post(sim.url + PATH, json=chat())
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(whole.content)


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_inside_a_200(kind: Kind, start: Any, client: Any, chat: Any, events: Any) -> None:
    """``error_in_200`` is an error body with status 200, or an error event where the rest of the stream should be."""
    sim = await start(kind=kind, faults=(Fault(kind="error_in_200"),))
    whole = await client.post(sim.url + PATH, json=chat())
    assert whole.status_code == 200
    assert "choices" not in whole.json()
    stream = events((await client.post(sim.url + PATH, json=chat(stream=True))).content)
    assert "error" in stream[0]
    assert stream[1:] == ["[DONE]"]
    sim.faults.arm(Fault(kind="error_in_200", after_chunks=2, body='{"error": "engine died"}'))
    stream = events((await client.post(sim.url + PATH, json=chat(stream=True))).content)
    assert stream[-2] == {"error": "engine died"}
    assert sim.books[-1].completion_tokens == 2
    assert [entry.outcome for entry in sim.books] == ["broken"] * 3


async def test_frozen_metrics(start: Any, client: Any, chat: Any) -> None:
    """``frozen_metrics`` shows the page as it was when the fault was armed."""
    sim = await start()
    await client.post(sim.url + PATH, json=chat())
    before = (await client.get(f"{sim.url}/metrics")).text
    sim.faults.arm(Fault(kind="frozen_metrics", count=2))
    for _ in range(3):
        await client.post(sim.url + PATH, json=chat())
    assert [(await client.get(f"{sim.url}/metrics")).text == before for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("kind", KINDS)
async def test_unhealthy_engines_still_answer(kind: Kind, start: Any, client: Any, chat: Any) -> None:
    """``unhealthy`` fails the health probe and nothing else."""
    sim = await start(kind=kind, faults=(Fault(kind="unhealthy"),))
    path = "/v1/models" if kind == "openai" else "/health"
    assert (await client.get(sim.url + path)).status_code == 503
    assert (await client.post(sim.url + PATH, json=chat())).status_code == 200
    sim.faults.clear()
    assert (await client.get(sim.url + path)).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_one_event_can_be_big(kind: Kind, start: Any, client: Any, chat: Any, events: Any) -> None:
    """``big_event`` makes one event as large as asked."""
    sim = await start(kind=kind, faults=(Fault(kind="big_event", size=300_000, after_chunks=3),))
    stream = (await client.post(sim.url + PATH, json=chat(stream=True))).content
    sizes = [len(block) for block in stream.split(b"\n\n")]
    assert sorted(size > 300_000 for size in sizes)[-2:] == [False, True]
    assert events(stream)[-1] == "[DONE]"
    assert len((await client.post(sim.url + PATH, json=chat())).content) > 300_000


@pytest.mark.parametrize("kind", KINDS)
async def test_nulls_everywhere(kind: Kind, start: Any, client: Any, chat: Any, events: Any) -> None:
    """``null_fields`` puts null in every optional place, and the answer stays the same."""
    sim = await start(kind=kind)
    plain = (await client.post(sim.url + PATH, json=chat())).json()["choices"][0]["message"]["content"]
    sim.faults.arm(Fault(kind="null_fields"))
    whole = (await client.post(sim.url + PATH, json=chat())).json()
    message = whole["choices"][0]["message"]
    assert message["content"] == plain
    assert {message[name] for name in ("audio", "tool_calls", "function_call", "images")} == {None}
    stream = events((await client.post(sim.url + PATH, json=chat(stream=True))).content)[:-1]
    deltas = [event["choices"][0]["delta"] for event in stream if event["choices"]]
    assert "".join(delta["content"] or "" for delta in deltas) == plain
    assert all(event["usage"] is None for event in stream)


async def test_faults_are_armed_over_http(start: Any, client: Any, chat: Any) -> None:
    """POST arms, GET lists what is left, DELETE disarms one kind or all; nonsense is refused and arms nothing."""
    sim = await start(api_key="s3cret")
    url = f"{sim.url}/sim/faults"
    headers = {"authorization": "Bearer s3cret"}
    armed = await client.post(url, json=[{"kind": "error_status", "status": 503, "count": 2}, {"kind": "slow"}])
    assert [fault["kind"] for fault in armed.json()["faults"]] == ["error_status", "slow"]
    statuses = [(await client.post(sim.url + PATH, json=chat(), headers=headers)).status_code for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert [fault["kind"] for fault in (await client.get(url)).json()["faults"]] == ["slow"]
    refused = await client.post(url, json={"kind": "explode"})
    assert refused.status_code == 400
    assert "explode" in refused.json()["error"]
    await client.post(url, json={"kind": "unhealthy", "seconds": 60})
    left = (await client.delete(url, params={"kind": "slow"})).json()["faults"]
    assert [fault["kind"] for fault in left] == ["unhealthy"]
    assert 0 < left[0]["remaining_seconds"] <= 60
    assert (await client.delete(url)).json() == {"faults": []}


async def test_faults_strike_a_share_that_repeats() -> None:
    """With ``probability`` the same requests are struck in every run of one seed."""
    runs = []
    for _ in range(2):
        fault = Fault(kind="error_status", status=500, probability=0.4)
        async with SimServer(SimConfig(seed=9, faults=(fault,))) as sim, httpx.AsyncClient(verify=False) as client:
            body = {"model": "Qwen/Qwen3-32B", "prompt": "x"}
            url = f"{sim.url}/v1/completions"
            runs.append([(await client.post(url, json=body)).status_code for _ in range(40)])
    assert runs[0] == runs[1]
    assert 5 < runs[0].count(500) < 30
