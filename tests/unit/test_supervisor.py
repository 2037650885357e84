"""A supervisor's children: what they are told, what they have of it, and that it outlives whatever they do."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from gateway import supervisor
from gateway.pulse import Pulse
from tests.fakes.forks import Fork, tell


def supervise(talking: Connection, kind: str, refused: tuple[int, ...] = (), patience: float = 1.0) -> None:
    """Be a supervisor of a keeper that sleeps and of a worker of this ``kind``.

    The system refuses the forks of these numbers, the first being 0.
    """

    def keeping(leash: int, pulse: Pulse) -> int:
        tell(talking, "kept", os.getpid())
        return sleeping(leash, pulse)

    def sleeping(leash: int, _pulse: Pulse) -> int:
        select.select([leash], [], [], 60.0)  # until the supervisor is gone; a test leaves no process
        return 0

    def dying(_leash: int, _pulse: Pulse) -> int:
        tell(talking, "died", os.getpid())
        return 3

    def telling(leash: int, pulse: Pulse) -> int:
        tell(talking, "worked", os.getpid())
        return sleeping(leash, pulse)

    def failing(_leash: int, _pulse: Pulse) -> int:
        tell(talking, "failed", os.getpid())
        raise RuntimeError

    def looking(leash: int, pulse: Pulse) -> int:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        pipe = os.fstat(leash).st_ino  # both ends have it
        ours = sum(os.fstat(number).st_ino == pipe for number in range(256) if _open(number))
        usual = all(signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP))
        name = Path("/proc/self/comm").read_text().strip() if sys.platform == "linux" else "weir worker"
        tell(talking, "saw", ours, usual, signal.SIGHUP in held, signal.SIGTERM in held, name)
        return sleeping(leash, pulse)

    kinds: dict[str, supervisor.Work] = {
        "sleeping": sleeping,
        "dying": dying,
        "failing": failing,
        "looking": looking,
        "telling": telling,
        "living": partial(_living, talking),
        "hanging": partial(_hanging, talking),
    }
    supervisor.LONGEST_DELAY = 0.01  # type: ignore[misc] # deaths by the dozen, without the pauses between them
    os.fork = _refusing(refused, talking)
    listener = supervisor.bind("127.0.0.1", 0)
    work = {"keeper": keeping, "worker": kinds[kind]}
    overseer = supervisor.Supervisor(listener, 1, grace=60.0, patience=patience, work=work)
    tell(talking, "supervisor", os.getpid())
    tell(talking, "ended", overseer.run())


async def _life(pulse: Pulse, seconds: float) -> None:
    signs = asyncio.create_task(pulse.give(0.05))  # no sign is late where one is missed after a second
    await asyncio.sleep(seconds)
    signs.cancel()


def _living(talking: Connection, _leash: int, pulse: Pulse) -> int:
    tell(talking, "lives", os.getpid())
    asyncio.run(_life(pulse, 60.0))
    return 0


def _hanging(talking: Connection, leash: int, pulse: Pulse) -> int:
    """Give signs of life for a moment; what it says of itself is heard."""
    os.dup2(talking.fileno(), 2)
    tell(talking, "hangs", os.getpid())
    asyncio.run(_life(pulse, 0.1))
    select.select([leash], [], [], 60.0)
    return 0


def _refusing(refused: tuple[int, ...], talking: Connection) -> Callable[[], int]:
    """Return a ``fork`` that fails as on a machine without memory or processes to spare."""
    fork, numbers = os.fork, count()

    def forking() -> int:
        if (number := next(numbers)) in refused:
            tell(talking, "refused", number)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    return forking


def _open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Overseer:
    """A supervisor in a process of its own."""

    def __init__(self, fork: Fork) -> None:
        self._fork = fork
        self._aside: list[list[str]] = []
        self.pid = int(self.heard("supervisor")[0])

    def heard(self, word: str) -> list[str]:
        """Wait for the next line that begins with ``word``; return the rest of it. Others stay to be heard."""
        for place, (first, *rest) in enumerate(self._aside):
            if first == word:  # keeper and worker say theirs in either order
                del self._aside[place]
                return rest
        for line in self._fork.said:
            first, *rest = line.decode().strip().split(" ")
            if first == word:
                return rest
            self._aside.append([first, *rest])
        raise AssertionError(f"it ended without saying {word}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


@contextmanager
def overseen(kind: str, refused: tuple[int, ...] = (), patience: float = 1.0) -> Iterator[Overseer]:
    """Run a supervisor for the block."""
    fork = Fork(supervise, kind, refused, patience)
    with closing(fork.said):
        try:
            yield Overseer(fork)
        finally:
            if fork.alive:
                fork.kill()


def test_a_child_has_the_signals_of_a_new_process_and_not_the_supervisors_end_of_the_leash() -> None:
    """Only SIGHUP waits; with the write end in a child, none would ever notice that the supervisor is gone."""
    with overseen("looking") as overseer:
        assert overseer.heard("saw") == ["1", "True", "True", "False", "weir", "worker"]
        overseer.signal(signal.SIGTERM)
        assert overseer.heard("ended") == ["0"]


def test_children_that_were_started_this_moment_hear_that_they_are_to_stop() -> None:
    """Told at once, before anything of the child ran: none takes the signal with a handler that is not its own."""
    for pause in (0.0, 0.001, 0.003, 0.01):
        with overseen("sleeping") as overseer:
            overseer.heard("kept")
            time.sleep(pause)
            before = time.monotonic()
            overseer.signal(signal.SIGTERM)
            assert overseer.heard("ended") == ["0"]
            assert time.monotonic() - before < 30.0, "not killed after the grace of 60 seconds"


def test_what_dies_again_and_again_is_started_again_whatever_signals_come_meanwhile() -> None:
    """A reload in the moment of a burial harms neither."""
    with overseen("dying") as overseer:
        pids = set()
        for _ in range(20):
            pids.add(overseer.heard("died")[0])
            for _ in range(5):
                overseer.signal(signal.SIGHUP)
        assert len(pids) == 20
        overseer.signal(signal.SIGTERM)
        assert overseer.heard("ended") == ["0"]


def test_a_child_that_fails_ends_there_and_then() -> None:
    """Nothing of the supervisor's goes on in it: there is one supervisor afterwards, and a new child."""
    with overseen("failing") as overseer:
        assert len({overseer.heard("failed")[0] for _ in range(3)}) == 3
        overseer.signal(signal.SIGTERM)
        assert overseer.heard("ended") == ["0"]
        assert [line for line in overseer._fork.said if line.startswith(b"ended")] == []


