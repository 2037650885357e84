"""What the clients talk to: ``weir serve`` as a process of its own over a scripted, a simulated and a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.sim import SimConfig
from tests.clients.plays import CACHED, PROMPT, Play, ScriptedEngine
from tests.e2e.processes import ADMIN_KEY, KEY, PATIENCE, Simulators, WeirProcess
from tests.harness import NO_TLS, Backend, configuration

MODEL: Final = "qwen/qwen3-32b"
"""Answered by the play that is asked for."""
FAULTS: Final = ("full", "once", "broken", "cut")
CALLERS: Final = ("openai", "anthropic", "openrouter", "openai-js", "openrouter-js", "ai-sdk")
SIMULATED: Final = "qwen/qwen3-simulated"
NATIVE: Final = "anthropic/claude-simulated"
"""Answered by an API that speaks messages."""
EMBEDDER: Final = "qwen/qwen3-embedding"
RERANKER: Final = "qwen/qwen3-reranker"
REAL: Final = "qwen/qwen3-tiny"
REAL_TOOLS: Final = "qwen/qwen3-tiny-tools"
CREATED: Final = 1_745_798_400
_PRICE: Final = 'price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}'


def fragile(caller: str, fault: str) -> str:
    """Return a model answered as ``MODEL`` is, on a backend of its own: what fails is spared, and others not."""
    return f"qwen/fragile-{caller}-{fault}"


def cost(play: Play) -> Decimal:
    """Return what ``play`` costs, in USD, by the price of every model here."""
    fresh = Decimal("0.10") * (PROMPT - CACHED) + Decimal("0.02") * CACHED
    return (fresh + Decimal("0.30") * play.completion) / 1_000_000


@dataclass(frozen=True, slots=True)
class House:
    """A running gateway and the engine behind most of its models.

    Attributes:
        url: its root, without a slash at the end.
        key: an inference key without limits.
        admin: the management key.
    """

    weir: WeirProcess
    engine: ScriptedEngine
    url: str
    key: str = KEY
    admin: str = ADMIN_KEY

    def new_key(self, **more: Any) -> str:
        """Make an inference key and return it."""
        answer = self.manage("POST", "/keys", {"name": "client", **more})
        return str(answer["key"])

    def keeping_key(self, team: str) -> str:
        """Make a key of a team whose prompts and answers are stored."""
        self.manage("POST", "/teams", {"slug": team, "name": team})
        self.manage("PUT", "/content/choices", {"team": team, "store": True})
        return self.new_key(weir={"team": team})

    def manage(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask the management API."""
        headers = {"authorization": f"Bearer {self.admin}"}
        answer = httpx.request(
            method, self.url + "/api/v1" + path, json=body, headers=headers, verify=NO_TLS, timeout=PATIENCE
        )
        assert answer.is_success, answer.text
        return dict(answer.json())


def _model(name: str, backend: str, upstream: str, more: str = "") -> str:
    return (
        f"  - {{id: {name}, name: Test model, created: {CREATED}, context_length: 40960, {_PRICE}, "
        f"{more}endpoints: [{{backend: {backend}, model: {upstream}}}]}}\n"
    )


def _warm(url: str) -> None:
    """Have the half of the port made that is made when it is first asked for: clients have little patience."""
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.get(url + "/api/v1/models", headers=headers, verify=NO_TLS, timeout=PATIENCE)
    assert answer.is_success, answer.text


@contextmanager
def open_house(folder: Path, real: dict[str, str]) -> Iterator[House]:
    """Run the gateway inside the block; ``real`` are the URLs of real engines by the model they serve."""
    with ExitStack() as stack:
        engine = stack.enter_context(ScriptedEngine())
        claude = SimConfig("anthropic", ("up-claude",), name="native", reasoning_tokens=4)
        simulators = stack.enter_context(Simulators(SimConfig("vllm", name="simulated", reasoning_tokens=4), claude))
        weak = {fragile(caller, fault): f"{caller}-{fault}" for caller in CALLERS for fault in FAULTS}
        backends = [
            Backend("scripted", engine.url, "openai", provider="script"),
            *(Backend(name, engine.url, "openai", provider="script") for name in weak.values()),
            Backend("simulated", simulators.urls["simulated"]),
            Backend("native", simulators.urls["native"], "anthropic"),
            *(Backend(f"real-{at}", url, "llamacpp") for at, url in enumerate(real.values())),
        ]
        models = [
            _model(MODEL, "scripted", "engine/model", "capabilities: {vision: true}, "),
            *(_model(model, name, "engine/model") for model, name in weak.items()),
            _model(SIMULATED, "simulated", "Qwen/Qwen3-32B"),
            _model(NATIVE, "native", "up-claude"),
            _model(EMBEDDER, "scripted", "engine/embedder", "capabilities: {embeddings: true}, "),
            _model(RERANKER, "scripted", "engine/reranker", "operations: [rerank], "),
            *(_model(name, f"real-{at}", "tiny-qwen3") for at, name in enumerate(real)),
        ]
        path = folder / "weir.yaml"
        path.write_text(configuration(backends, models="".join(models)))
        weir = stack.enter_context(WeirProcess(folder / "home", path)).ready()
        _warm(weir.url)
        yield House(weir, engine, weir.url)
