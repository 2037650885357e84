"""``weir export``: files of what was used and billed. A file is there whole or not at all; errors are ``WeirError``."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.console import Json, fail, print_json, say, table
from gateway.commands.environment import with_keeper

if TYPE_CHECKING:
    from gateway.billing.export import Export, Progress
    from gateway.commands.environment import Reached

app = typer.Typer(help="Exports: FOCUS, usage, statements.", no_args_is_help=True)
Team = Annotated[str | None, typer.Option(help="Only this team; default all.")]
Period = Annotated[str | None, typer.Option(help="A month such as 2026-10: what is billed in it.")]
First = Annotated[str | None, typer.Option("--from", help="First UTC day of the usage, such as 2026-10-05.")]
Last = Annotated[str | None, typer.Option("--to", help="Last UTC day of the usage.")]
Format = Annotated[str, typer.Option("--format", help="csv, json, jsonl or parquet; a statement also html.")]
Out = Annotated[Path | None, typer.Option(help="File to write; a name is made when it is left out.")]
Sink = Annotated[str | None, typer.Option(help="Deliver it to this sink instead of writing a file.")]


DATASETS = {
    "focus": "Write costs as FOCUS 1.2 and later: a row per day, team, key, endpoint and token class.",
    "usage": "Write usage by day, key, model, endpoint, app, tier and status, whoever paid for it.",
    "statement": "Write the statement of a team.",
}
"""What each dataset's command does."""


def _add_command(dataset: str) -> None:
    @app.command(dataset, help=DATASETS[dataset])
    def export(
        team: Team = None,
        period: Period = None,
        first: First = None,
        last: Last = None,
        form: Format = "csv",
        out: Out = None,
        sink: Sink = None,
        as_json: Json = False,
    ) -> None:
        _export(dataset, team, (period, first, last), form, out, sink, as_json=as_json)


for _dataset in DATASETS:
    _add_command(_dataset)


@app.command("check")
def export_check(
    file: Annotated[Path, typer.Argument(help="A FOCUS file: .csv, .json, .jsonl or .parquet.")], as_json: Json = False
) -> None:
    """Check a FOCUS file against the rules of version 1.2; exit status 1 when one is broken."""
    from gateway.billing.focus_check import check_file

    try:
        report = check_file(file)
    except (OSError, ValueError) as error:
        fail(f"{file} cannot be read: {error}", 1)
    if as_json:
        print_json({"ok": report.ok, "rows": report.rows, "rules": report.rules, "problems": report.problems})
    elif report.ok:
        say(f"{report.rows:,} rows keep all {report.rules} rules")
    else:
        table(
            ("rule", "row", "problem"), [(each["rule"], str(each["row"]), each["problem"]) for each in report.problems]
        )
    raise SystemExit(0 if report.ok else 1)


def _export(
    dataset: str,
    team: str | None,
    time: tuple[str | None, str | None, str | None],
    form: str,
    out: Path | None,
    sink: str | None,
    *,
    as_json: bool,
) -> None:
    """Make an export, or have it made for a sink."""
    from gateway.billing import methods
    from gateway.billing.export import export_of, selection
    from gateway.billing.shown import item_data

    export = export_of(dataset, form, selection(team, *time))
    if sink is not None:
        order = (sink, dataset, export.wanted, form)
        item = item_data(with_keeper(lambda keeper: keeper.ask(methods.ORDER, order), configured=True, fresh=True))
        if as_json:
            print_json(item)
        else:
            say(f"ordered: {item['id']}; `weir billing sinks` says what becomes of it")
        return
    path = out or Path(export.name)
    if not path.parent.is_dir():
        fail(f"{path.parent} is no folder", 1)
    try:
        with_keeper(lambda keeper: _made(keeper, export, path), configured=True, fresh=True)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}", 1)
    _tell(export, path, as_json=as_json)


async def _made(keeper: Reached, export: Export, path: Path) -> None:
    """Make an export under a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from gateway.billing.export import export_to

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(*columns, console=Console(stderr=True), transient=True)
    with shown:
        task = shown.add_task(export.dataset, total=None)

        def heard(progress: Any) -> None:
            shown.update(task, total=progress.parts or None, completed=progress.done, description=_rows(progress))

        await export_to(keeper, export, path, heard)


def _rows(progress: Progress) -> str:
    return f"{progress.rows:,} rows"


def _tell(export: Export, path: Path, *, as_json: bool) -> None:
    """Say what was written."""
    manifest = export.manifest | {"file": str(path)}
    if as_json:
        print_json(manifest)
        return
    sums = ", ".join(f"{name} {total}" for name, total in manifest["sums"].items())
    say(f"{path}: {manifest['rows']:,} rows, {manifest['bytes']:,} bytes, sha256 {manifest['sha256']}")
    if sums:
        say(f"sums: {sums}")
