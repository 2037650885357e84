"""Every code block of the README is run as it stands there; only the port is another one.

A block that no test here knows fails, so nobody can add one that does not work.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.e2e.processes import ROOT, WEIR, Process, environment, run, tool

BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
MADE: Final = ".venv/.made"


class Demo(Process):
    """What the README's first command starts, in a state folder of the test."""

    def __init__(self, home: Path) -> None:
        self.environ = environment(home, PORT="0")
        # The environment is the one this test runs in; making it is what `make test` has done before.
        super().__init__(["make", "--assume-old", MADE, *block("sh", "make run").split()[1:]], self.environ)
        self.url = self.find(r"API +(http://127\.0\.0\.1:\d+)/v1")
        self.key = self.find(r"inference key +(sk-weir-\S+)")
        self.admin_key = self.find(r"management key +(\S{32,})")
        self.find("(Ctrl-C stops it)")
        self.environ |= {"WEIR_KEY": self.key, "PORT": self.url.rpartition(":")[2]}

    def here(self, text: str) -> str:
        """Return the text of a block with the port of this demo."""
        return text.replace("http://127.0.0.1:8000", self.url)


def block(language: str, start: str) -> str:
    """Return the one block of the README in ``language`` that begins with ``start``."""
    (found,) = [text for kind, text in BLOCKS if kind == language and text.startswith(start)]
    return str(found)


def shell(text: str, environ: dict[str, str], folder: Path) -> str:
    """Run the lines of a block as a user would, in ``folder``; return what they print."""
    if "curl" in text:
        tool("curl")
    done = run([tool("bash"), "-euo", "pipefail", "-c", text], environ, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`make run`, as the README says; at the end Ctrl-C stops it, as it says itself, with all that it started."""
    with Demo(tmp_path_factory.mktemp("readme") / "home") as running:
        yield running
        os.killpg(running.pid, signal.SIGINT)
        running.ended()
        assert running.left_nothing()
        assert "Traceback" not in running.output


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the checkout to the commands of the README."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "weir").symlink_to(WEIR)
    return tmp_path


def test_every_block_is_known_here() -> None:
    """Blocks are added to the README together with a test that runs them."""
    assert [(kind, text.split("\n", 1)[0]) for kind, text in BLOCKS] == [
        ("text", " " * 26 + "┌" + "─" * 29 + " Weir " + "─" * 29 + "┐"),
        ("sh", "make run"),
        ("sh", "make test"),
        ("sh", r"curl http://127.0.0.1:8000/v1/chat/completions \ "[:-1]),
        ("python", "import os"),
        ("python", "import os"),
        ("sh", 'ID=$(curl -s http://127.0.0.1:8000/v1/chat/completions -H "Authorization: Bearer $WEIR_KEY" \\'),
        ("sh", 'curl -s http://127.0.0.1:8000/api/v1/datasets/rankings-daily -H "Authorization: Bearer $WEIR_KEY"'),
        ("yaml", "backends:"),
        ("sh", ".venv/bin/weir config check --config weir.yaml"),
        ("sh", ".venv/bin/weir doctor --config weir.yaml"),
    ]


def test_make_run_prints_a_line_that_works(demo: Demo) -> None:
    """The very `curl` line that is printed streams an answer to its end."""
    printed = "".join(demo.lines)
    curl = printed[printed.index("curl ") : printed.index("Ctrl-C")]
    said = shell(curl, demo.environ, ROOT)
    assert said.startswith('data: {"id":"gen-')
    assert said.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("name", ["console", "rankings"])
def test_make_run_prints_addresses_of_pages(demo: Demo, name: str) -> None:
    """Who opens what stands behind the name in a browser gets a page, and no JSON."""
    [address] = re.findall(rf"^  {name} +(http\S+)", "".join(demo.lines), re.MULTILINE)
    answer = httpx.get(address, follow_redirects=True, trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_the_curl_block_gets_an_answer(demo: Demo) -> None:
    """A whole answer with usage and cost."""
    said = shell(demo.here(block("sh", "curl http")), demo.environ, ROOT)
    assert re.search(r'"usage":{"prompt_tokens":\d+,"completion_tokens":\d+,.*"cost":0\.\d+', said)


@pytest.mark.parametrize(
    ("client", "usage"),
    [
        ("openai", r"CompletionUsage\(completion_tokens=\d+, prompt_tokens=\d+"),
        ("anthropic", r"Usage\(.*output_tokens=\d+"),
    ],
)
def test_the_python_blocks_get_an_answer(demo: Demo, client: str, usage: str) -> None:
    """The official clients, unmodified."""
    done = run([sys.executable, "-c", demo.here(block("python", f"import os\nfrom {client}"))], demo.environ)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\w " + usage, done.stdout), done.stdout


def test_cost_and_route_can_be_looked_up(demo: Demo, checkout: Path) -> None:
    """The generation, the decision and the audit of the demo that runs."""
    said = shell(demo.here(block("sh", "ID=$(curl")), demo.environ, checkout)
    assert re.search(r'"id":"gen-[0-9a-f]{32}".*"total_cost":0\.\d+', said)
    assert "qwen/qwen3-32b by balanced: " in said
    assert said.endswith("all books agree\n")


def test_who_used_what_and_who_pays(demo: Demo, checkout: Path) -> None:
    """Boards, a budget, the months of the made-up past, and a FOCUS file of them."""
    said = shell(demo.here(block("sh", "curl -s http://127.0.0.1:8000/api/v1/datasets")), demo.environ, checkout)
    assert re.search(r'"date":"\d{4}-\d\d-\d\d","model_permaslug":"qwen/qwen3-32b","total_tokens":"\d{9,}"', said)
    assert "qwen/qwen3-32b" in said.partition('"as_of"')[2]
    head, *rows = (checkout / "focus.csv").read_text().splitlines()
    assert "ConsumedUnit" in head
    assert rows


def test_the_doctor_names_what_a_fresh_place_lacks(checkout: Path) -> None:
    """The machines of the example are nowhere: the doctor says so for each of them, and nothing else is bad."""
    nowhere = re.sub(r"10\.0\.0\.1[12]:8000", "127.0.0.1:9", block("yaml", "backends:"))
    (checkout / "weir.yaml").write_text(nowhere.replace("10.0.0.0/8", "127.0.0.0/8"))
    command = block("sh", ".venv/bin/weir doctor").split()
    done = run(command, environment(checkout / "home"), cwd=checkout)
    bad = [line.split(":", 1)[0] for line in done.stdout.splitlines() if line.startswith("bad")]
    assert (done.returncode, bad) == (1, ["bad     backend gpu-a", "bad     backend gpu-b"])


def test_the_example_configuration_is_good_and_keys_can_be_made(checkout: Path) -> None:
    """The YAML block goes through the commands that follow it, before anything runs."""
    (checkout / "weir.yaml").write_text(block("yaml", "backends:"))
    said = shell(block("sh", ".venv/bin/weir config"), environment(checkout / "home"), checkout).splitlines()
    assert said[0] == "weir.yaml: good; 2 backends, 1 models"
    assert re.fullmatch(r"sk-weir-[a-z0-9]{8}-[0-9a-f]{40,}", said[1])
    assert len(said) == 2


def test_make_test_runs_all_tests() -> None:
    """The other of the two commands is what runs this."""
    done = run(["make", "--dry-run", "--assume-old", MADE, *block("sh", "make test").split()[1:]], environment(ROOT))
    assert done.returncode == 0, done.stderr
    assert re.search(r"-m pytest .*\btests$", done.stdout.strip())
