"""``weir meter``: the books. Books that disagree have exit status 1."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import typer

from gateway.commands.console import Json, print_json, say, table
from gateway.commands.environment import with_keeper

app = typer.Typer(help="Metering.", no_args_is_help=True)


@app.command("audit")
def meter_audit(as_json: Json = False) -> None:
    """Compare journal, ledger and rollups; exit status 1 when they disagree."""
    import msgspec

    report = with_keeper(lambda keeper: keeper.audit())
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        for title, counts in (("journal", report.journal), ("ledger", report.ledger), ("rollups", report.rollups)):
            table((title, ""), [(name, f"{count:,}") for name, count in counts.items()])
        say("all books agree" if report.ok else "\n".join(report.mismatches))
        late = report.journal.get("unshipped_bytes", 0)
        if late:
            say(f"{late:,} bytes of the journal are not in the ledger yet and were not compared; ask again in a moment")
    raise SystemExit(0 if report.ok else 1)
