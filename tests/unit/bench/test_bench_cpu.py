"""Promises of the accounting: all CPU and memory of a process tree, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.cpu import cpu_seconds, resident_mb, stat_fields, tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_BURN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
_THREAD = f"import threading\nwork = threading.Thread(target=lambda: exec({_BURN!r}))\nwork.start(); work.join()\n"
_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_BURN!r}])\n"


@contextmanager
def _process(code: str) -> Iterator[int]:
    """Runs `code`, then waits; yields the process id once `code` is done."""
    whole = code + "\nprint('done', flush=True)\nimport sys\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", whole], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        yield process.pid
        process.stdin.close()


@pytest.mark.parametrize("code", [_BURN, _THREAD, _CHILD], ids=["main thread", "ended thread", "reaped child"])
def test_cpu_counts_threads_and_ended_children(code: str) -> None:
    """CPU that was used counts wherever in the tree it was used, also when its user has ended."""
    with _process("") as idle, _process(code) as busy:
        assert cpu_seconds(busy) - cpu_seconds(idle) > 0.1


def test_living_children_belong_to_the_tree() -> None:
    """A worker process costs what it costs, in CPU and memory, and is found from its root."""
    code = (
        "import subprocess, sys\n"
        "kept = subprocess.Popen([sys.executable, '-c', \"print('up', flush=True); import sys; "
        "hold = b'x' * 50_000_000; print('held', flush=True); sys.stdin.read()\"], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "kept.stdout.readline(); kept.stdout.readline()"
    )
    with _process("") as alone, _process(code) as parent:
        assert len(tree(alone)) == 1
        assert len(tree(parent)) == 2
        assert resident_mb(parent) - resident_mb(alone) > 50


def test_a_tree_without_its_root_is_an_error() -> None:
    """A contestant that died must not be counted as one that costs nothing."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError, match=f"process {process.pid} is gone"):
        cpu_seconds(process.pid)


def test_command_names_may_hold_anything() -> None:
    """Fields are found after the last parenthesis, as a process may call itself `a) R 1 (`."""
    assert stat_fields("12 (a) R 1 (b) S 7 12")[:2] == ["S", "7"]
