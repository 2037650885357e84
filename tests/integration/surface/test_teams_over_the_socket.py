"""Teams for workers that are other processes than the keeper: all through the socket, and every worker follows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.access.follow import GovernanceFollower
from gateway.access.keys import KeyRing
from gateway.keeper.client import KeeperClient
from gateway.keeper.process import serving
from gateway.types.analytics import ANALYTICS, Condition, Question
from gateway.types.budgets import BUDGETS, Window
from gateway.types.errors import BadRequest, NotFound
from gateway.types.guardrails import (
    ASSIGN_KEYS,
    CREATE_GUARDRAIL,
    GUARDRAILS,
    KEY_ASSIGNMENTS,
    UPDATE_GUARDRAIL,
    Governance,
    NewGuardrail,
    Rule,
    Terms,
    default_id,
)
from gateway.types.keys import NewKey
from gateway.types.presets import PRESET_VERSIONS, PRESETS, PUT_PRESET
from gateway.types.workspaces import ADD_MEMBERS, CREATE_WORKSPACE, MEMBERS, TEAM_USAGE, WORKSPACES, WorkspacePatch

PEPPER = b"pepper"
QUIET = Terms(allowed_models=("a/b",), ignored_providers=("c",), zdr=("other",), deny_collection=True)


async def test_every_worker_follows_what_one_of_them_changed(tmp_path: Path) -> None:
    """A guardrail that came through one worker holds in the other within moments, and so does its end."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}"
    async with serving(tmp_path, url, PEPPER):
        clients = [KeeperClient(tmp_path) for _ in range(2)]
        rings, running = [], []
        for client in clients:
            await client.start()
            ring = KeyRing(PEPPER)
            ring.load(await client.subscribe(ring.apply))
            follower = GovernanceFollower(client, ring.govern)
            await follower.look()
            running.append(asyncio.create_task(follower.run()))
            rings.append(ring)
        one, other = clients
        issued = await one.create_key(NewKey("k", "default"))

        def rule() -> Rule | None:
            return rings[1].authenticate(b"Bearer " + issued.key.encode(), 1).rule

        async with asyncio.timeout(20):
            while issued.record.key_id not in {each.key_id for each in await other.keys()} or not len(rings[1]):
                await asyncio.sleep(0.02)
            assert rule() is None
            new = NewGuardrail("Quiet", "", QUIET, 5_000, Window.DAILY)
            await one.ask(UPDATE_GUARDRAIL, (default_id("default"), new))
            while rule() is None:
                await asyncio.sleep(0.02)
            found = rule()
            assert found is not None
            assert found.guardrails == (("Quiet", QUIET),)
            budgets = [each.budget for each in await other.ask(BUDGETS, (None, (issued.record.key_id,)))]
            assert [(each.limit_nano, each.source) for each in budgets] == [
                (5_000, f"guardrail:{default_id('default')}")
            ]
            await other.ask(UPDATE_GUARDRAIL, (default_id("default"), NewGuardrail("Quiet", "", Terms(), None, None)))
            while rule() is not None:
                await asyncio.sleep(0.02)
            assert await other.ask(BUDGETS, (None, (issued.record.key_id,))) == ()
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for client in clients:
            await client.stop()


async def test_every_question_and_answer_passes_the_socket(tmp_path: Path) -> None:
    """What is asked of teams comes back as what it was, errors too."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}"
    async with serving(tmp_path, url, PEPPER):
        client = KeeperClient(tmp_path)
        await client.start()
        made = await client.ask(CREATE_WORKSPACE, ("lab", "Lab", WorkspacePatch(default_sort="price")))
        assert [each for each in await client.ask(WORKSPACES) if each.team == "lab"] == [made]
        members = await client.ask(ADD_MEMBERS, ("lab", ("Ann@example.com",), "admin"))
        assert await client.ask(MEMBERS, (None,)) == members
        issued = await client.create_key(NewKey("k", "lab", creator="ann@example.com"))
        assert issued.record.creator == "ann@example.com"
        rail = await client.ask(CREATE_GUARDRAIL, ("lab", NewGuardrail("R", "d", QUIET, 7, Window.WEEKLY)))
        assert (await client.ask(GUARDRAILS, ("lab",)))[1] == rail
        with pytest.raises(NotFound):
            await client.ask(ASSIGN_KEYS, (rail.guardrail_id, ("0" * 64,), True))
        with pytest.raises(BadRequest, match="go together"):
            await client.ask(CREATE_GUARDRAIL, ("lab", NewGuardrail("R", "", Terms(), 7, None)))
        assert await client.ask(KEY_ASSIGNMENTS, (rail.guardrail_id,)) == ()
        preset = await client.ask(PUT_PRESET, ("lab", "p", {"top_p": 0.5}, "Be brief.", "creator"))
        assert await client.ask(PRESETS, ("lab", 0, 10)) == ((preset,), 1)
        assert await client.ask(PRESET_VERSIONS, ("lab", "p", 0, 10)) == ((preset.designated,), 1)
        assert await client.ask(TEAM_USAGE, (None,)) == {"default": 0, "lab": 0}
        question = Question(True, 1, 2, True, ("model",), (Condition("team", ("lab",), True),), True)
        assert await client.ask(ANALYTICS, (question,)) == ()
        await client.stop()


def test_rules_of_a_key_are_those_that_hold_for_it() -> None:
    """Its team's default one, its own, and those of the member it belongs to, each once; none of others."""
    rails = {default_id("t"): ("D", QUIET), "g1": ("G1", QUIET), "g2": ("G2", QUIET)}
    said = Governance(1, rails, {"k1": ("g1",)}, {"t": {"ann": ("g1", "g2")}}, {}, frozenset())

    def names(key_id: str, team: str, creator: str) -> list[str]:
        rule = said.rule(key_id, team, creator)
        return [] if rule is None else [name for name, _ in rule.guardrails]

    assert names("k0", "t", "") == ["D"]
    assert names("k1", "t", "") == ["D", "G1"]
    assert names("k1", "t", "ann") == ["D", "G1", "G2"]
    assert names("k2", "other", "ann") == []
