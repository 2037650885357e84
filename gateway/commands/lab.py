"""``weir lab``: policies compared on a recorded workload, in virtual time. A trace that cannot be used ends with 2."""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from gateway.commands.console import Json, complain, fail, print_json, say, table

if TYPE_CHECKING:
    from gateway.lab.figures import Figures
    from gateway.lab.setting import Setting
    from gateway.lab.suite import Bar
    from gateway.lab.tasks import Done, Source
    from gateway.lab.trace import Trace

app = typer.Typer(help="Policies compared on recorded workloads, in virtual time.", no_args_is_help=True)
_MANY: Final = frozenset({"--policy", "--seed", "--fault"})


class _ListCommand(TyperCommand):
    """A command whose list options take several values at once: ``--seed 1 2 3`` is ``--seed 1 --seed 2 --seed 3``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write list options out, then parse as always."""
        written: list[str] = []
        option, taken = "", False
        for word in args:
            if word.startswith("-"):
                option, taken = word if word in _MANY else "", False
            elif option and taken:
                written.append(option)
            else:
                taken = True
            written.append(word)
        return super().parse_args(ctx, written)


@app.command("run", cls=_ListCommand)
def run(
    trace: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, readable=True, help="File with the workload.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="Its form: azure, mooncake, vtc, servegen, bailian, weir.")
    ] = "weir",
    policy: Annotated[list[str] | None, typer.Option(help="Preset; several may follow.")] = None,
    replicas: Annotated[int, typer.Option(min=0, max=1_000, help="Own GPU replicas.")] = 4,
    profile: Annotated[str | None, typer.Option(help="Engine of every replica: fast or slow; both in a suite.")] = None,
    rate: Annotated[float, typer.Option(min=0.001, max=10_000, help="Factor on the arrival rate.")] = 1.0,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; several may follow.")] = None,
    admission: Annotated[str, typer.Option(help="Queue, bands and fair sharing before the fleet: on or off.")] = "off",
    external: Annotated[bool, typer.Option("--external", help="Add an external API with a price and limits.")] = False,
    fault: Annotated[list[str] | None, typer.Option(help="What breaks; several may follow.")] = None,
    gateways: Annotated[int, typer.Option(min=1, max=64, help="Gateways that do not talk to one another.")] = 1,
    window: Annotated[str | None, typer.Option(help="Part of the trace: START:END in seconds.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a trace for its first bad line.")] = False,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="Write a page with charts there.")] = None,
    suite: Annotated[str | None, typer.Option(help="Measure a suite instead: bars. Exit 1 on a miss.")] = None,
    traces: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder with whole traces for the suite.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes; default one per core.")] = None,
    as_json: Json = False,
) -> None:
    """Replay a workload against policies on a simulated fleet and compare what came out."""
    from gateway.lab.tasks import Source, quiet

    quiet()
    if suite is not None:
        _check_choice("--suite", suite, ("bars",))
        _run_bars(traces, seed, profile, html, workers, as_json=as_json)
        return
    if trace is None:
        raise typer.BadParameter("give --trace FILE and --format NAME", param_hint="--trace")
    _check_choice("--admission", admission, ("on", "off"))
    _check_format(format_)
    setting = _setting(
        profile or "fast", replicas, gateways, fault or [], external=external, admission=admission == "on"
    )
    source = Source(trace, format_, *_window(window), strict)
    names = _presets(policy)
    done = _replayed(source, rate, setting, names, seed or [1], workers)
    figures = [one.figures for one in done]
    if html is not None:
        _write_figures(html, source, setting, rate, figures)
    if as_json:
        print_json([_document(one) for one in figures])
    else:
        _show(figures)


def _presets(given: list[str] | None) -> list[str]:
    """Return the presets to compare; one that does not exist is refused."""
    from gateway.app import load_policies
    from gateway.routing.refusal import near_names

    names, known = _listed(given) or ["balanced"], load_policies()
    for name in names:
        if name not in known:
            near = near_names(name, list(known)) or sorted(known)
            raise typer.BadParameter(f"there is no preset {name!r}; there is {', '.join(near)}", param_hint="--policy")
    return names


def _replayed(
    source: Source, rate: float, setting: Setting, names: list[str], seeds: list[int], workers: int | None
) -> list[Done]:
    """Replay the trace by each policy with each seed; a trace that cannot be used ends the command with 2."""
    from gateway.app import load_policies
    from gateway.lab.tasks import Task, Workers
    from gateway.lab.trace import TraceError

    try:
        trace = source.trace()
        trace.scaled(rate)  # what cannot be replayed is said here, not by each of the replays
        _tell_left_out(trace)
    except TraceError as error:
        fail(str(error), 2)
    tasks = [Task(source, rate, setting, name, number) for name in names for number in seeds]
    with Workers(load_policies, workers) as pool:
        return list(_progress(pool.run(tasks), len(tasks)))


def _show(figures: list[Figures]) -> None:
    from gateway.lab.report import COLUMNS, row

    table(COLUMNS, [row(one) for one in figures])


def _write_figures(path: Path, source: Source, setting: Setting, rate: float, figures: list[Figures]) -> None:
    from gateway.lab.report import page

    trace = source.trace()
    facts = _facts(source, setting, rate, len(trace.arrivals), trace.span)
    _write_page(path, page(f"Weir lab: {trace.name}", _command(), facts, figures))


