"""A backend's URL is enough to be asked for its models; without a price they are served to nobody."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from gateway.sim import SimConfig, SimFleet
from tests.harness import ADMIN_KEY, Stage, chat_body, staged

PATH = "/api/v1/models/discovered"
CONFIG = """
backends: [{{name: gpu, kind: vllm, url: "{url}"}}]
egress: {{allow: ["127.0.0.0/8"]}}
{models}
"""
MODELS = """
models:
  - {id: big, context_length: 4096, price: {prompt: "1", completion: "1"}, endpoints: [{backend: gpu, model: Acme/Big}]}
"""


async def offered(stage: Stage) -> list[dict[str, Any]]:
    """Return what backends offer once one of them was asked."""
    async with asyncio.timeout(10):
        while True:
            answer = await stage.http.get(stage.url + PATH, headers=stage.admin)
            found: list[dict[str, Any]] = answer.json()["data"]
            if found:
                return found
            await asyncio.sleep(0.05)


async def command(stage: Stage, *arguments: str) -> str:
    """Return what ``weir models discovered`` prints."""
    weir = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.cli",
        *("models", "discovered", "--url", stage.url, *arguments),
        env=os.environ | {"WEIR_HOME": str(stage.home), "WEIR_ADMIN_KEY": ADMIN_KEY},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await weir.communicate()
    assert weir.returncode == 0
    return printed.decode()


async def test_what_a_backend_offers_is_shown_and_not_served(tmp_path: Path) -> None:
    """The operator sees the models and what adopts them; a caller is told why there is no answer."""
    async with SimFleet([SimConfig(name="gpu", models=("Acme/Big", "Acme/Small"))]) as fleet:
        async with staged(tmp_path / "bare", CONFIG.format(url=fleet["gpu"].url, models="")) as stage:
            found = await offered(stage)
            assert [each["model"] for each in found] == ["Acme/Big", "Acme/Small"]
            assert found[0]["backends"] == [{"name": "gpu", "provider": "gpu", "kind": "vllm"}]
            assert '- id: "Acme/Big"' in found[0]["configuration"]
            assert json.loads(await command(stage, "--json")) == found
            shown = await command(stage)
            assert "Acme/Small" in shown
            assert found[0]["configuration"] in shown
            answer = await stage.chat(chat_body("Acme/Big"))
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert "offered by gpu" in error["message"]
            assert "no price" in error["message"]
            assert error["metadata"]["offered_by"] == ["gpu"]
            assert not fleet["gpu"].books
            answer = await stage.http.get(stage.url + PATH, headers=stage.headers)
            assert answer.status_code in {401, 403}
        async with staged(tmp_path / "adopted", CONFIG.format(url=fleet["gpu"].url, models=MODELS)) as stage:
            assert (await stage.chat(chat_body("big"))).status_code == 200
            assert [each["model"] for each in await offered(stage)] == ["Acme/Small"]
