"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from gateway.sim import SimConfig, Timing
from tests.e2e.processes import Process, Simulators, WeirProcess

_SHOWN = 20_000


class Serve(Protocol):
    """Starts ``weir serve``."""

    def __call__(self, home: Path | None = None, *, workers: int = 1, **environ: str) -> WeirProcess:
        """Start it in the state folder ``home``, by default a new one."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the newest processes said to the report of a test that failed."""
    report = yield
    if report.failed:
        report.sections += [(process.command, process.output[-_SHOWN:]) for process in Process.all[-2:]]
    return report


@pytest.fixture(scope="module")
def simulators() -> Iterator[Simulators]:
    """Two simulated vLLM replicas: a token every few milliseconds, as many as are asked for."""
    timing = Timing(base_ttft=0.005, itl=0.004)
    with Simulators(
        *(
            SimConfig(
                "vllm", name=f"gpu-{letter}", timing=timing, answer_tokens=100_000, context_length=200_000, seed=seed
            )
            for seed, letter in enumerate("ab")
        )
    ) as running:
        yield running


@pytest.fixture(scope="module")
def config(simulators: Simulators, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration file over the simulated backends."""
    path = tmp_path_factory.mktemp("config") / "weir.yaml"
    path.write_text(simulators.configuration())
    return path


@pytest.fixture(scope="module")
def serve(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Return what starts ``weir serve``; all that was started is gone at the end of the module."""
    with ExitStack() as stack:

        def start(home: Path | None = None, *, workers: int = 1, **environ: str) -> WeirProcess:
            folder = home or tmp_path_factory.mktemp("serve") / "home"
            return stack.enter_context(WeirProcess(folder, config, workers=workers, **environ))

        yield start
