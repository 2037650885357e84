"""The command line: parse, call, print. Every command that prints a table takes ``--json``.

Exit status: 0 done, 1 it failed or the answer is no, 2 the command line or the environment is wrong.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import httpx
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from gateway import __version__, demo, supervisor
from gateway.access.keys import label
from gateway.access.management import mint_local_token
from gateway.app import presets
from gateway.config.load import load
from gateway.config.problem import ConfigError
from gateway.db.engine import UnsupportedDatabase
from gateway.db.migrations import UnknownRevision, migrate
from gateway.keeper.address import KeeperError, KeeperLock
from gateway.keeper.client import KeeperClient
from gateway.keeper.process import reaching
from gateway.keeper.service import Keeper
from gateway.process import StartError, Startup, prepare, serve_alone, serve_keeper, serve_worker
from gateway.settings import Settings, SettingsError
from gateway.sim import KINDS, SimConfig, Timing
from gateway.sim import run as run_sims
from gateway.telemetry import logs
from gateway.types.errors import WeirError
from gateway.types.keys import KeyLimits, KeyRecord, NewKey

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

app = typer.Typer(name="weir", help="One endpoint for every app; every token metered once.", no_args_is_help=True)
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
db_app = typer.Typer(help="The ledger database.", no_args_is_help=True)
keys_app = typer.Typer(help="Inference keys.", no_args_is_help=True)
teams_app = typer.Typer(help="Teams.", no_args_is_help=True)
route_app = typer.Typer(help="Routing decisions.", no_args_is_help=True)
meter_app = typer.Typer(help="Metering.", no_args_is_help=True)
for name, sub in (
    ("config", config_app),
    ("db", db_app),
    ("keys", keys_app),
    ("teams", teams_app),
    ("route", route_app),
    ("meter", meter_app),
):
    app.add_typer(sub, name=name)

_out: Final = Console(width=None if sys.stdout.isatty() else 10_000)
_err: Final = Console(stderr=True)


def main() -> None:
    """Run the command line; an expected error is one sentence, not a trace."""
    try:
        app()
    except (SettingsError, StartError, KeeperError) as error:
        _fail(str(error), 2)
    except WeirError as error:
        _fail(error.message, 1)


def _fail(message: str, status: int) -> NoReturn:
    _err.print(message, style="red", highlight=False, markup=False, soft_wrap=True)
    raise SystemExit(status)


def _settings(config: Path | None = None, *, quiet: bool = False) -> Settings:
    """Return the settings of the environment; ``--config`` counts as WEIR_CONFIG. A ``quiet`` command logs errors."""
    if config is not None:
        os.environ["WEIR_CONFIG"] = str(config)
    settings = Settings.read()
    known = [key.get_secret_value() for key in (settings.admin_key, settings.demo_key) if key is not None]
    logs.configure("error" if quiet else settings.log_level, settings.log_format, secrets=known)
    if settings.log_level == "info":
        for chatty in ("uvicorn.error", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    return settings


# Serving

Config = Annotated[Path | None, typer.Option("--config", help="Configuration file; default WEIR_CONFIG.")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="TCP port; default PORT or 8000, 0 takes a free one.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
    config: Config = None,
) -> None:
    """Serve the configured fleet."""
    settings = _settings(config)
    startup = prepare(settings)
    raise SystemExit(_serve(startup, host, settings.port if port is None else port, workers, _announce))


@app.command("demo")
def run_demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="TCP port; default PORT or 8000.")] = None,
) -> None:
    """Serve a simulated fleet and print how to talk to it."""
    settings = _settings()
    home = settings.home
    backend_key = "sim-" + demo.kept(home, "demo.backend-key", os.urandom(16).hex())
    os.environ["WEIR_SIM_DEMO_KEY"] = backend_key
    os.environ.setdefault("WEIR_DEMO_KEY", demo.inference_key(home))
    os.environ.setdefault("WEIR_ADMIN_KEY", demo.admin_key(home))
    os.environ.setdefault("WEIR_LOG_LEVEL", "warning")
    with demo.simulated_fleet(backend_key) as urls:
        settings = _settings(demo.write_config(home, urls))
        startup = prepare(settings)
        assert settings.demo_key is not None
        assert settings.admin_key is not None
        key, admin = settings.demo_key.get_secret_value(), settings.admin_key.get_secret_value()

        def announce(_startup: Startup, base: str) -> None:
            sys.stdout.write(demo.welcome(base, key, admin))
            sys.stdout.flush()

        status = _serve(startup, host, settings.port if port is None else port, 1, announce)
    raise SystemExit(status)


def _serve(startup: Startup, host: str, port: int, workers: int, announce: Callable[[Startup, str], None]) -> int:
    try:
        listener = supervisor.bind(host, port)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host
    base = f"http://{shown}:{listener.getsockname()[1]}"
    if workers == 1:
        return serve_alone(startup, listener, lambda: announce(startup, base))
    KeeperLock(startup.settings.home).acquire().release()  # said here once, not by one keeper after another in the log
    announce(startup, base)
    return supervisor.Supervisor(listener, workers, (), grace=startup.settings.grace).run()


def _announce(startup: Startup, base: str) -> None:
    _out.print(f"Weir {__version__} serves {base}", highlight=False)
    if startup.new_admin_key is not None:
        _out.print(f"management key (shown this once): {startup.new_admin_key}", highlight=False, soft_wrap=True)


@app.command(hidden=True)
def worker(
    fd: Annotated[int, typer.Option(help="Inherited listening socket.")],
    leash: Annotated[int, typer.Option(help="Inherited pipe; its end means that the supervisor is gone.")],
) -> None:
    """Serve as one of several workers; started by the supervisor."""
    raise SystemExit(serve_worker(prepare(_settings()), fd, leash))


@app.command(hidden=True)
def keeper(leash: Annotated[int, typer.Option(help="As of worker.")]) -> None:
    """Keep the ledger for several workers; started by the supervisor."""
    raise SystemExit(serve_keeper(prepare(_settings()), leash))


@app.command()
def sim(
    kind: Annotated[str, typer.Option(help=f"Whose HTTP face: {', '.join(KINDS)}.")] = "vllm",
    model: Annotated[list[str] | None, typer.Option(help="Model served; may be repeated.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="TCP port, 0 takes a free one.")] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Requests that run at the same time.")] = 256,
    ttft: Annotated[float, typer.Option(min=0, help="Seconds to the first token of an empty prompt.")] = 0.05,
    itl: Annotated[float, typer.Option(min=0, help="Seconds between tokens.")] = 0.02,
    demo_fleet: Annotated[bool, typer.Option("--demo", hidden=True)] = False,
) -> None:
    """Run one simulated backend until it is stopped."""
    if demo_fleet:
        asyncio.run(demo.run_fleet(os.environ["WEIR_SIM_DEMO_KEY"]))
        return
    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}")
    timing = Timing(base_ttft=ttft, itl=itl, slots=slots)
    models = tuple(model) if model else ("Qwen/Qwen3-32B",)
    try:
        asyncio.run(run_sims((SimConfig(kind, models, f"sim-{kind}", port=port, timing=timing),)))
    except OSError as error:
        raise StartError(f"cannot listen on port {port}: {error.strerror}; choose another with --port") from error


# Configuration and database


@config_app.command("check")
def config_check(config: Config = None, as_json: Json = False) -> None:
    """Say what is wrong with a configuration file, where, and the mend."""
    settings = _settings(config)
    if settings.config is None:
        raise StartError("no configuration: give --config FILE or set WEIR_CONFIG")
    try:
        snapshot = load(settings.config, presets=presets())
    except ConfigError as error:
        if as_json:
            _print_json({"ok": False, "problems": [msgspec.to_builtins(problem) for problem in error.problems]})
        else:
            _err.print(str(error), highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(1) from None
    found = {"ok": True, "backends": len(snapshot.backends), "models": len(snapshot.models)}
    if as_json:
        _print_json(found)
    else:
        _out.print(f"{settings.config}: good; {found['backends']} backends, {found['models']} models", highlight=False)


@db_app.command("migrate")
def db_migrate() -> None:
    """Bring the ledger database to this version. The keeper does it too when it starts; none may run now."""
    settings = _settings()
    lock = KeeperLock(settings.home).acquire()
    try:
        asyncio.run(migrate(settings.ledger_url.get_secret_value()))
    except (UnsupportedDatabase, UnknownRevision) as error:
        raise StartError(str(error)) from error
    finally:
        lock.release()
    _out.print("the database is at this version")


# Teams and keys

Reached = Keeper | KeeperClient


def _with_keeper(do: Callable[[Reached], Coroutine[Any, Any, T]]) -> T:
    """Run ``do`` with the keeper of WEIR_HOME: the one that runs, else one of this process."""
    settings = _settings(quiet=True)
    pepper = settings.obtain_secret().get_secret_value().encode()

    async def reach() -> T:
        found: AbstractAsyncContextManager[Reached] = reaching(
            settings.home, settings.ledger_url.get_secret_value(), pepper
        )
        async with found as reached:
            return await do(reached)

    return asyncio.run(reach())


@teams_app.command("create")
def teams_create(slug: str, name: Annotated[str | None, typer.Option(help="Shown name.")] = None) -> None:
    """Make a team."""
    team = _with_keeper(lambda keeper: keeper.create_team(slug, name or slug))
    _out.print(f"team {team.slug}", highlight=False)


@teams_app.command("list")
def teams_list(as_json: Json = False) -> None:
    """List all teams."""
    teams = _with_keeper(lambda keeper: keeper.teams())
    if as_json:
        _print_json([msgspec.to_builtins(team) for team in teams])
        return
    _table(("team", "name", "made"), [(team.slug, team.name, _moment(team.created_at)) for team in teams])


@keys_app.command("create")
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
    new = NewKey(
        name=name,
        team=team,
        models=tuple(model) if model else None,
        limits=KeyLimits(rpm, tpm, concurrent),
        expires_at=None if days is None else int((time.time() + days * 86_400) * 1e6),
    )
    issued = _with_keeper(lambda keeper: keeper.create_key(new))
    if as_json:
        _print_json({"key": issued.key, "key_id": issued.record.key_id})
    else:
        _out.print(issued.key, highlight=False, soft_wrap=True)


@keys_app.command("list")
def keys_list(
    team: Annotated[str | None, typer.Option(help="Only this team's.")] = None, as_json: Json = False
) -> None:
    """List keys that are not revoked, newest first."""
    keys = _with_keeper(lambda keeper: keeper.keys(team))
    if as_json:
        _print_json([_shown(key) for key in keys])
        return
    rows = [
        (
            key.key_id,
            key.name,
            key.team,
            ", ".join(key.models) if key.models is not None else "all",
            _limits(key.limits),
            _moment(key.expires_at),
            _moment(key.last_used_at),
        )
        for key in keys
    ]
    _table(("key", "name", "team", "models", "limits", "expires", "last used"), rows)


@keys_app.command("rotate")
def keys_rotate(
    key_id: str, overlap: Annotated[float, typer.Option(min=0, help="Seconds the old secret still works.")] = 86_400
) -> None:
    """Give a key a new secret; it is shown this once."""
    issued = _with_keeper(lambda keeper: keeper.rotate_key(key_id, overlap))
    _out.print(issued.key, highlight=False, soft_wrap=True)


@keys_app.command("revoke")
def keys_revoke(key_id: str) -> None:
    """Revoke a key for good; within a second no process accepts it."""
    record = _with_keeper(lambda keeper: keeper.revoke_key(key_id))
    _out.print(f"revoked {label(record.key_id)}", highlight=False)


# Routing and metering


@route_app.command("explain")
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
    settings = _settings()
    if body is not None:
        content = body.read_bytes()
    elif model is not None:
        content = json.dumps({"model": model, "messages": [{"role": "user", "content": "explain"}]}).encode()
    else:
        raise typer.BadParameter("give --model or --body")
    status, document = _explained(settings, url or f"http://127.0.0.1:{settings.port}", preset, content)
    if as_json:
        _print_json(document)
    elif status == 200:
        _show_decision(document)
    else:
        _fail(document["error"]["message"], 1)
    raise SystemExit(0 if status == 200 else 1)


def _explained(settings: Settings, url: str, preset: str, content: bytes) -> tuple[int, dict[str, Any]]:
    """Return status and document of the gateway at ``url``. Raises ``StartError`` when none answers there."""
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
        _out.print(f"refused: {document['refused']}", highlight=False, soft_wrap=True)
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
        _out.print(f"{document['model']} by {document['policy']}: {document['pick']}", highlight=False)
        _table(("place", "candidate", "score", *names), rows)
    if document["drops"]:
        rows = [(drop["candidate"], drop["filter"], drop["reason"]) for drop in document["drops"]]
        _table(("dropped", "by", "because"), rows)


@meter_app.command("audit")
def meter_audit(as_json: Json = False) -> None:
    """Compare journal, ledger and rollups; exit status 1 when they disagree."""
    report = _with_keeper(lambda keeper: keeper.audit())
    if as_json:
        _print_json(msgspec.to_builtins(report))
    else:
        for title, counts in (("journal", report.journal), ("ledger", report.ledger), ("rollups", report.rollups)):
            _table((title, ""), [(name, f"{count:,}") for name, count in counts.items()])
        _out.print("all books agree" if report.ok else "\n".join(report.mismatches), highlight=False, markup=False)
    raise SystemExit(0 if report.ok else 1)


# Printing


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table whole: folded to the width of a terminal, a line per row for whoever reads it from a pipe."""
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _out.print(table, highlight=False)


def _moment(microseconds: int | None) -> str:
    if microseconds is None:
        return "never"
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def _limits(limits: KeyLimits) -> str:
    found = [f"{value} {word}" for word in ("rpm", "tpm", "concurrent") if (value := getattr(limits, word)) is not None]
    return ", ".join(found) or "none"


def _shown(key: KeyRecord) -> dict[str, Any]:
    """Return a key as JSON-able members, without its digests."""
    hidden = {"digest", "previous_digest"}
    return {name: value for name, value in msgspec.structs.asdict(key).items() if name not in hidden} | {
        "limits": msgspec.to_builtins(key.limits)
    }


if __name__ == "__main__":
    main()
