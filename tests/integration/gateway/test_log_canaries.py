"""What the log says of failed requests: their ids, never what was asked or with which key."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.sim import SimConfig, SimServer
from gateway.telemetry import logs
from gateway.types.content import CHOOSE, ContentChoice
from tests.fakes.backend import SSE_HEAD, Visit, chunk, event, hand_backend
from tests.fakes.paths import ASKED, MODELS, ask
from tests.fakes.raw_client import CHAT, post, raw_client
from tests.fakes.receiver import receiver
from tests.harness import Backend, chat_body, configuration, over, staged

CANARY = "xylophone-7313-quartz"


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """Return the stream of all logs, set up as a process does at its most talkative; put everything back after."""
    root, stream = logging.getLogger(), StringIO()
    names = ["alembic", "gateway", "uvicorn", "uvicorn.error", "uvicorn.access"]
    known = [logging.getLogger(name) for name in names]
    before = [(each.level, each.propagate, list(each.handlers)) for each in known]
    handlers, level = list(root.handlers), root.level
    logs.configure("debug", "json", stream)
    structlog.configure(cache_logger_on_first_use=False)  # modules keep their loggers, also after this test
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for each, (was, propagate, had) in zip(known, before, strict=True):
        each.setLevel(was)
        each.propagate = propagate
        each.handlers[:] = had
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    logs._processors.clear()


async def fail_in_the_words_of_the_prompt(visit: Visit) -> None:
    """Fail in the way that ``seed`` says, and repeat the prompt in doing so."""
    words = {"error": {"message": f"cannot answer {visit.body.decode()}", "code": 500, "type": CANARY}}
    mode = visit.document["seed"]
    if mode < 4:
        await visit.answer(words, ("500 Oops", "400 Bad Request", "503 Busy", "429 Slow down")[mode])
    elif mode == 4:
        await visit.answer(words)
    elif mode == 5:
        await visit.send(SSE_HEAD)
        await visit.events(event(chunk(CANARY)))
        await asyncio.sleep(0.05)
        await visit.events(event(words), last=True)
    elif mode == 6:
        await visit.answer(CANARY.encode())
    else:
        visit.writer.transport.abort()


PROMPT = {
    "messages": [{"role": "user", "content": CANARY, "name": CANARY}],
    "tools": [{"type": "function", "function": {"name": CANARY, "description": CANARY}}],
    "user": CANARY,
    "stop": CANARY,
    "metadata": {CANARY: CANARY},
}


async def test_no_prompt_reaches_the_log_in_the_words_of_a_backend(tmp_path: Path, lines: StringIO) -> None:
    """Engines repeat what they choke on; the caller is told, the log gets the request id and the kind of failure."""
    async with (
        hand_backend(fail_in_the_words_of_the_prompt) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):
        for mode in range(8):
            answer = await stage.chat(PROMPT, seed=mode, stream=mode == 5)
            assert answer.status_code >= 400 or mode == 5
            assert (CANARY in answer.text) == (mode not in {3, 6, 7})
            assert answer.headers["x-request-id"] in lines.getvalue()
    assert CANARY not in lines.getvalue()
    assert stage.key not in lines.getvalue()


async def test_no_prompt_and_no_key_reaches_the_log_by_a_callers_mistake(tmp_path: Path, lines: StringIO) -> None:
    """Broken bodies, keys in all the wrong places, broken HTTP: the log names each request and repeats nothing."""
    good = json.dumps(chat_body() | PROMPT).encode()
    keys = [f"sk-weir-{CANARY}", CANARY, "sk-weir-abcdefgh-0123456789abcdef0123456789abcdef01234567"]
    told: list[str] = []
    async with (
        hand_backend(fail_in_the_words_of_the_prompt) as backend,
        staged(tmp_path, configuration([Backend("only", backend.url, "openai")])) as stage,
    ):

        async def ask(raw: bytes, headers: dict[str, str], status: int, query: str = "") -> None:
            answer = await stage.http.post(stage.url + CHAT + query, content=raw, headers=headers)
            assert answer.status_code == status
            told.append(answer.headers["x-request-id"])

        await ask(good[:-1], stage.headers, 400)
        await ask(good.replace(b'"stop"', b'"stop": 1, "stop"'), stage.headers, 400)
        await ask(good.replace(b'"tools": [', b'"tools": [1, '), stage.headers, 400)
        await ask(json.dumps(chat_body() | PROMPT | {"model": stage.key}).encode(), stage.headers, 404)
        for key in keys:
            for headers in ({"authorization": f"Bearer {key}"}, {"authorization": key}, {"x-api-key": key}):
                await ask(good, headers, 401, f"?key={key}")
        async with raw_client(stage.port) as client:
            await client.send(post(CHAT, CANARY.encode(), stage.key, "X-A: \0" + CANARY))
            told.append((await client.response()).document["request_id"])
        elsewhere = f"{stage.url}/v1/nothing/{CANARY}?key={stage.key}"
        answer = await stage.http.get(elsewhere, headers=stage.headers | {"cookie": CANARY})
        assert answer.status_code == 404
    log = lines.getvalue()
    assert [each for each in told if each not in log] == []
    assert not [key for key in (stage.key, *keys) if key in log]
    assert CANARY not in log


async def test_nothing_that_is_written_down_says_what_was_asked_or_answered(tmp_path: Path, lines: StringIO) -> None:
    """Every path and stream, with all that can be stored and given again: not the logs, the traces or any file."""
    words = [CANARY]
    async with receiver() as collector, SimServer(SimConfig("vllm", name="only", reasoning_tokens=9)) as engine:
        config = configuration(over(engine), models=MODELS, more="routing: {decisions: {share: 1, per_second: 1000}}")
        async with staged(tmp_path, config, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as stage:
            await stage.keeper.ask(CHOOSE, (ContentChoice("default", "", True),))
            await stage.gateway.inference.repetitions.contents.learn()
            for number, (path, more) in enumerate(ASKED):
                asked: dict[str, Any] = {"messages": [{"role": "user", "content": CANARY}]} | more
                asked |= {name: CANARY for name in ("prompt", "input") if name in more}
                headers = {"idempotency-key": f"{CANARY}-{number}", "x-openrouter-cache": "true"}
                for _ in range(2):
                    answer = await ask(stage, headers, path, **asked)
                    assert answer.status_code == 200, (path, answer.text)
                params = {"id": answer.headers["x-generation-id"]}
                where = f"{stage.url}/api/v1/generation/content"
                said = (await stage.http.get(where, params=params, headers=stage.headers)).json()["data"]
                assert CANARY in str(said["input"])
                words += [text[:30] for text in said["output"].values() if isinstance(text, str) and len(text) > 30]
        assert len(words) > len(ASKED)
        secrets = [word.encode() for word in (*words, stage.key)]
        written = [lines.getvalue().encode(), *(each.body for each in collector.received)]
        assert all(written)
        assert len(written) > 1
        written += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        assert not [secret for secret in secrets if any(secret in each for each in written)]
