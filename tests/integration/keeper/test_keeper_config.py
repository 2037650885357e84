"""The configuration that a keeper of several workers works with follows the file."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from gateway import process
from gateway.app import Identity, presets
from gateway.config.load import load
from gateway.process import Startup
from gateway.settings import Settings
from tests.integration.keeper.processes import eventually

CONFIG = """\
backends: [{name: gpu-a, kind: vllm, url: "http://127.0.0.1:9"}]
retention: {ledger_days: 100}
egress: {allow: ["127.0.0.0/8"]}
"""


async def test_a_keeper_follows_the_file_and_sighup(tmp_path: Path) -> None:
    """A changed file is in force by itself, one that looks unchanged after SIGHUP; a bad one changes nothing."""
    path = tmp_path / "weir.yaml"
    path.write_text(CONFIG)
    snapshot = load(path, presets=presets())
    startup = Startup(Settings(config=path, home=tmp_path), snapshot, Identity(b"p", b"d"), None)
    config = process._Config(snapshot)
    async with process._watching(startup, config):
        assert config().retention.ledger_days == 100
        path.write_text(CONFIG.replace("100", "200"))
        await eventually(lambda: config().retention.ledger_days == 200)
        path.write_text(CONFIG.replace("100", "3"))
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.2)
        assert config().retention.ledger_days == 200
        path.write_text(CONFIG.replace("100", "300"))
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: config().retention.ledger_days == 300)
