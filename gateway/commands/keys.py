"""``weir keys``: inference keys. What the keeper refuses is a ``WeirError``; no list shows a secret."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import Json, iso, moment, print_json, say, table
from gateway.commands.environment import with_keeper

if TYPE_CHECKING:
    from gateway.types.keys import KeyLimits, KeyRecord

app = typer.Typer(help="Inference keys.", no_args_is_help=True)
Named = Annotated[str, typer.Argument(help="Its id, its label, or the key itself.")]


@app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "key",
    team: Annotated[str, typer.Option(help="Slug of the team that pays.")] = "default",
    model: Annotated[list[str] | None, typer.Option(help="Allowed model; may be repeated; default all.")] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens per minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests at the same time.")] = None,
    days: Annotated[float | None, typer.Option(min=0, max=36_500, help="Days until it expires; default never.")] = None,
    as_json: Json = False,
) -> None:
    """Make an inference key; it is shown this once."""
    from gateway.types.keys import KeyLimits, NewKey

    new = NewKey(
        name=name,
        team=team,
        models=tuple(model) if model else None,
        limits=KeyLimits(rpm, tpm, concurrent),
        expires_at=None if days is None else int((time.time() + days * 86_400) * 1e6),
    )
    issued = with_keeper(lambda keeper: keeper.create_key(new))
    if as_json:
        print_json({"key": issued.key, "key_id": issued.record.key_id})
    else:
        say(issued.key)


@app.command("list")
def keys_list(
    team: Annotated[str | None, typer.Option(help="Only this team's.")] = None, as_json: Json = False
) -> None:
    """List keys that are not revoked, newest first."""
    keys = with_keeper(lambda keeper: keeper.keys(team))
    if as_json:
        print_json([_shown(key) for key in keys])
        return
    rows = [
        (
            key.key_id,
            key.name,
            key.team,
            ", ".join(key.models) if key.models is not None else "all",
            _limits(key.limits),
            moment(key.expires_at),
            moment(key.last_used_at),
        )
        for key in keys
    ]
    table(("key", "name", "team", "models", "limits", "expires", "last used"), rows)


@app.command("rotate")
def keys_rotate(
    key: Named, overlap: Annotated[float, typer.Option(min=0, help="Seconds the old secret still works.")] = 86_400
) -> None:
    """Give a key a new secret; it is shown this once."""
    issued = with_keeper(lambda keeper: keeper.rotate_key(_id_in(key), overlap))
    say(issued.key)


@app.command("revoke")
def keys_revoke(key: Named) -> None:
    """Revoke a key for good; within a second no process accepts it."""
    from gateway.access.keys import label

    record = with_keeper(lambda keeper: keeper.revoke_key(_id_in(key)))
    say(f"revoked {label(record.key_id)}")


def _id_in(named: str) -> str:
    """Return the id of the key that ``named`` names: an id, a label such as ``sk-weir-1vq9nxgn-...``, or a key."""
    from gateway.access.keys import ID_LENGTH, PREFIX, key_id_of

    if len(named) == ID_LENGTH:
        return named
    return named[len(PREFIX) :].partition("-")[0] if named.startswith(PREFIX) else key_id_of(named)


def _limits(limits: KeyLimits) -> str:
    found = [f"{value} {word}" for word in ("rpm", "tpm", "concurrent") if (value := getattr(limits, word)) is not None]
    return ", ".join(found) or "none"


def _shown(key: KeyRecord) -> dict[str, Any]:
    """Return a key as JSON-able members, without its digests."""
    import msgspec

    hidden = {"digest", "previous_digest"}
    members = {name: value for name, value in msgspec.structs.asdict(key).items() if name not in hidden}
    times = {name: iso(members[name]) for name in members if name.endswith(("_at", "_until"))}
    return members | times | {"limits": msgspec.to_builtins(key.limits)}