def _run_bars(
    folder: Path | None,
    seeds: list[int] | None,
    profile: str | None,
    html: Path | None,
    workers: int | None,
    *,
    as_json: bool,
) -> None:
    """Measure the bars, show them, and end with 1 when one is missed."""
    from rich.console import Console

    from gateway.app import load_policies
    from gateway.lab.report import BAR_COLUMNS, bar_row, bars_page
    from gateway.lab.suite import SEEDS, WINDOWS, Suite
    from gateway.lab.tasks import Workers
    from gateway.lab.trace import TraceError
    from gateway.stepmodel import PROFILES

    if profile is not None:
        _check_choice("--profile", profile, tuple(PROFILES))
    profiles = tuple(PROFILES) if profile is None else (profile,)
    with Workers(load_policies, workers) as pool, Console(stderr=True).status("measuring") as status:
        tell = status.update if sys.stderr.isatty() else complain
        suite = Suite(pool, folder=folder or WINDOWS, seeds=seeds or SEEDS, profiles=profiles, tell=tell)
        try:
            bars = suite.run()
        except TraceError as error:
            fail(str(error), 2)
    if html is not None:
        _write_page(html, bars_page(_command(), seeds or SEEDS, profiles, bars, suite.replays))
    if as_json:
        print_json([_document(bar) for bar in bars])
    else:
        table(BAR_COLUMNS, [bar_row(bar) for bar in bars])
        missed = sum(not bar.met for bar in bars)
        say(f"{len(bars) - missed} of {len(bars)} bars met")
    raise SystemExit(0 if all(bar.met for bar in bars) else 1)


def _document(figures: Figures | Bar) -> dict[str, Any]:
    """Return figures as JSON members, rounded to what they are worth."""
    import msgspec

    made: dict[str, Any] = msgspec.to_builtins(figures)
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in made.items()}


def _setting(
    profile: str, replicas: int, gateways: int, faults: list[str], *, external: bool, admission: bool
) -> Setting:
    from gateway.lab.setting import FAULTS, External, Setting
    from gateway.stepmodel import PROFILES

    _check_choice("--profile", profile, tuple(PROFILES))
    listed = _listed(faults)
    for name in listed:
        _check_choice("--fault", name, tuple(FAULTS))
    if not replicas and not external:
        raise typer.BadParameter("without replicas there must be --external", param_hint="--replicas")
    if not replicas and listed:
        raise typer.BadParameter("faults break replicas, and there is none", param_hint="--fault")
    return Setting(
        profile=PROFILES[profile],
        replicas=replicas,
        external=External() if external else None,
        gateways=gateways,
        faults=tuple(listed),
        admission=admission,
    )


def _check_format(name: str) -> None:
    from gateway.lab.formats import FORMATS

    _check_choice("--format", name, tuple(FORMATS))


def _check_choice(option: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise typer.BadParameter(f"{given!r} is none of {', '.join(known)}", param_hint=option)


def _listed(given: list[str] | None) -> list[str]:
    """Return the names in ``given``, in which commas separate names, too."""
    return list(dict.fromkeys(name for word in given or [] for name in word.split(",") if name))


def _window(given: str | None) -> tuple[float | None, float | None]:
    if given is None:
        return None, None
    start, _, end = given.partition(":")
    try:
        found = float(start) if start else None, float(end) if end else None
    except ValueError:
        raise typer.BadParameter(f"{given!r} is not START:END in seconds", param_hint="--window") from None
    if found[1] is not None and found[1] <= (found[0] or 0.0):
        raise typer.BadParameter("END must be after START", param_hint="--window")
    return found


def _tell_left_out(trace: Trace) -> None:
    """Say which lines and how many requests of the trace were left out."""
    if trace.too_long:
        complain(f"{trace.too_long} requests were left out: too long for any engine here")
    if not trace.bad:
        return
    numbers = ", ".join(str(line.number) for line in trace.bad[:20]) + (", …" if len(trace.bad) > 20 else "")
    plural = "s were" if len(trace.bad) > 1 else " was"
    complain(f"{len(trace.bad)} line{plural} left out: {numbers}; line {trace.bad[0].number}: {trace.bad[0].reason}")


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        yield progress, progress.add_task("replaying", total=total)


def _progress(done: Iterator[Done], total: int) -> Iterator[Done]:
    with _bar(total) as (progress, task):
        for one in done:
            progress.advance(task)
            yield one


def _facts(source: Source, setting: Setting, rate: float, requests: int, span: float) -> list[str]:
    return [
        f"Trace: {source.path.name} ({source.format}), {requests} requests in {span:.0f} s, at {rate:g} times its rate",
        f"Fleet: {setting.replicas} replicas, profile {setting.profile.name}: {setting.profile.description}",
        f"External API: {'yes' if setting.external else 'no'}; gateways that do not talk: {setting.gateways}",
        f"Admission: {'on' if setting.admission else 'off'}; faults: {', '.join(setting.faults) or 'none'}",
        "SLO: first token within 2 s and 1 s per 8,000 uncached prompt tokens, 60 ms between tokens on average",
    ]


def _command() -> str:
    """Return the command line as typed, with file names instead of paths."""
    return " ".join(["weir", *(Path(word).name if "/" in word else word for word in sys.argv[1:])])


def _write_page(path: Path, made: Any) -> None:
    from gateway.lab.page import rendered

    try:
        path.write_text(rendered(made), encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}", 2)
    complain(f"page: {path}")
