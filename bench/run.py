"""The benchmark's entry: `python -m bench.run [--quick] [--only NAME …]`.

One contestant is alive at a time; rounds go round all of them, beginning with another one each time, so
that a slow minute of the machine does not fall on one alone. A contestant that is missing or fails is
reported and the others are still measured; the exit status is then 1. Full runs write `docs/bench`, others
`bench/.cache` unless told. Only processes started here are ended, also when the run is interrupted.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench import check, environment, machine, measure, report
from bench.contestants import CONTESTANTS
from bench.contestants.base import HOST, ROOT, Contestant, ContestantError, Server
from bench.figures import over_rounds
from bench.load import LoadError, Target, wrk_path
from bench.payload import BODY_BYTES, CHUNK_GAP_S, CHUNKS

REPLICAS: Final = 8
CACHE: Final = ROOT / "bench" / ".cache"
_DIRECT: Final = "direct"
_OPEN_FILES: Final = 16_384
_BUSY: Final = 0.3
"""Load per core before the run above which a warning is due."""


@contextmanager
def mock_backend(replicas: int) -> Iterator[list[int]]:
    """Runs the mock in a process of its own; yields its ports."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.mock", "--ports", str(replicas)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            if words[:1] != ["READY"]:
                raise ContestantError("the mock did not start")
            yield [int(word) for word in words[1:]]
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


class Benchmark:
    """One run over the chosen contestants."""

    def __init__(self, contestants: Sequence[Contestant], sizes: measure.Sizes, work: Path, console: Console) -> None:
        self._contestants = contestants
        self._sizes = sizes
        self._work = work
        self._console = console
        self._rounds: dict[str, list[measure.Round]] = {name: [] for name in (*self._names(), _DIRECT)}

    def _names(self) -> list[str]:
        """Returns the contestants' names."""
        return [item.name for item in self._contestants]

    def play(self, ports: Sequence[int]) -> None:
        """Plays all rounds."""
        direct = Target(HOST, ports[0], "/v1/chat/completions", "direct", {})
        total = self._sizes.rounds + sum(self._times(item) for item in self._contestants)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("", total=total)
            for number in range(self._sizes.rounds):
                progress.update(task, description=f"round {number + 1}: direct")
                baseline = measure.direct(direct, self._sizes, self._work)
                self._rounds[_DIRECT].append(baseline)
                progress.advance(task)
                for item in self.order(number):
                    progress.update(task, description=f"round {number + 1}: {item.name}")
                    seen = self._one(item, number, ports, baseline)
                    self._rounds[item.name].append(seen)
                    for failure in seen.failures:
                        self._console.print(f"{item.name}: {failure}", style="red", markup=False, highlight=False)
                    progress.advance(task)

    def _times(self, item: Contestant) -> int:
        """Returns in how many rounds a contestant takes part."""
        return self._sizes.heavy_rounds if item.heavy else self._sizes.rounds

    def order(self, number: int) -> list[Contestant]:
        """Returns who plays in round `number`, the list turned by one place a round."""
        playing = [item for item in self._contestants if number < self._times(item)]
        turn = number % len(playing) if playing else 0
        return playing[turn:] + playing[:turn]

    def _one(self, item: Contestant, number: int, ports: Sequence[int], baseline: measure.Round) -> measure.Round:
        """Starts a contestant in a fresh folder, measures it, stops it."""
        work = self._work / f"{item.name}-{number}"
        work.mkdir()
        try:
            with Server(item, work, ports) as server:
                return measure.contestant(server, baseline, self._sizes, work)
        except ContestantError as error:
            return measure.Round(failures=[f"start: {error}"])

    def entries(self) -> dict[str, report.Entry]:
        """Returns the report's entries: the contestants in their order, then the mock alone."""
        entries = {}
        for item in self._contestants:
            try:
                version = item.version()
            except ContestantError:
                version = "not installed"
            entries[item.name] = report.Entry(item.title, version, item.setup)
        entries[_DIRECT] = report.Entry("direct to the mock", "", "no gateway, for the delays")
        for name, entry in entries.items():
            entry.figures = over_rounds(seen.figures for seen in self._rounds[name])
            texts = dict.fromkeys(text for seen in self._rounds[name] for text in seen.failures)
            entry.failures = [_public(text) for text in texts]
        return entries


def _public(text: str) -> str:
    """Returns the first line of a failure without this machine's paths, for files that are kept."""
    return text.splitlines()[0].replace(str(ROOT), ".").replace(str(Path.home()), "~")[:300]


def _method(sizes: measure.Sizes) -> dict[str, object]:
    """Returns the numbers the method is made of."""
    return {
        "body_bytes": BODY_BYTES,
        "replicas": REPLICAS,
        "chunks": CHUNKS,
        "chunk_gap_ms": round(CHUNK_GAP_S * 1000),
        **asdict(sizes),
    }


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="bench.run", description="Measures Weir beside other gateways.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: below 3 minutes")
    parser.add_argument("--only", nargs="+", choices=sorted(CONTESTANTS), metavar="NAME", help="these contestants only")
    parser.add_argument("--output", type=Path, help="folder for latest.json and the dated page")
    return parser.parse_args(arguments)


def _prepare(console: Console, chosen: Sequence[Contestant]) -> None:
    """Raises the limit of open files, looks for wrk, makes the peers' environment.

    Raises LoadError and its like.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, hard), hard))
    wrk_path()
    if any(item.name != "weir" for item in chosen) and not environment.is_current():
        with console.status("making .venv-bench: the other gateways, about 800 MB"):
            environment.make()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes, prints; returns the exit status: 0 all measured, 1 something failed, 2 cannot run."""
    options = _arguments(arguments)
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    chosen = [kind() for name, kind in CONTESTANTS.items() if not options.only or name in options.only]
    sizes = measure.QUICK if options.quick else measure.FULL
    try:
        _prepare(console, chosen)
    except (LoadError, environment.PeersError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    CACHE.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    begun, date = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    facts = machine.machine(work)
    if os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1):
        console.print("the machine is busy with something else: figures will be too high", style="yellow")
    benchmark = Benchmark(chosen, sizes, work, console)
    with mock_backend(REPLICAS) as ports:
        benchmark.play(ports)
    run = report.Run(
        date=date,
        quick=options.quick,
        seconds=time.monotonic() - begun,
        machine=facts,
        versions=machine.versions(),
        method=_method(sizes),
        contestants=benchmark.entries(),
    )
    partial = options.quick or options.only
    latest, dated = report.write(run, options.output or (CACHE if partial else report.DOCS))
    print(report.page(run))
    print(check.table(check.judge(report.document(run))))
    console.print(f"wrote {latest} and {dated}", markup=False)
    if any(entry.failures for entry in run.contestants.values()):
        console.print(f"something failed; the contestants' output is in {work}", style="red", markup=False)
        return 1
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