def test_a_fork_that_fails_is_tried_again_and_harms_nobody_who_runs() -> None:
    """Without memory or processes to spare nothing new is started for a while; what runs goes on, signals arrive."""
    with overseen("telling", refused=(2, 3, 4)) as overseer:
        keeper, worker = (int(overseer.heard(word)[0]) for word in ("kept", "worked"))
        os.kill(worker, signal.SIGKILL)
        assert [overseer.heard("refused")[0] for _ in range(3)] == ["2", "3", "4"]
        assert int(overseer.heard("worked")[0]) != worker
        os.kill(keeper, 0)
        overseer.signal(signal.SIGTERM)
        assert overseer.heard("ended") == ["0"]


def test_a_supervisor_that_cannot_fork_at_all_still_hears_that_it_is_to_stop() -> None:
    """From its first moment on: it goes on trying, and signals are held back only while it does."""
    with overseen("sleeping", refused=tuple(range(1000))) as overseer:
        for _ in range(4):
            overseer.heard("refused")
        overseer.signal(signal.SIGTERM)
        assert overseer.heard("ended") == ["0"]


def test_a_child_that_hangs_says_where_and_is_replaced() -> None:
    """It gave signs of life, then its loop stood still; what it wrote names the line, and nothing else."""
    with overseen("hanging") as overseer:
        first = overseer.heard("hangs")[0]
        said = []
        for line in overseer._fork.said:
            said.append(line.decode())
            if said[-1].startswith("hangs "):
                break
        assert any(" in _hanging" in line and "test_supervisor.py" in line for line in said), said
        assert said[-1].split() != ["hangs", first]
        overseer.signal(signal.SIGTERM)
        assert overseer.heard("ended") == ["0"]


def test_a_child_that_is_stopped_is_replaced_and_one_that_goes_on_in_time_is_not() -> None:
    """Where nothing can be written any more it is killed all the same."""
    with overseen("living", patience=3.0) as overseer:
        worker = int(overseer.heard("lives")[0])
        time.sleep(0.5)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(worker, signal.SIGCONT)
        time.sleep(0.5)
        os.kill(worker, 0)
        os.kill(worker, signal.SIGSTOP)
        assert int(overseer.heard("lives")[0]) != worker
        overseer.signal(signal.SIGTERM)
        assert overseer.heard("ended") == ["0"]


def test_nobody_is_watched_without_patience_or_before_its_first_sign() -> None:
    """A start may take its time, and whoever stops a process on purpose has no watchdog."""
    for kind, word, patience in (("telling", "worked", 0.2), ("living", "lives", 0.0)):
        with overseen(kind, patience=patience) as overseer:
            worker = int(overseer.heard(word)[0])
            if kind == "living":
                time.sleep(0.5)
                os.kill(worker, signal.SIGSTOP)
            time.sleep(2.5)
            os.kill(worker, signal.SIGCONT)
            os.kill(worker, 0)
            overseer.signal(signal.SIGTERM)
            assert overseer.heard("ended") == ["0"]


def test_seconds_in_which_nobody_looked_do_not_count() -> None:
    """A machine that slept, or a watcher that was stopped with whom it watches, makes nobody look dead."""

    async def sign() -> None:
        task = asyncio.create_task(pulse.give())
        await asyncio.sleep(0)
        task.cancel()

    pulse = Pulse()
    pulse.forget(100.0)
    assert pulse.look(200.0) == 0.0, "before the first sign"
    asyncio.run(sign())
    assert pulse.look(200.2) == 0.0
    assert [round(pulse.look(now), 1) for now in (200.4, 200.6, 4000.0, 4000.2)] == [0.2, 0.4, 1.4, 1.6]
    for _ in range(600):  # the count begins again
        asyncio.run(sign())
        assert pulse.look(4001.0) == 0.0
