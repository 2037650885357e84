"""Usage that an engine does not report, reports twice or reports wrongly: what the ledger makes of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.sim import KINDS, Fault, Kind, SimConfig
from tests.integration.gateway.ledger import price, scene_of


@pytest.mark.parametrize("kind", KINDS)
async def test_usage_that_is_missing_is_made_up_for_here(tmp_path: Path, kind: Kind) -> None:
    """Without usage tokens are counted where a delta is a token, else estimated, and the ledger says which."""
    config = SimConfig(kind, name="a", faults=(Fault(kind="no_usage"),), prompt_cache=False)
    async with scene_of(tmp_path, config) as scene:
        for stream in (True, False):
            more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
            response = await scene.stage.chat(more)
            (row,) = await scene.attempts(response.headers["x-generation-id"])
            entry = scene.entries()[-1]
            assert row.status == "ok"
            if kind == "tgi" and stream:
                assert (row.source, row.usage.completion) == ("counted", entry.completion_tokens)
            else:
                assert row.source == "estimated"
                assert entry.completion_tokens / 2 <= row.usage.completion <= entry.completion_tokens * 3
            assert entry.prompt_tokens / 2 <= row.usage.prompt <= entry.prompt_tokens * 2
            assert row.charge_nano == price(row) > 0
            told = msgspec.json.decode(response.text.split("data: ")[-2]) if stream else response.json()
            assert told["usage"]["completion_tokens"] == row.usage.completion
            assert round(told["usage"]["cost"] * 1e9) == row.charge_nano
        await scene.audited()


async def test_usage_that_comes_twice_is_paid_once(tmp_path: Path) -> None:
    """One row, the engine's counts, one usage chunk to the caller."""
    async with scene_of(tmp_path, SimConfig(name="a", faults=(Fault(kind="usage_twice"),))) as scene:
        response = await scene.stage.chat(stream=True, stream_options={"include_usage": True})
        assert response.text.count('"usage":{') == 1
        (row,) = await scene.attempts()
        (entry,) = scene.entries()
        assert (row.usage.prompt, row.usage.completion) == (entry.prompt_tokens, entry.completion_tokens)
        assert row.charge_nano == price(row)
        await scene.audited()


async def test_usage_that_cannot_be_true_is_believed_and_reported(tmp_path: Path) -> None:
    """The engine's word is the bill of record; where its deltas are tokens a metric counts the contradiction."""
    wrong = Fault(kind="wrong_usage", factor=3.0)
    async with scene_of(tmp_path, SimConfig("tgi", name="a", faults=(wrong,))) as scene:
        await scene.stage.chat(stream=True)
        (row,) = await scene.attempts()
        (entry,) = scene.entries()
        assert (row.source, row.usage.completion) == ("upstream", 3 * entry.completion_tokens)
        assert (await scene.metric("weir_usage_disagreements_total"))['backend="a"'] == 1
        await scene.audited()
