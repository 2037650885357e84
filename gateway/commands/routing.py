"""``weir route``: what a running gateway would decide. One that cannot be asked is a ``StartError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import Json, fail, print_json, say, table
from gateway.commands.environment import read_settings

if TYPE_CHECKING:
    from gateway.settings import Settings

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
    status, document = _explained(settings, url or f"http://127.0.0.1:{settings.port}", preset, content)
    if as_json:
        print_json(document)
    elif status == 200:
        _show_decision(document)
    else:
        fail(document["error"]["message"], 1)
    raise SystemExit(0 if status == 200 else 1)


def _explained(settings: Settings, url: str, preset: str, content: bytes) -> tuple[int, dict[str, Any]]:
    """Return status and document of the gateway at ``url``. Raises ``StartError`` when none answers there."""
    import httpx

    from gateway.access.management import mint_local_token
    from gateway.process import StartError

    if settings.admin_key is not None:
        key = settings.admin_key.get_secret_value()
    else:
        key = mint_local_token(settings.obtain_secret().get_secret_value().encode(), time.time())
    try:
        answer = httpx.post(
            f"{url}/api/v1/route/explain",
            params={"preset": preset},
            content=content,
            headers={"authorization": f"Bearer {key}"},
        )
        document = answer.json()
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise StartError(f"no gateway answers at {url}: {error}") from error
    except ValueError:
        document = None
    if not isinstance(document, dict) or (answer.status_code != 200 and "error" not in document):
        raise StartError(f"what answers at {url} is no gateway of this kind; name another with --url")
    return answer.status_code, document


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
