"""The command line as an operator meets it: real commands, what they print, and their exit status."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.commands.serving import MOST_FILES
from gateway.sim import KINDS
from tests.e2e.conftest import Serve
from tests.e2e.processes import (
    AUTHORIZED,
    MANAGING,
    WEIR,
    Process,
    WeirProcess,
    environment,
    eventually,
    run,
)
from tests.fakes.ledgers import furnish
from tests.harness import NO_TLS, chat_body

SECRET_KEY = re.compile(r"sk-weir-([a-z0-9]{8})-[0-9a-f]{40,}")
BAD_FILE = """\
backends:
  - {name: gpu-a, kind: vllm, url: "http://gpu-a:8000", regoin: eu}
models:
  - id: qwen/qwen3-32b
    context_length: 40960
    price: {prompt: "0.10", completion: "0.30"}
    endpoints:
      - {backend: gpu-b}
"""


class Place:
    """A state folder in which commands are run, with a gateway over it or without."""

    def __init__(self, environ: dict[str, str], gateway: WeirProcess | None = None) -> None:
        self.environ = environ
        self.gateway = gateway

    def weir(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return run([WEIR, *arguments], self.environ)

    def said(self, *arguments: str | Path) -> str:
        """Run a command that succeeds and return what it printed."""
        done = self.weir(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    def json(self, *arguments: str | Path) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        return json.loads(self.said(*arguments, "--json"))

    def works(self, key: str) -> bool:
        """Return whether the gateway takes ``key``; True when there is no gateway to ask."""
        if self.gateway is None:
            return True
        headers = {"authorization": f"Bearer {key}"}
        return httpx.get(f"{self.gateway.url}/v1/models", headers=headers, verify=NO_TLS).status_code == 200


@pytest.fixture(scope="module")
def gateway(serve: Serve) -> WeirProcess:
    """A gateway that runs, with one answer in its books."""
    running = serve().ready()
    headers = AUTHORIZED
    url = f"{running.url}/v1/chat/completions"
    answer = httpx.post(url, json=chat_body() | {"max_tokens": 5}, headers=headers, verify=NO_TLS)
    assert answer.status_code == 200, answer.text
    return running


@pytest.fixture
def alone(tmp_path: Path) -> Place:
    """A state folder with an empty ledger that nobody keeps."""
    furnish(tmp_path / "home")
    return Place(environment(tmp_path / "home"))


@pytest.fixture(params=["with a gateway", "alone"])
def place(request: pytest.FixtureRequest) -> Place:
    """A state folder that a gateway keeps, and one that nobody keeps."""
    if request.param == "alone":
        return Place(request.getfixturevalue("alone").environ)
    gateway: WeirProcess = request.getfixturevalue("gateway")
    return Place(gateway.environ, gateway)


def refusal(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the one sentence a refused command says."""
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


# The configuration file


def test_a_good_file_is_called_good(alone: Place, config: Path) -> None:
    """`weir config check` counts what it found; the status is 0."""
    assert alone.said("config", "check", "--config", config) == f"{config}: good; 2 backends, 1 models\n"


