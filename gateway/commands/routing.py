"""``weir route``: what a running gateway would decide, and what it decided. One that is not there is a ``StartError``.

A decision that is made again and comes out otherwise has exit status 1.
"""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.console import Json, fail, print_json, say, table
from gateway.commands.environment import ask_gateway, read_settings, with_keeper

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


@app.command("replay")
def route_replay(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="Request id, gen-….")],
    as_json: Json = False,
) -> None:
    """Make a kept decision again from what it was made from; exit status 1 when another candidate is picked."""
    import msgspec

    from gateway.app import load_policies
    from gateway.routing.decisions.record import FIND, unpacked
    from gateway.routing.decisions.replay import replay
    from gateway.routing.decisions.shown import whole
    from gateway.types import ids

    parsed = ids.parse(request_id)
    if parsed is None:
        raise typer.BadParameter("a request id is gen- and 32 hexadecimal digits", param_hint="ID")
    decision = with_keeper(lambda keeper: keeper.ask(FIND, (parsed,)))
    if decision is None:
        fail(f"no decision about {request_id} was kept; `weir route decisions` lists those that were", 1)
    try:
        details = unpacked(decision.content)
        again = replay(details, load_policies())
    except ValueError as error:
        fail(f"the decision about {request_id} cannot be made again: {error}", 1)
    document = whole(decision, details)
    if as_json:
        print_json(document | {"replay": msgspec.to_builtins(again)})
    else:
        _show_kept(document)
        say(f"again: {again.pick or 'refused'}, {'as before' if again.same else f'before {again.was}'}")
        for difference in again.differences:
            say(f"  {difference}")
        if not again.whole:
            say("  the loads are as of the failover, so candidates that scored alike may come in another order")
    raise SystemExit(0 if again.same else 1)


@app.command("decisions")
def route_decisions(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    failed_over: Annotated[bool, typer.Option("--failed-over", help="Only of requests that failed over.")] = False,
    as_json: Json = False,
) -> None:
    """List the newest decisions that were kept."""
    from gateway.routing.decisions.record import RECENT
    from gateway.routing.decisions.shown import summary

    found = [summary(each) for each in with_keeper(lambda keeper: keeper.ask(RECENT, (limit, failed_over)))]
    if as_json:
        print_json(found)
    elif not found:
        say("no decision was kept; routing.decisions.share of the configuration says how many are")
    else:
        table(tuple(found[0]), [tuple(str(value or "") for value in each.values()) for each in found])


def _show_kept(document: dict[str, Any]) -> None:
    """Show a kept decision, and what was predicted beside what came."""
    pick, served = document["pick"], document["served"] or "nobody"
    say(f"{document['requested']} by {document['policy']} at {document['at']}: {pick}; answered by {served}")
    for tried in document["tries"]:
        say(f"  {tried['candidate']} failed: {tried['cause']}")
    rows = [
        (str(found["place"] or ""), found["candidate"], f"{found['score']:.3f}", str(found["predicted"].get("ttft_s")))
        for found in document["candidates"]
    ]
    table(("place", "candidate", "score", "predicted ttft_s"), rows)
    if document["drops"]:
        drops = [(drop["candidate"], drop["filter"], drop["reason"]) for drop in document["drops"]]
        table(("dropped", "by", "because"), drops)
    amounts = [(name, _known(value), _known(document["real"][name])) for name, value in document["predicted"].items()]
    table(("", "predicted", "real"), amounts)


def _known(value: object) -> str:
    return "" if value is None else str(value)


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
