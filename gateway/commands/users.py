"""``weir users``: who may sign in to the console. What the keeper refuses is a ``WeirError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.console import Json, fail, iso, moment, print_json, say, table
from gateway.commands.environment import with_keeper

app = typer.Typer(help="People who may sign in to the console.", no_args_is_help=True)


@app.command("list")
def users_list(as_json: Json = False) -> None:
    """List users with their roles."""
    from gateway.console.question import USERS

    users = with_keeper(lambda keeper: keeper.ask(USERS))
    roles = {
        user.user_id: [f"{grant.role.value}{f' of {grant.team}' if grant.team else ''}" for grant in user.grants]
        for user in users
    }
    if as_json:
        print_json(
            [
                {
                    "id": user.user_id,
                    "login": user.login,
                    "name": user.name,
                    "roles": roles[user.user_id],
                    "disabled": user.disabled,
                    "last_seen_at": iso(user.seen_at),
                }
                for user in users
            ]
        )
        return
    rows = [
        [user.login, user.name, ", ".join(roles[user.user_id]), "off" if user.disabled else "on", moment(user.seen_at)]
        for user in users
    ]
    table(["login", "name", "roles", "state", "last seen"], rows)


@app.command("password")
def users_password(login: Annotated[str, typer.Argument(help="Whose.")]) -> None:
    """Give a user a new password; it is shown this once, must be changed, and ends all their sessions."""
    from secrets import token_urlsafe

    from gateway.console.question import SET_PASSWORD, USERS

    found = [user for user in with_keeper(lambda keeper: keeper.ask(USERS)) if user.login == login.lower()]
    if not found:
        fail(f"there is no user {login!r}", 1)
    password = token_urlsafe(15)
    with_keeper(lambda keeper: keeper.ask(SET_PASSWORD, (found[0].user_id, password, True)))
    say(password)