def test_a_bad_file_is_explained_line_by_line(alone: Place, tmp_path: Path) -> None:
    """Each problem has file, line, key and mend, for people and as JSON; the status is 1."""
    bad = tmp_path / "weir.yaml"
    bad.write_text(BAD_FILE)
    done = alone.weir("config", "check", "--config", bad)
    assert done.returncode == 1
    problems = done.stderr.splitlines()
    assert len(problems) == 2
    assert re.fullmatch(
        re.escape(str(bad)) + r':2:\d+ backends\[0\]\.regoin: .* -> did you mean "region"\?', problems[0]
    )
    assert re.match(re.escape(str(bad)) + r":8:\d+ models\[0\]\.endpoints\[0\]\.backend: .* -> .+", problems[1])
    done = alone.weir("config", "check", "--config", bad, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert [(problem["file"], problem["line"], problem["key"]) for problem in found["problems"]] == [
        (str(bad), 2, "backends[0].regoin"),
        (str(bad), 8, "models[0].endpoints[0].backend"),
    ]
    assert all(problem["mend"] for problem in found["problems"])


# Keys and teams


def test_the_doctor_tells_a_running_gateway_from_a_broken_one(gateway: WeirProcess, tmp_path: Path) -> None:
    """Beside a gateway at work everything is well and the status is 0; an installation without a file has status 1."""
    found = Place(gateway.environ, gateway).json("doctor")
    assert found["ok"]
    states = {each["check"]: each["detail"] for each in found["findings"]}
    assert states["keeper"] == "runs, and its database answers"
    assert any(check.startswith("backend ") for check in states)
    broken = Place(environment(tmp_path / "nowhere")).weir("doctor")
    assert broken.returncode == 1
    assert "set WEIR_CONFIG or give --config FILE" in broken.stdout


def test_keys_and_teams_live_and_die_by_commands(place: Place) -> None:
    """Made, listed, rotated, revoked: the same with a keeper that runs and without; no list shows a secret."""
    assert place.said("teams", "create", "search", "--name", "Search team") == "team search\n"
    limits = ("--rpm", "600", "--tpm", "90000", "--concurrent", "8", "--days", "30")
    made = place.json(
        "keys", "create", "--name", "search app", "--team", "search", "--model", "qwen/qwen3-32b", *limits
    )
    found = SECRET_KEY.fullmatch(made["key"])
    assert found
    assert found.group(1) == made["key_id"]
    assert place.works(made["key"])

    listed = next(key for key in place.json("keys", "list") if key["key_id"] == made["key_id"])
    assert listed["limits"] == {"rpm": 600, "tpm": 90000, "concurrent": 8}
    assert (listed["name"], listed["team"], listed["models"]) == ("search app", "search", ["qwen/qwen3-32b"])
    assert not SECRET_KEY.search(json.dumps(listed))

    rotated = place.said("keys", "rotate", made["key_id"], "--overlap", "0").strip()
    assert SECRET_KEY.fullmatch(rotated)
    assert place.works(rotated)
    if place.gateway is not None:
        assert not place.works(made["key"])

    assert made["key_id"] in place.said("keys", "revoke", f"sk-weir-{made['key_id']}-...")
    assert all(key["key_id"] != made["key_id"] for key in place.json("keys", "list"))
    if place.gateway is not None:
        eventually(lambda: not place.works(rotated))
    assert "a limit is a whole number from 1" in refusal(place.weir("keys", "create", "--rpm", "9" * 23), 1)


def test_a_key_is_not_made_for_a_model_that_is_not_there(gateway: WeirProcess) -> None:
    """A slip of the pen in a key's models is refused with the near name, by command and by API."""
    said = refusal(Place(gateway.environ).weir("keys", "create", "--model", "qwen/qwen3-23b"), 1)
    assert said == "there is no model 'qwen/qwen3-23b'; did you mean qwen/qwen3-32b?"
    body = {"name": "a", "weir": {"models": ["qwen/qwen3-32b", "qwen"]}}
    answer = httpx.post(f"{gateway.url}/api/v1/keys", json=body, headers=MANAGING, verify=NO_TLS)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "models")


def test_tables_are_whole_in_a_pipe(alone: Place) -> None:
    """Whoever reads a table with another program gets a line per row with nothing cut off, and names as they are."""
    name = "[prod] an application with a rather long name [/] :key:"
    names = ("--name", name, "--model", "qwen/qwen3-235b-a22b-thinking-2507")
    limits = ("--rpm", "1000", "--tpm", "100000000", "--concurrent", "1000", "--days", "30")
    key = alone.said("keys", "create", *names, *limits).strip()
    heads, row = alone.said("keys", "list").splitlines()
    assert heads.split() == ["key", "name", "team", "models", "limits", "expires", "last", "used"]
    assert row.split()[0] == key.split("-")[2]
    assert f"{name}  default  qwen/qwen3-235b-a22b-thinking-2507  1000 rpm, " in row
    assert re.search(r"default +Default +20", alone.said("teams", "list"))
    [team] = alone.json("teams", "list")
    assert team["slug"] == "default"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[0-9:.]+Z", team["created_at"])
    assert "there is no such key" in refusal(alone.weir("keys", "rotate", "zzzzzzzz"), 1)


# Metering


