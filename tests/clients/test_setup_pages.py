"""Every block of the set-up pages is run; only the port is another one. A block that no test here knows fails."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import httpx
import pytest
from openai import OpenAI

from gateway.app import presets
from gateway.config.load import load
from tests.clients.house import EMBEDDER, MODEL, House
from tests.clients.javascript import FOLDER, node
from tests.clients.plays import PLAYS
from tests.e2e.processes import ROOT, environment, run, tool
from tests.harness import NO_TLS, Backend, configuration
from tests.ui.look import browser, need_chromium

PAGES: Final = ROOT / "docs" / "setup"
THERE: Final = "http://127.0.0.1:8000"
TEXT: Final = PLAYS["text"].text
BLOCKS: Final = {
    (page.name, kind, place): text
    for page in sorted(PAGES.glob("*.md"))
    for place, (kind, text) in enumerate(
        re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    )
}


def block(page: str, kind: str, place: int, house: House) -> str:
    """Return a block as it stands, for the gateway that runs here."""
    return BLOCKS[page, kind, place].replace(THERE, house.url)


def variables(house: House) -> dict[str, str]:
    """Return the environment of somebody who follows the pages."""
    return environment(ROOT, WEIR_KEY=house.key)


def test_every_block_is_known_here() -> None:
    """Blocks are added to the pages together with a test that runs them."""
    assert list(BLOCKS) == [
        ("browser.md", "yaml", 0),
        ("browser.md", "js", 1),
        ("claude-code.md", "sh", 0),
        ("langchain.md", "python", 0),
        ("langchain.md", "js", 1),
        ("open-webui.md", "sh", 0),
        ("sdks.md", "python", 0),
        ("sdks.md", "js", 1),
        ("sdks.md", "python", 2),
        ("sdks.md", "python", 3),
        ("sdks.md", "js", 4),
        ("sdks.md", "js", 5),
    ]


@pytest.mark.parametrize(
    ("place", "said"),
    [(0, [TEXT, TEXT]), (2, [TEXT]), (3, [TEXT, "3.48e-06"])],
    ids=["openai", "anthropic", "openrouter"],
)
def test_python_blocks(house: House, place: int, said: list[str]) -> None:
    """They print the answer."""
    done = run([sys.executable, "-c", block("sdks.md", "python", place, house)], variables(house))
    assert (done.returncode, done.stdout.splitlines()) == (0, said), done.stderr


def run_js(text: str, house: House) -> list[str]:
    """Run a module where the clients are installed; return the lines it prints."""
    done = subprocess.run(
        [node(), "--input-type=module", "-"],
        cwd=FOLDER,
        env=variables(house),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("page", "place", "said"),
    [
        ("sdks.md", 1, [TEXT]),
        ("sdks.md", 4, [TEXT]),
        ("sdks.md", 5, [TEXT]),
        ("langchain.md", 1, [TEXT, "0"]),
    ],
    ids=["openai", "openrouter", "ai-sdk", "langchain"],
)
def test_js_blocks(house: House, page: str, place: int, said: list[str]) -> None:
    """They print the answer."""
    assert run_js(block(page, "js", place, house), house) == said


def test_langchain_with_tools(house: House) -> None:
    """The JavaScript block, asked for something else, gets both calls."""
    asked = block("langchain.md", "js", 1, house).replace("Say hello.", "Play: tools")
    assert run_js(asked, house)[-1] == "2"


def test_langchain_for_python(house: House) -> None:
    """The block where the package is installed; else its calls through the client it is built on."""
    text = block("langchain.md", "python", 0, house)
    compile(text, "langchain.md", "exec")
    if importlib.util.find_spec("langchain_openai") is not None:
        done = run([sys.executable, "-c", text], variables(house))
        assert done.stdout.splitlines() == [TEXT, TEXT, "3"]
        return
    with OpenAI(base_url=house.url + "/v1", api_key=house.key, max_retries=2) as client:
        hello: Any = [{"content": "Say hello.", "role": "user"}]
        assert client.chat.completions.create(model=MODEL, messages=hello).choices[0].message.content == TEXT
        options: Any = {"include_usage": True}
        chunks = list(client.chat.completions.create(model=MODEL, messages=hello, stream=True, stream_options=options))
        assert chunks[-1].usage is not None
        packed: Any = client.embeddings.create(model=EMBEDDER, input=["rain"], encoding_format="base64")
        assert len(b64decode(packed.data[0].embedding)) == 3 * 4
        assert len(client.embeddings.create(model=EMBEDDER, input=["rain"]).data[0].embedding) == 3


CLAUDE_CODE: Final = """
import json
from anthropic import Anthropic

