"""A configuration that changes while requests run: what began by the old one leaves nothing behind for the new one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.routing.decisions.record import FIND
from gateway.types import ids
from tests.fakes.backend import Visit, hand_backend, whole
from tests.fakes.pair import pair
from tests.harness import Backend, Stage, configuration, staged


async def reload(stage: Stage, before: str, after: str) -> None:
    """Go by a file that says ``after`` in place of ``before``."""
    version, text = stage.gateway.snapshot.version, stage.config.read_text()
    assert before in text
    stage.config.write_text(text.replace(before, after))
    stage.gateway.reload()
    async with asyncio.timeout(10):
        while stage.gateway.snapshot.version == version:
            await asyncio.sleep(0.02)


def key_of(visit: Visit) -> str:
    """Return the key that a request came with."""
    lines = visit.head.decode().lower().split("\r\n")
    return next((line.split()[-1] for line in lines if line.startswith("authorization:")), "none")


async def test_a_walk_that_goes_on_behind_a_reload_leaves_its_key_to_nobody(tmp_path: Path) -> None:
    """A request that fails over to a backend whose key was changed meanwhile may have the old one, no later one may."""
    broken = asyncio.Event()

    async def breaks(visit: Visit) -> None:
        await broken.wait()
        await visit.answer({"error": {"message": "down"}}, "500 Internal Server Error")

    async def answers(visit: Visit) -> None:
        await visit.answer(whole())

    (tmp_path / "key").write_text("sk-old-key")
    (tmp_path / "new").write_text("sk-new-key")
    async with hand_backend(breaks) as first, hand_backend(answers) as second:
        keyed = "provider: second, api_key: {file: key}"
        config = pair(first.url, second.url, more="").replace("provider: second", keyed)
        async with staged(tmp_path, config) as stage:
            asking = asyncio.create_task(stage.chat())
            await first.visit()
            await reload(stage, "file: key", "file: new")
            broken.set()
            assert (await asking).status_code == 200
            assert (await stage.chat()).status_code == 200
            assert key_of(second.visits[-1]) == "sk-new-key"


@pytest.mark.parametrize("status", ["401 Unauthorized", "402 Payment Required", "429 Too Many Requests"])
async def test_another_key_is_not_held_to_account_for_the_one_before(status: str, tmp_path: Path) -> None:
    """A backend that is out, or asked to be left alone, because of its key is asked at once with the next one."""

    async def script(visit: Visit) -> None:
        if key_of(visit) == "sk-new-key":
            await visit.answer(whole())
        else:
            told = "retry-after: 200\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 60s\r\n"
            await visit.answer({"error": {"message": "no"}}, status, told if status.startswith("429") else "")

    (tmp_path / "key").write_text("sk-old-key")
    (tmp_path / "new").write_text("sk-new-key")
    async with hand_backend(script) as api:
        config = configuration([Backend("a", api.url, "openai", more="api_key: {file: key}")])
        async with staged(tmp_path, config) as stage:
            for _ in range(6):
                await stage.chat()
            assert (await stage.chat()).status_code == 503
            await reload(stage, "file: key", "file: new")
            assert (await stage.chat()).status_code == 200


async def test_how_many_decisions_are_kept_follows_the_file(tmp_path: Path) -> None:
    """Of none at first every one is kept behind a reload that says so, and none again behind the next."""

    async def answers(visit: Visit) -> None:
        await visit.answer(whole())

    async def kept(stage: Stage) -> bool:
        answer = await stage.chat()
        await stage.gateway.desk.recorder.flush()
        return await stage.keeper.ask(FIND, (ids.parse(answer.headers["x-generation-id"]),)) is not None

    none, every = "share: 0.0", "share: 1.0"
    async with hand_backend(answers) as backend:
        config = configuration([Backend("a", backend.url)], more=f"routing: {{decisions: {{{none}}}}}")
        async with staged(tmp_path, config) as stage:
            assert not await kept(stage)
            await reload(stage, none, every)
            assert await kept(stage)
            await reload(stage, every, none)
            assert not await kept(stage)
