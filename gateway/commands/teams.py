"""``weir teams``: teams. What the keeper refuses is a ``WeirError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.console import Json, iso, moment, print_json, say, table
from gateway.commands.environment import with_keeper

app = typer.Typer(help="Teams.", no_args_is_help=True)


@app.command("create")
def teams_create(slug: str, name: Annotated[str | None, typer.Option(help="Shown name.")] = None) -> None:
    """Make a team."""
    team = with_keeper(lambda keeper: keeper.create_team(slug, name or slug))
    say(f"team {team.slug}")


@app.command("list")
def teams_list(as_json: Json = False) -> None:
    """List all teams."""
    import msgspec

    teams = with_keeper(lambda keeper: keeper.teams())
    if as_json:
        print_json([msgspec.to_builtins(team) | {"created_at": iso(team.created_at)} for team in teams])
        return
    table(("team", "name", "made"), [(team.slug, team.name, moment(team.created_at)) for team in teams])
