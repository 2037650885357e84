"""Callers that ask without pause and write down exactly what they saw, also of answers that broke off."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import httptools

from tests.e2e.processes import KEY
from tests.fakes.raw_client import CHAT, RawClient, RawResponse, post, raw_client
from tests.kill.engine import BURST, MODEL, Script

LENGTHS: Final = (1, 2, 9, 30, 60, 150)
_BROKEN: Final = (EOFError, OSError, TimeoutError, httptools.HttpParserError)
_AGAIN_S: Final = 0.05
PATIENCE_S: Final = 60.0


@dataclass(slots=True)
class Seen:
    """What one caller saw of one answer.

    Attributes:
        script: what it asked for.
        id: of the answer; empty when not even its head came.
        status: HTTP status, 0 when there was none.
        tokens: pieces of text that came.
        finished: what finishes the answer came.
        done: its very end came.
        usage: as the answer told it.
        error: the type of the error it was told.
        left: the caller hung up.
        late: it waited ``PATIENCE_S`` and heard neither more nor the end of the connection.
    """

    script: Script
    id: str = ""
    status: int = 0
    tokens: int = 0
    finished: bool = False
    done: bool = False
    usage: dict[str, Any] | None = None
    error: str = ""
    left: bool = False
    late: bool = False

    def read(self, response: RawResponse) -> None:
        """Take down what there is of the answer."""
        self.status = response.status
        self.id = response.headers.get("x-generation-id", "")
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            self._read_events(response.body)
        elif response.complete:
            self._read_whole(response.document)

    def _read_events(self, body: bytes) -> None:
        for block in body[: body.rfind(b"\n\n") + 2].decode().split("\n\n")[:-1]:
            if not block.startswith("data: "):
                continue
            data = block.removeprefix("data: ")
            if data == "[DONE]":
                self.done = True
                continue
            document = json.loads(data)
            if "error" in document:
                self.error = document["error"]["metadata"]["error_type"]
                continue
            for choice in document["choices"]:
                self.tokens += (choice["delta"].get("content") or "").count("tok ")
                self.finished |= choice["finish_reason"] is not None
            self.usage = document.get("usage") or self.usage

    def _read_whole(self, document: dict[str, Any]) -> None:
        if "error" in document:
            self.error = document["error"]["metadata"]["error_type"]
            return
        self.tokens = document["choices"][0]["message"]["content"].count("tok ")
        self.usage = document["usage"]
        self.finished = self.done = True


class Crowd:
    """Callers that ask one after another until they are told to stop; each has a seed of its own.

    Attributes:
        seen: one entry for each request whose bytes went out.
        port: where the gateway is; 0 while nobody knows.
    """

    def __init__(self, chance: Random, count: int) -> None:
        self.seen: list[Seen] = []
        self.port = 0
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._ask_on(Random(chance.random()))) for _ in range(count)]

    async def stop(self) -> None:
        """Let every caller hear its last answer out."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    @property
    def answered(self) -> int:
        """How many answers were heard to their end."""
        return sum(seen.done for seen in self.seen)

    async def _ask_on(self, chance: Random) -> None:
        while not self._stop.is_set():
            try:
                async with raw_client(self.port) as client:
                    seen = Seen(_script(chance))
                    self.seen.append(seen)
                    await _ask(client, seen, chance)
                if not seen.done:
                    await asyncio.sleep(_AGAIN_S)
            except OSError:  # nobody listens
                await asyncio.sleep(_AGAIN_S)


def _script(chance: Random) -> Script:
    prompt, completion = chance.randrange(1, 2_000), chance.choice(LENGTHS)
    pause = chance.choice([0.0, 0.002, 0.02, 0.05])
    fault = chance.choice(["refuse", "cut"]) if chance.random() < 0.03 else ""
    return Script(prompt, chance.choice([0, prompt // 2]), completion, chance.choice([1, 3, BURST]), pause, fault)


async def _ask(client: RawClient, seen: Seen, chance: Random) -> None:
    """Ask once; a bad end is written down, not raised."""
    stream = chance.random() < 0.75
    leaves_at = chance.randrange(1, 40) if stream and chance.random() < 0.08 else 0
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": seen.script.text()}],
        "max_tokens": seen.script.completion,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    try:
        async with asyncio.timeout(PATIENCE_S):
            await client.send(post(CHAT, body, KEY, "Connection: close"))
            while not client.responses or not client.responses[0].complete:
                await client._more()
                if leaves_at and client.responses and client.responses[0].body.count(b'"content":"tok ') >= leaves_at:
                    seen.left = True
                    break
    except TimeoutError:
        seen.late = True
    except _BROKEN:
        pass
    if client.responses:
        seen.read(client.responses[0])
