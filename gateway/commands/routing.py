"""``weir route``: what a running gateway would decide. One that cannot be asked is a ``StartError``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.console import Json, fail, print_json, say, table
from gateway.commands.environment import ask_gateway, read_settings

app = typer.Typer(help="Routing decisions.", no_args_is_help=True)


@app.command("explain")
def route_explain(
    model: Annotated[str | None, typer.Option(help="Model or alias asked for.")] = None,
    body: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="File with a whole chat request, not --model."),
    ] = None,
    preset: Annotated[str, typer.Option(help="Route with this preset instead of the default.")] = "",
    url: Annotated[str | None, typer.Option(help="Where the gateway listens; default PORT of this machine.")] = None,
    as_json: Json = False,
) -> None:
    """Show how a running gateway would route a request now: candidates, drops with reasons, scores, the pick."""
    settings = read_settings()
    if body is not None:
        content = body.read_bytes()
    elif model is not None:
        content = json.dumps({"model": model, "messages": [{"role": "user", "content": "explain"}]}).encode()
    else:
        raise typer.BadParameter("give --model or --body")
    status, document = ask_gateway(
        settings, url, "POST", "/api/v1/route/explain", params={"preset": preset}, content=content
    )
    if as_json:
        print_json(document)
    elif status == 200:
        _show_decision(document)
    else:
        fail(document["error"]["message"], 1)
    raise SystemExit(0 if status == 200 else 1)


def _show_decision(document: dict[str, Any]) -> None:
    if "refused" in document:
        say(f"refused: {document['refused']}")
    else:
        names = list(document["candidates"][0]["terms"])
        rows = [
            (
                str(found["place"] or ""),
                found["candidate"],
                f"{found['score']:.3f}",
                *(f"{found['terms'][name]['score']:.3f}" for name in names),
            )
            for found in document["candidates"]
        ]
        say(f"{document['model']} by {document['policy']}: {document['pick']}")
        table(("place", "candidate", "score", *names), rows)
    if document["drops"]:
        rows = [(drop["candidate"], drop["filter"], drop["reason"]) for drop in document["drops"]]
        table(("dropped", "by", "because"), rows)
