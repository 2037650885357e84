"""Workspaces, guardrails and presets in both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.access.guardrails import GuardrailStore
from gateway.access.presets import PresetStore
from gateway.access.store import AccessStore
from gateway.access.workspaces import WorkspaceStore
from gateway.db.engine import Database
from gateway.metering.analytics import Analyst
from gateway.types.analytics import Condition, Question
from gateway.types.budgets import Window
from gateway.types.errors import BadRequest, NotFound
from gateway.types.guardrails import NewGuardrail, Terms, default_id
from gateway.types.keys import NewKey
from gateway.types.workspaces import WorkspacePatch

NUL = "a\0b"


@pytest.fixture(name="database")
async def database_(database_url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    database = Database(database_url)
    yield database
    await database.close()


async def test_teams_with_all_they_have_come_and_go(database: Database) -> None:
    """A team that never had a key is deleted with everything; one that had a key stays."""
    teams, rails, presets = WorkspaceStore(database), GuardrailStore(database), PresetStore(database)
    made = await teams.create("lab", "Lab", WorkspacePatch(description="d", default_sort="price"))
    assert await teams.get("lab") == made
    await teams.add_members("lab", ["ann@example.com"], "admin")
    rail = await rails.create("lab", NewGuardrail("R", "", Terms(zdr=("other",)), 5, Window.DAILY))
    assert await rails.assign_members(rail.guardrail_id, ["ann@example.com"], True) == 1
    preset = await presets.put("lab", "p", {"top_p": 0.5, "stop": "\0"}, "Be brief.", "")
    assert (await presets.get("lab", "p")).designated == preset.designated
    governance = await rails.governance(-1)
    assert governance is not None
    assert governance.members == {"lab": {"ann@example.com": (rail.guardrail_id,)}}
    assert (governance.defaults, governance.presets) == ({"lab": ("", "price")}, frozenset({"lab"}))
    assert await rails.governance(governance.revision) is None
    await teams.delete("lab")
    assert (await teams.members(None), await presets.page(None, 0, 10)) == ((), ((), 0))
    assert [each.team for each in await rails.all(None)] == ["default"]
    with pytest.raises(NotFound):
        await teams.get("lab")
    await AccessStore(database, b"pepper").create_key(NewKey("k", "default"))
    with pytest.raises(BadRequest):
        await teams.delete("default")


async def test_texts_that_a_database_does_not_take_are_names_of_nothing(database: Database) -> None:
    """The character zero, which PostgreSQL has not, is never an error of the gateway."""
    teams, rails, presets = WorkspaceStore(database), GuardrailStore(database), PresetStore(database)
    keys = AccessStore(database, b"pepper")
    for asked in (
        lambda: teams.get(NUL),
        lambda: teams.members(NUL),
        lambda: teams.usage(NUL),
        lambda: rails.all(NUL),
        lambda: rails.get(NUL),
        lambda: rails.assigned_keys(NUL),
        lambda: presets.page(NUL, 0, 1),
        lambda: presets.get(NUL, "p"),
        lambda: presets.get("default", NUL),
        lambda: keys.keys(NUL),
    ):
        with pytest.raises(NotFound):
            await asked()
    for refused in (
        lambda: teams.add_members("default", [f"{NUL}@example.com"], "member"),
        lambda: teams.create(NUL, "n", WorkspacePatch()),
        lambda: teams.update("default", WorkspacePatch(description=NUL)),
        lambda: rails.update(default_id("default"), NewGuardrail("n", NUL, Terms(), None, None)),
        lambda: rails.update(default_id("default"), NewGuardrail("n", "", Terms((NUL,)), None, None)),
        lambda: presets.put("default", "p", {}, NUL, ""),
        lambda: keys.create_key(NewKey("k", NUL)),
    ):
        with pytest.raises(BadRequest):
            await refused()


async def test_a_question_with_every_part_is_answered_by_both(database: Database) -> None:
    """Groups, conditions and speeds are words that both databases understand."""
    where = (Condition("model", ("m",)), Condition("team", ("t",), excluded=True))
    for hourly in (False, True):
        question = Question(hourly, 1, 2, True, ("model", "key_id"), where, speeds=True)
        assert await Analyst(database).cells(question) == ()
    assert await Analyst(database).cells(Question(False, 1, 2, False, ())) == ()
