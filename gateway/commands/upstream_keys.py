"""``weir upstream-keys``: keys that teams bring along for external APIs. No list shows a key."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway.commands.console import Json, iso, moment, print_json, say, table
from gateway.commands.environment import with_keeper

app = typer.Typer(help="Keys that teams bring along for external APIs.", no_args_is_help=True)
Identity = Annotated[str, typer.Argument(help="The id of the key, as `list` shows it.")]


@app.command("add")
def upstream_keys_add(
    provider: Annotated[str, typer.Argument(help="Slug of the provider.")],
    team: Annotated[str, typer.Option(help="Slug of the team whose key it is.")] = "default",
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    model: Annotated[list[str] | None, typer.Option(help="Model it is for; may be repeated; default all.")] = None,
    required: Annotated[bool, typer.Option(help="Never fall back to the operator's key for these models.")] = False,
    only: Annotated[bool, typer.Option(help="Never use the operator's key for this provider.")] = False,
    fallback: Annotated[bool, typer.Option(help="Use it only after everything else.")] = False,
    as_json: Json = False,
) -> None:
    """Keep a key; it is read from standard input, or asked for, so that no list of processes shows it."""
    from gateway.types.upstream_keys import ADD_UPSTREAM_KEY, NewUpstreamKey

    asked = typer.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    new = NewUpstreamKey(
        team=team,
        provider=provider,
        secret=str(asked).strip(),
        name=name,
        models=tuple(model) if model else None,
        fallback=fallback,
        required=required,
        only=only,
    )
    made = with_keeper(lambda keeper: keeper.ask(ADD_UPSTREAM_KEY, (new,)))
    if as_json:
        print_json({"id": made.key_id, "label": made.label})
    else:
        say(f"{made.key_id} ({made.label}) for {provider}")


@app.command("list")
def upstream_keys_list(
    team: Annotated[str | None, typer.Option(help="Only this team's.")] = None, as_json: Json = False
) -> None:
    """List keys in the order in which they are tried."""
    from gateway.types.upstream_keys import UPSTREAM_KEYS

    keys = with_keeper(lambda keeper: keeper.ask(UPSTREAM_KEYS, (team, None)))
    if as_json:
        shown = [
            {
                "id": key.key_id,
                "team": key.team,
                "provider": key.provider,
                "name": key.name,
                "label": key.label,
                "models": key.models,
                "disabled": key.disabled,
                "is_fallback": key.fallback,
                "is_required": key.required,
                "is_byok_only": key.only,
                "created_at": iso(key.created_at),
            }
            for key in keys
        ]
        print_json(shown)
        return
    rows = [
        (
            key.key_id,
            key.team,
            key.provider,
            key.name,
            key.label,
            ", ".join(key.models) if key.models is not None else "all",
            "disabled" if key.disabled else "fallback" if key.fallback else "first",
            moment(key.created_at),
        )
        for key in keys
    ]
    table(("id", "team", "provider", "name", "key", "models", "used", "added"), rows)


@app.command("revoke")
def upstream_keys_revoke(key: Identity) -> None:
    """Forget a key for good; within a second no process uses it."""
    from gateway.types.upstream_keys import REVOKE_UPSTREAM_KEY

    gone = with_keeper(lambda keeper: keeper.ask(REVOKE_UPSTREAM_KEY, (key,)))
    say(f"revoked {gone.key_id} ({gone.label})")
