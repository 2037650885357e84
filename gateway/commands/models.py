"""``weir models``: the models of a running gateway. One that cannot be asked is a ``StartError``."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.console import Json, fail, print_json, say, table
from gateway.commands.environment import ask_gateway, read_settings

app = typer.Typer(help="Models.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Models."""


@app.command("discovered")
def models_discovered(
    url: Annotated[str | None, typer.Option(help="Where the gateway listens; default PORT of this machine.")] = None,
    as_json: Json = False,
) -> None:
    """Show the models that backends offer and that are not configured, and what adopts them."""
    settings = read_settings()
    status, document = ask_gateway(settings, url, "GET", "/api/v1/models/discovered")
    if status != 200:
        fail(document["error"]["message"], 1)
    found = document["data"]
    if as_json:
        print_json(found)
        return
    if not found:
        say("every model that a backend offers is configured")
        return
    table(("model", "offered by"), [(each["model"], ", ".join(b["name"] for b in each["backends"])) for each in found])
    say("\nadopt one by adding it to models, with its context length and a price:\n")
    for each in found:
        say(each["configuration"])