client = Anthropic()
betas = ["claude-code-20250219", "interleaved-thinking-2025-05-14", "fine-grained-tool-streaming-2025-05-14"]
mark = {"type": "ephemeral"}
bash = {
    "name": "Bash",
    "description": "Runs a command",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    "cache_control": mark,
}
ask = {
    "model": MODEL,
    "system": [
        {"type": "text", "text": "You are Claude Code.", "cache_control": mark},
        {"type": "text", "text": "Be brief.", "cache_control": mark},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "<system-reminder>It is late.</system-reminder>"}]},
        {"role": "system", "content": "Tools may be called."},
        {"role": "user", "content": [{"type": "text", "text": "Play: reasoning", "cache_control": mark}]},
    ],
    "tools": [bash],
    "betas": betas,
}
counted = client.beta.messages.count_tokens(**ask).input_tokens
with client.beta.messages.stream(
    **ask,
    max_tokens=32000,
    thinking={"type": "adaptive"},
    output_config={"effort": "high"},
    metadata={"user_id": "user_abc"},
) as stream:
    final = stream.get_final_message()
models = [model.id for model in client.models.list(limit=1000)]
print(json.dumps([counted, [block.type for block in final.content], final.content[-1].text, models]))
"""


def test_claude_code(house: House) -> None:
    """With the environment of the block alone, what Claude Code sends is answered."""
    exports = block("claude-code.md", "sh", 0, house)
    shell = f'{exports}\nexec "$0" -c "$1"'
    program = f"import os\nMODEL = os.environ['ANTHROPIC_MODEL']\n{CLAUDE_CODE}"
    done = run([tool("bash"), "-euc", shell, sys.executable, program], variables(house))
    assert done.returncode == 0, done.stderr
    counted, kinds, text, models = json.loads(done.stdout)
    assert counted > 10
    assert (kinds, text) == (["thinking", "text"], "Hello.")
    assert MODEL in models
    sent = house.engine.last
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["Bash"]
    assert [part["role"] for part in sent["messages"]] == ["system", "user", "system", "user"]
    with httpx.Client(base_url=house.url, verify=NO_TLS) as http:  # it looks whether anybody is there
        assert http.head("/").status_code < 500


def test_open_webui(house: House) -> None:
    """With the variables of the block, what Open WebUI sends is answered."""
    text = BLOCKS["open-webui.md", "sh", 0].replace("http://host.docker.internal:8000", house.url)
    said = dict(re.findall(r"-e (\w+)=(\S+)", text.replace("$WEIR_KEY", house.key)))
    names = {"authorization": f"Bearer {said['OPENAI_API_KEY']}", "x-openwebui-user-id": "u1"}
    base = said["OPENAI_API_BASE_URL"]
    with httpx.Client(headers=names, verify=NO_TLS, timeout=60.0) as http:
        models = http.get(f"{base}/models").json()["data"]
        assert MODEL in [model["id"] for model in models]
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Say hello."}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with http.stream("POST", f"{base}/chat/completions", json=body) as answer:
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
        assert "".join(c["delta"].get("content") or "" for event in events for c in event["choices"]) == TEXT
        assert events[-1]["usage"]["completion_tokens"] == 9
        title = body | {"stream": False, "max_completion_tokens": 1000, "metadata": {"task": "title_generation"}}
        del title["stream_options"]
        assert http.post(f"{base}/chat/completions", json=title).json()["choices"][0]["message"]["content"] == TEXT
        asked = {"input": ["a", "b"], "model": said["RAG_EMBEDDING_MODEL"]}
        vectors = http.post(f"{said['RAG_OPENAI_API_BASE_URL']}/embeddings", json=asked).json()
        assert [each["index"] for each in vectors["data"]] == [0, 1]


class _Page(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        """Send it."""
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>page</title>")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def page() -> Iterator[str]:
    """Serve the page on a free port; give the block its origin."""
    server = HTTPServer(("127.0.0.1", 0), _Page)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_page_in_a_browser(house: House) -> None:
    """Chromium lets a page of a named origin read the answer, and keeps it from another."""
    need_chromium()
    text = block("browser.md", "js", 1, house)
    script = f"""async (key) => {{
        const lines = [];
        const console = {{ log: (line) => lines.push(String(line)) }};
        try {{ {text} }} catch (error) {{ return [error.name]; }}
        return lines;
    }}"""
    with page() as good, page() as other, browser() as chromium:
        path = Path(house.weir.config)
        before = path.read_text()
        path.write_text(f"{before}\ncors: {{origins: ['{good}']}}\n")
        try:
            tab = chromium.new_page()
            tab.goto(good)
            for _ in range(100):
                found = tab.evaluate(script, house.key)
                if found != ["TypeError"]:
                    break
                tab.wait_for_timeout(100)
            assert found[0].startswith("gen-")
            assert found[1] == TEXT
            tab.goto(other)
            assert tab.evaluate(script, house.key) == ["TypeError"]
        finally:
            path.write_text(before)


def test_the_block_of_the_configuration(tmp_path: Path) -> None:
    """It is read, and says what it says."""
    path = tmp_path / "weir.yaml"
    path.write_text(configuration([Backend("a", "http://127.0.0.1:9")]) + BLOCKS["browser.md", "yaml", 0])
    cors = load(path, presets=presets()).cors
    assert cors.origins == {"https://chat.example.org", "http://localhost:3000"}
    assert cors.max_age == 600