def test_the_audit_tells_agreement_from_disagreement(gateway: WeirProcess, tmp_path: Path) -> None:
    """`weir meter audit` has status 0 when all books agree, and 1 with a sentence when one was tampered with."""
    eventually(lambda: gateway.audit()["ledger"]["requests"] == 1)
    done = gateway.weir("meter", "audit")
    assert done.returncode == 0
    assert done.stdout.endswith("all books agree\n")
    assert re.search(r"tokens_completion +5", done.stdout)

    home = tmp_path / "home"
    home.mkdir()
    with (
        closing(sqlite3.connect(gateway.home / "weir.db")) as original,
        closing(sqlite3.connect(home / "weir.db")) as copy,
    ):
        original.backup(copy)
        copy.execute("UPDATE ledger SET tokens_completion = tokens_completion + 1")
        copy.commit()
    done = Place(environment(home)).weir("meter", "audit", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert any(sentence.startswith("usage_hour and the ledger differ") for sentence in report["mismatches"])


# Routing


def test_a_decision_is_explained(gateway: WeirProcess, tmp_path: Path) -> None:
    """`weir route explain` shows candidates, scores and the pick of the gateway that runs, for people and as JSON."""
    port = {"PORT": gateway.url.rpartition(":")[2]}
    done = gateway.weir("route", "explain", "--model", "qwen/qwen3-32b", **port)
    assert done.returncode == 0, done.stderr
    first = re.match(r"qwen/qwen3-32b by balanced: (\S+)\n", done.stdout)
    assert first
    assert "own/gpu-a" in done.stdout
    assert "own/gpu-b" in done.stdout
    assert first.group(1) in {"own/gpu-a", "own/gpu-b"}

    body = tmp_path / "body.json"
    body.write_text(json.dumps(chat_body() | {"max_tokens": 7}))
    arguments = ("--body", str(body), "--preset", "cheapest", "--url", gateway.url, "--json")
    done = gateway.weir("route", "explain", *arguments)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["policy"] == "cheapest"
    assert {candidate["candidate"] for candidate in shown["candidates"]} == {"own/gpu-a", "own/gpu-b"}
    assert shown["pick"] in {"own/gpu-a", "own/gpu-b"}


def test_a_request_that_nobody_can_take_is_explained_too(gateway: WeirProcess, tmp_path: Path) -> None:
    """A refusal shows what dropped each candidate and why."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = tmp_path / "body.json"
    body.write_text(json.dumps(chat_body() | {"messages": [{"role": "user", "content": [image]}]}))
    done = gateway.weir("route", "explain", "--body", str(body), "--url", gateway.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused: ")
    assert re.search(r"own/gpu-a +capability +no support for image input", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--model", "nobody/knows"), 1, "no model 'nobody/knows'"),
        (("--model", "qwen/qwen3-32b", "--url", "http://127.0.0.1:1"), 2, "no gateway answers at http://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(
    gateway: WeirProcess, arguments: tuple[str, ...], status: int, says: str
) -> None:
    """An unknown name has status 1, an address where no gateway is has status 2."""
    done = gateway.weir("route", "explain", *arguments, PORT=gateway.url.rpartition(":")[2])
    assert says in refusal(done, status)


# The database


def test_the_database_is_migrated_once_and_then_stays(tmp_path: Path, gateway: WeirProcess) -> None:
    """`weir db migrate` may be repeated; while a keeper runs it refuses, because SQLite wants one writer."""
    (tmp_path / "home").mkdir(mode=0o700)
    place = Place(environment(tmp_path / "home"))
    for _ in range(2):
        done = place.weir("db", "migrate")
        assert (done.returncode, done.stdout) == (0, "the database is at this version\n")
    assert f"process {gateway.pid} keeps" in refusal(gateway.weir("db", "migrate"), 2)


# Starting


@pytest.mark.parametrize(
    ("environ", "arguments", "says"),
    [
        ({}, ("serve",), "no configuration: set WEIR_CONFIG or give --config FILE"),
        ({"WEIR_ADMIN_KEY": "short"}, ("serve",), "WEIR_ADMIN_KEY: has 5 characters"),
        ({"WEIR_SECRET": ""}, ("keys", "list"), "WEIR_SECRET: is set but empty"),
        ({"WEIR_DATABASE_URL": "mysql://h/db"}, ("db", "migrate"), "names no database known here"),
    ],
)
def test_a_bad_environment_is_one_sentence(
    alone: Place, environ: dict[str, str], arguments: tuple[str, ...], says: str
) -> None:
    """It names the variable, what is wrong and the mend; the status is 2."""
    assert re.search(says, refusal(run([WEIR, *arguments], alone.environ | environ), 2))


def test_an_address_in_use_is_one_sentence(alone: Place, config: Path) -> None:
    """`weir serve` on a port that somebody has does not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = alone.weir("serve", "--config", config, "--port", port)
    assert refusal(done, 2) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another with --port, or PORT in the environment"
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_state_folder_in_use_is_one_sentence(gateway: WeirProcess, workers: str) -> None:
    """A second gateway on one state folder does not start, with one worker or several."""
    done = gateway.weir("serve", "--port", "0", "--workers", workers)
    assert f"process {gateway.pid} keeps {gateway.home} already" in done.stderr.splitlines()[-1]
    assert done.returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are read from /proc")
def test_a_server_takes_as_many_open_files_as_it_may_have(tmp_path: Path, config: Path) -> None:
    """A soft limit, such as the usual 1,024, is no limit of streams."""
    furnish(tmp_path / "home")
    script = 'ulimit -Sn 256 && exec "$0" serve --port 0'
    environ = environment(tmp_path / "home", WEIR_CONFIG=str(config))
    with Process(["sh", "-c", script, str(WEIR)], environ) as server:
        server.find(r"serves (http://\S+)")
        limits = Path(f"/proc/{server.pid}/limits").read_text()
    [(soft, hard)] = re.findall(r"^Max open files +(\d+) +(\d+)", limits, re.MULTILINE)
    assert int(soft) == min(int(hard), MOST_FILES)


def test_a_management_key_is_made_once_and_shown_once(alone: Place, config: Path) -> None:
    """The first start without one prints it, it works, and no later start prints it again."""
    command: list[str | Path] = [WEIR, "serve", "--config", config, "--port", "0"]
    with Process(command, alone.environ) as first:
        key = first.find(r"management key \(shown this once\): (\S{32,})")
        url = first.find(r"serves (http://\S+)")
        assert httpx.get(f"{url}/api/v1/keys", headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert httpx.get(f"{url}/api/v1/keys", headers=MANAGING).status_code == 401
        assert first.stop() == 0
    with Process(command, alone.environ) as second:
        second.find(r"serves (http://\S+)")
        assert second.stop() == 0
        assert second.left_nothing()
        assert key not in second.output
        assert "management key" not in second.output


# The demo


def test_a_second_demo_leaves_the_first_alone(alone: Place) -> None:
    """It is refused for its port or its state folder before it writes anything, so the first one goes on."""
    with Process([WEIR, "demo", "--port", "0"], alone.environ) as demo:
        port = demo.find(r"http://127\.0\.0\.1:(\d+)/v1")
        demo.find(r"inference key +(sk-weir-\S+)")
        file = Path(alone.environ["WEIR_HOME"]) / "demo.yaml"
        before = file.read_bytes()
        assert "Address already in use" in refusal(alone.weir("demo", "--port", port), 2)
        assert "keeps" in refusal(alone.weir("demo", "--port", "0"), 2)
        assert file.read_bytes() == before
        assert demo.stop() == 0


def test_a_new_state_folder_is_said(tmp_path: Path) -> None:
    """A command in the wrong folder makes a ledger nobody serves: it says so."""
    home = tmp_path / "elsewhere"
    done = Place(environment(home)).weir("keys", "create")
    assert done.returncode == 0
    assert done.stderr == f"a new state folder, {home}: WEIR_HOME names another\n"


def test_serving_after_a_demo_warns_of_its_key(alone: Place, config: Path) -> None:
    """The key that a demo printed still works in its ledger."""
    (Path(alone.environ["WEIR_HOME"]) / "demo.key").write_text("sk-weir-abcd1234-" + "ab" * 32)
    with Process([WEIR, "serve", "--config", config, "--port", "0"], alone.environ) as gateway:
        gateway.find(r"serves (http://\S+)")
        assert gateway.stop() == 0
        assert "the key of a demo that ran in this folder still works" in gateway.output


# Simulators


def test_a_killed_demo_leaves_no_simulator_behind(alone: Place) -> None:
    """The simulated fleet is a process of its own that ends with the demo, however that ends."""
    with Process([WEIR, "demo", "--port", "0"], alone.environ) as demo:
        demo.find(r"inference key +(sk-weir-\S+)")
        demo.signal(signal.SIGKILL)
        assert demo.left_nothing()


def test_a_simulated_backend_answers_until_it_is_stopped(alone: Place) -> None:
    """`weir sim` prints where it is and serves the model it was told to."""
    command: list[str | Path] = [WEIR, "sim", "--kind", "sglang", "--model", "acme/one", "--ttft", "0", "--itl", "0"]
    with Process(command, alone.environ) as sim:
        url = sim.find(r"READY sim-sglang (http://\S+)")
        models = httpx.get(f"{url}/v1/models", verify=NO_TLS).json()
        assert [model["id"] for model in models["data"]] == ["acme/one"]
        port = url.rpartition(":")[2]
        says = refusal(alone.weir("sim", "--port", port), 2)
        assert says == f"cannot listen on port {port}: Address already in use; choose another with --port"
        assert sim.stop() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("sim", "--kind", "abacus"),
        ("sim", "--port", "70000"),
        ("serve", "--port", "70000"),
        ("serve", "--workers", "0"),
        ("keys", "create", "--days", "1e300"),
        ("demo", "--history", "9" * 5_000 + "d"),
        ("route", "explain", "--body", "/no/such/file"),
        ("keys", "explode"),
    ],
)
def test_a_wrong_command_line_is_shown_with_how_to_get_help(arguments: tuple[str, ...]) -> None:
    """Usage errors have status 2; they end before anything is touched, so they need no process of their own."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "--help" in done.stderr
    assert done.stdout == ""


def test_the_help_names_every_kind_of_simulator() -> None:
    """The list is written out, so that a command line is parsed without the simulators."""
    shown = CliRunner().invoke(app, ["sim", "--help"]).stdout
    assert [kind for kind in KINDS if kind not in shown] == []


def test_every_command_says_what_it_does() -> None:
    """No command or option is without a word of help."""
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for name in ("serve", "demo", "sim", "config", "db", "keys", "teams", "route", "meter"):
        assert re.search(rf"^. {name} +\w", done.stdout, re.MULTILINE), name
