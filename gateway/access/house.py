"""What the keeper answers about teams: their settings and members, guardrails, presets."""

from __future__ import annotations

from gateway.access.guardrails import GuardrailStore
from gateway.access.presets import PresetStore
from gateway.access.workspaces import WorkspaceStore
from gateway.db.office import LastAnswer, Office, Premises
from gateway.types import guardrails, presets, workspaces


def open_office(premises: Premises) -> Office:
    """Return the office of teams."""
    teams = WorkspaceStore(premises.database)
    rails = GuardrailStore(premises.database)
    kept = PresetStore(premises.database)
    governance = LastAnswer(guardrails.GOVERNANCE, rails.governance)

    return Office(
        handlers={
            workspaces.WORKSPACES: teams.all,
            workspaces.WORKSPACE: teams.get,
            workspaces.CREATE_WORKSPACE: teams.create,
            workspaces.UPDATE_WORKSPACE: teams.update,
            workspaces.DELETE_WORKSPACE: teams.delete,
            workspaces.MEMBERS: teams.members,
            workspaces.ADD_MEMBERS: teams.add_members,
            workspaces.REMOVE_MEMBERS: teams.remove_members,
            workspaces.TEAM_USAGE: teams.usage,
            guardrails.GUARDRAILS: rails.all,
            guardrails.GUARDRAIL: rails.get,
            guardrails.CREATE_GUARDRAIL: rails.create,
            guardrails.UPDATE_GUARDRAIL: rails.update,
            guardrails.DELETE_GUARDRAIL: rails.delete,
            guardrails.KEY_ASSIGNMENTS: rails.assigned_keys,
            guardrails.MEMBER_ASSIGNMENTS: rails.assigned_members,
            guardrails.ASSIGN_KEYS: rails.assign_keys,
            guardrails.ASSIGN_MEMBERS: rails.assign_members,
            guardrails.GOVERNANCE: governance,
            presets.PRESETS: kept.page,
            presets.PRESET: kept.get,
            presets.PUT_PRESET: kept.put,
            presets.PRESET_VERSIONS: kept.versions,
            presets.PRESET_VERSION: kept.version,
            presets.DELETE_PRESET: kept.delete,
        },
        lasting=(governance.lasting(),),
    )
