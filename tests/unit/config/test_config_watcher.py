"""A changed file is taken over whole; a bad one leaves the old configuration in force and is told."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.config.snapshot import ConfigSnapshot
from gateway.config.watcher import ConfigWatcher
from tests.unit.config.example import ENVIRON, EXAMPLE, PRESETS

OTHER = EXAMPLE.replace('"0.30"', '"0.31"')
BAD = EXAMPLE.replace("kind: vllm", "kind: vlm")


class Watched:
    """A file under watch and what its callbacks were told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(EXAMPLE)
        self.changes: list[ConfigSnapshot] = []
        self.refusals: list[ConfigError] = []
        self.watcher = ConfigWatcher(
            path,
            load(path, presets=PRESETS, environ=ENVIRON),
            presets=PRESETS,
            environ=ENVIRON,
            on_change=self.changes.append,
            on_problem=self.refusals.append,
            interval=0.01,
            settle=0.01,
        )

    def error(self) -> ConfigError | None:
        """Why the newest file was refused."""
        return self.watcher.last_error

    def replace(self, text: str) -> None:
        """Put a new file in the place of the old one, as careful editors do."""
        draft = self.path.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.path)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the watcher look for changes meanwhile."""
        task = asyncio.create_task(self.watcher.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A good file under watch."""
    return Watched(tmp_path / "weir.yaml")


async def test_change_is_taken_over(watched: Watched) -> None:
    """A new file becomes the current snapshot, numbered one higher."""
    first = watched.watcher.current
    async with watched.running():
        watched.replace(OTHER)
        await eventually(lambda: watched.changes)
    (second,) = watched.changes
    assert second is watched.watcher.current
    assert second.version == first.version + 1
    assert second.models["qwen/qwen3-32b"].price.completion == 310_000


async def test_bad_file_leaves_the_old_one_in_force(watched: Watched) -> None:
    """A bad file is told once and stays told until a good one comes."""
    first = watched.watcher.current
    async with watched.running():
        watched.replace(BAD)
        await eventually(lambda: watched.refusals)
        await asyncio.sleep(0.1)
        assert len(watched.refusals) == 1
        assert watched.error() is watched.refusals[0]
        assert "did you mean" in str(watched.error())
        assert watched.watcher.current is first
        watched.replace(OTHER)
        await eventually(lambda: watched.changes)
    assert watched.error() is None
    assert watched.watcher.current is watched.changes[0]


async def test_missing_file_leaves_the_old_one_in_force(watched: Watched) -> None:
    """A deleted file is a problem, and its return with the old content ends it without a change."""
    first = watched.watcher.current
    async with watched.running():
        watched.path.unlink()
        await eventually(lambda: watched.refusals)
        assert watched.watcher.current is first
        watched.replace(EXAMPLE)
        await eventually(lambda: watched.error() is None)
    assert watched.changes == []


async def test_file_that_is_still_written_is_waited_for(watched: Watched) -> None:
    """A file that grows while it is looked at is not loaded before it rests."""
    watched.watcher = ConfigWatcher(
        watched.path,
        watched.watcher.current,
        presets=PRESETS,
        environ=ENVIRON,
        on_change=watched.changes.append,
        on_problem=watched.refusals.append,
        interval=0.01,
        settle=1.0,
    )
    async with watched.running():
        with watched.path.open("w") as file:
            for line in OTHER.splitlines(keepends=True):
                file.write(line)
                file.flush()
                await asyncio.sleep(0.05)  # many writes fall into one settling time
        await eventually(lambda: watched.changes)
    assert watched.refusals == []


async def test_slow_reload_does_not_bring_back_what_it_read(watched: Watched) -> None:
    """A reload that is held up after reading the file cannot put its old content over that of a later one."""
    reading, free = threading.Event(), threading.Event()

    class HeldUp(dict[str, str]):
        """An environment whose first reader has to wait."""

        def get(self, key: str, default: Any = None) -> Any:
            if not reading.is_set():
                reading.set()
                free.wait(20)
            return super().get(key, default)

    watched.watcher = ConfigWatcher(
        watched.path,
        watched.watcher.current,
        presets=PRESETS,
        environ=HeldUp(ENVIRON),
        on_change=watched.changes.append,
    )
    watched.replace(OTHER)
    slow = asyncio.create_task(watched.watcher.reload())
    await eventually(reading.is_set)
    watched.replace(EXAMPLE.replace('"0.30"', '"0.32"'))
    late = asyncio.create_task(watched.watcher.reload())
    await asyncio.wait([late], timeout=0.5)
    free.set()
    assert all(await asyncio.gather(slow, late))
    assert watched.watcher.current.models["qwen/qwen3-32b"].price.completion == 320_000


async def test_touched_file_changes_nothing(watched: Watched) -> None:
    """Equal content is no change, however often the file is written."""
    assert await watched.watcher.reload()
    watched.replace("# a comment\n" + EXAMPLE)
    assert await watched.watcher.reload()
    assert watched.changes == []


async def test_reload_on_demand(watched: Watched) -> None:
    """Reload answers whether the file is in force now."""
    watched.replace(BAD)
    assert not await watched.watcher.reload()
    assert watched.error() is watched.refusals[0]
    watched.replace(OTHER)
    assert await watched.watcher.reload()
    assert watched.error() is None
    assert len(watched.changes) == 1


async def test_changed_secret_file_is_taken_over(watched: Watched) -> None:
    """A rotated key is picked up from its file, although the configuration file stays as it is."""
    key = watched.path.with_name("key.txt")
    watched.replace(EXAMPLE.replace('"${DASHSCOPE_API_KEY}"', "{file: key.txt}"))
    async with watched.running():
        await eventually(lambda: watched.refusals)
        key.write_text("sk-one")
        await eventually(lambda: len(watched.changes) == 1)
        key.write_text("sk-two!")
        await eventually(lambda: len(watched.changes) == 2)
    keys = [snapshot.backends["dashscope"].api_key for snapshot in watched.changes]
    assert [secret.reveal() for secret in keys if secret] == ["sk-one", "sk-two!"]


async def test_failing_callback_does_not_end_the_watch(watched: Watched) -> None:
    """When taking over fails, the old snapshot stays and the next change is tried again."""
    calls: list[int] = []

    def fail_once(snapshot: ConfigSnapshot) -> None:
        calls.append(snapshot.version)
        if len(calls) == 1:
            raise RuntimeError("not ready")

    first = watched.watcher.current
    watched.watcher = ConfigWatcher(
        watched.path, first, presets=PRESETS, environ=ENVIRON, on_change=fail_once, interval=0.01, settle=0.01
    )
    async with watched.running():
        watched.replace(OTHER)
        await eventually(lambda: calls)
        assert watched.watcher.current is first
        watched.replace(EXAMPLE.replace('"0.30"', '"0.32"'))
        await eventually(lambda: watched.watcher.current is not first)
    assert calls == [2, 2]


async def test_reloads_do_not_overlap(watched: Watched) -> None:
    """Reloads asked for at once run one after the other and make one change."""
    watched.replace(OTHER)
    assert await asyncio.gather(*(watched.watcher.reload() for _ in range(8))) == [True] * 8
    assert len(watched.changes) == 1


async def test_same_size_rewrite_in_place_is_noticed(watched: Watched) -> None:
    """A file whose name, size and inode stay is noticed by its time."""
    async with watched.running():
        status = watched.path.stat()
        watched.path.write_text(OTHER)
        os.utime(watched.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert watched.path.stat().st_size == status.st_size
        await eventually(lambda: watched.changes)
