"""Who owns space that is set aside, when several processes look for it at once."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.metering import recovery
from gateway.metering import reserve as reserve_module
from gateway.metering.reserve import Reserve, Space
from gateway.metering.segments import SegmentWriter, list_segments, new_writer_id, sweep
from tests.integration.metering.samples import begin

STEPS = ("open", "stat", "fstat", "statvfs", "rename", "unlink", "flock")
"""Calls between which another process may do anything."""
MOMENTS = 24
"""More calls than setting space aside takes."""
LOCK = fcntl.flock


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set aside little, and look for it twenty times as often."""
    monkeypatch.setattr(reserve_module, "RESERVE_BYTES", 64 * 1024)
    monkeypatch.setattr(recovery, "RETRY_S", (0.01, 0.05))


def between(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> list[str]:
    """Let another process ``act`` once, right before call number ``step`` to the system; return the calls made."""
    made: list[str] = []

    def wrap(place: Any, name: str) -> None:
        real = getattr(place, name)

        def call(*arguments: Any, **options: Any) -> Any:
            made.append(name)
            if len(made) == step:
                act()
            return real(*arguments, **options)

        monkeypatch.setattr(place, name, call)

    for name in STEPS:
        wrap(fcntl if name == "flock" else os, name)
    return made


def leave(folder: Path, age: float = 0.0) -> Path:
    """Leave behind what a worker had set aside that was killed ``age`` seconds later."""
    reserve = Reserve.make(folder, new_writer_id(), 4096)
    os.close(reserve.fd)
    os.utime(reserve.path, (time.time() - age,) * 2)
    return reserve.path


def goes_on(folder: Path, space: Space, now_us: int) -> None:
    """Make a segment of what is set aside, as on a full disk."""
    reserve = space.take()
    assert reserve is not None
    segment = SegmentWriter.create(folder, new_writer_id(), now_us, [], reserve)
    assert segment.path in [file.path for file in list_segments(folder)]
    segment.close()


@pytest.mark.parametrize("step", range(1, MOMENTS))
@pytest.mark.parametrize("left", [False, True], ids=["nothing-left", "left-by-a-dead-one"])
def test_two_that_start_together_have_a_reserve_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, left: bool
) -> None:
    """Whatever the other one does in whatever moment, both can go on in theirs when the disk is full."""
    if left:
        leave(tmp_path)
    one, other = Space(tmp_path, new_writer_id()), Space(tmp_path, new_writer_id())
    with monkeypatch.context() as patched:
        made = between(patched, step, lambda: _provide(other))
        assert one.provide()
    if len(made) < step:
        assert other.provide()
    goes_on(tmp_path, one, 1)
    goes_on(tmp_path, other, 2)
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("step", range(1, MOMENTS))
def test_the_sweep_takes_nothing_from_one_that_takes_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The shipper removes what dead workers left; not what a new one made its own in that moment."""
    leave(tmp_path, age=3600)
    space = Space(tmp_path, new_writer_id())
    with monkeypatch.context() as patched:
        made = between(patched, step, lambda: _provide(space))
        sweep(tmp_path)
    if len(made) < step:
        assert space.provide()
    goes_on(tmp_path, space, 1)


@pytest.mark.parametrize("step", range(1, MOMENTS))
def test_what_became_a_segment_meanwhile_is_not_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Its owner goes on in it, ends it and sets space aside anew, while another looks for leftovers."""
    owner, other = Space(tmp_path, "1-0123456789abcdef"), Space(tmp_path, new_writer_id())
    assert owner.provide()

    def move_on() -> None:
        goes_on(tmp_path, owner, 1)
        assert owner.provide()

    with monkeypatch.context() as patched:
        made = between(patched, step, move_on)
        assert other.provide()
    if len(made) < step:
        return
    goes_on(tmp_path, owner, 2)
    goes_on(tmp_path, other, 3)


def _provide(space: Space) -> None:
    assert space.provide()


async def test_a_lock_that_is_held_for_a_moment_costs_no_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are taken meanwhile, and space is set aside as soon as that can be."""
    held = True

    def flock(descriptor: int, how: int) -> None:
        if held and how & fcntl.LOCK_NB:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        LOCK(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    journal = begin(tmp_path)
    assert not journal.failed
    assert not list(tmp_path.glob("*.new")), "nothing that could not be owned is left"
    held = False
    async with asyncio.timeout(20):
        while not list(tmp_path.glob("reserve-*.new")):
            await asyncio.sleep(0.01)
    assert not journal.failed
    await journal.close()
    assert not list(tmp_path.glob("*.new"))


def test_a_disk_that_was_full_stays_so_while_nothing_can_be_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor to look with, what is left of the reserve is kept for what runs."""
    space = Space(tmp_path, new_writer_id())
    space.full = True

    def no_more(*_arguments: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", no_more)
        assert not space.provide()
    assert space.provide()
    assert not space.full
    space.release()
