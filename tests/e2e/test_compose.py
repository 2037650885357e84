"""The compose file for the real thing, as far as it can be judged without a container engine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

import yaml

from gateway.app import presets
from gateway.config.load import load
from tests.e2e.processes import ROOT, environment, run, tool

COMPOSE: Final = ROOT / "docker-compose.yml"
EXAMPLE: Final = ROOT / "deploy" / "example.env"


def variables() -> dict[str, str]:
    """Return the variables of the example environment."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def filled() -> dict[str, str]:
    """Return the example environment as an operator fills it in."""
    return {name: value or "0123456789abcdef" * 3 for name, value in variables().items()}


def check(tmp_path: Path, values: dict[str, str]) -> tuple[int, str]:
    """Let docker-compose judge the file; return its status and what it says."""
    binary = tool("docker-compose")
    path = tmp_path / ".env"
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    environ = {name: value for name, value in environment(tmp_path).items() if name not in variables()}
    done = run([binary, "--file", COMPOSE, "--env-file", path, "config", "--quiet"], environ, cwd=tmp_path)
    return done.returncode, done.stderr


def test_compose_takes_the_file(tmp_path: Path) -> None:
    """`docker-compose config` has nothing to say against it with the example environment filled in."""
    assert check(tmp_path, filled()) == (0, "")


def test_compose_names_the_secret_that_is_missing(tmp_path: Path) -> None:
    """The example as it is is refused: secrets have no default."""
    status, says = check(tmp_path, variables())
    assert status != 0
    assert re.search(r"set (a|the) .* in \.env", says)


def test_the_example_environment_has_every_variable_and_no_other() -> None:
    """What the file asks for is what the example lists; what must be set is empty there, the rest has its default."""
    text = COMPOSE.read_text()
    asked = set(re.findall(r"\$\{([A-Z_]+)", text))
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))
    given = variables()
    assert set(given) == asked
    assert {name for name in needed if given[name]} == set()
    assert {name: given[name] for name in defaults} == defaults


def test_the_fleet_of_the_compose_file_is_what_is_configured() -> None:
    """deploy/weir.yaml is good, and its backends are services of the file at their addresses."""
    snapshot = load(ROOT / "deploy" / "weir.yaml", presets=presets(), environ=filled())
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    addresses = {
        service["networks"]["fleet"]["ipv4_address"]: name
        for name, service in services.items()
        if isinstance(service["networks"], dict)
    }
    found = {name: addresses[spec.url.split("//")[1].split(":")[0]] for name, spec in snapshot.backends.items()}
    assert found == {"vllm-a": "vllm", "tgi-a": "tgi"}


def test_everything_that_waits_has_something_to_wait_for() -> None:
    """Every service has a health check; the gateway waits for what it cannot begin without, and for no engine."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == set()
    waits = services["weir"]["depends_on"]
    assert set(waits) == set(services) - {"weir"}
    needed = {name for name, wait in waits.items() if wait["condition"] == "service_healthy"}
    assert needed == {"postgres", "redis"}


def test_the_image_is_made_of_files_that_exist() -> None:
    """What deploy/Dockerfile copies from the checkout is there, nothing ignores it, and all that is packed is."""
    steps = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    sources = [name for step in steps for name in step.split()[:-1]]
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packed["packages"]) <= set(sources)
    assert [name for name in sources if not (ROOT / name).exists()] == []
    mounted = [
        volume.split(":")[0]
        for service in yaml.safe_load(COMPOSE.read_text())["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert [name for name in mounted if not (ROOT / name).is_file()] == []
