"""``make kill`` in small: real processes killed at named and at random moments; three books agree afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT
from tests.kill.__main__ import run
from tests.kill.failpoints import IN_KEEPER, IN_WORKER

KILLS = 20
SEED = 3


@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    """Workers, keepers and the only process die under callers; the ledger's server goes away and the disk is full."""
    result = await run(tmp_path, KILLS, SEED)
    assert result.verdict.lost == []
    assert result.verdict.doubled == []
    assert result.kills >= KILLS
    assert sum(result.points.values()) == result.kills
    assert result.completed >= KILLS
    assert result.rows["ok"] >= result.completed
    assert result.rows["orphaned"] > 0
    assert result.redelivered > 0


def test_failpoints_exist_in_tests_only() -> None:
    """The gateway has no hook for them: no word of them in its source, and its functions are wrapped by the tests."""
    for path in (*(ROOT / "gateway").rglob("*.py"), *(ROOT / "policies").rglob("*.py")):
        text = path.read_text()
        assert "KILL_" not in text, path
        assert "failpoint" not in text.lower(), path
        assert not [name for name in (*IN_WORKER, *IN_KEEPER) if f'"{name}"' in text], path
    shown = (
        "import os, tests.kill.launch as launch\n"
        "from gateway.metering import checkpoints, kernel_sync, meter, segments, sync\n"
        "from gateway.metering.backlog import Backlog\n"
        "found = lambda: [hasattr(each, '__wrapped__') for each in (meter.Meter.opened, meter.Meter.settle, \n"
        "    segments.SegmentWriter._write, sync._perform, kernel_sync.KernelSync.submit, \n"
        "    checkpoints.save, Backlog.remove)]\n"
        "before = found()\n"
        "from pathlib import Path\n"
        "launch.install(launch.Points(Path('.')), Path('.'))\n"
        "print(any(before), all(found()))\n"
    )
    done = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"], done.stderr
