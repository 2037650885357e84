"""``weir demo``: a gateway over a simulated fleet, ready to be talked to.

Three simulated vLLM replicas of one model, one of a smaller one, and a simulated external API that serves both at a
price. The simulators run in a process of their own that ends with this one. Nothing but the state folder is touched.
The ledger is given a made-up past, beside the gateway that serves already, so that no board is empty.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from gateway.access.keys import key_id_of, new_key_id, new_key_text
from gateway.process import DEMO_KEY, Beside, StartError
from gateway.sim import SimConfig, Timing, run
from gateway.sim.history.fill import fill_beside

if TYPE_CHECKING:
    from gateway.keeper.service import Keeper

LARGE: Final = "Qwen/Qwen3-32B"
SMALL: Final = "Qwen/Qwen3-8B"
_GPU: Final = Timing(base_ttft=0.06, prefill_tokens_per_s=16_000, itl=0.018, slots=64, jitter=0.05)
_SMALL_GPU: Final = Timing(base_ttft=0.03, prefill_tokens_per_s=40_000, itl=0.009, slots=128, jitter=0.05)
_API: Final = Timing(base_ttft=0.25, prefill_tokens_per_s=20_000, itl=0.014, slots=256, jitter=0.1)
_ANSWER: Final = (80, 220)


def fleet(api_key: str) -> tuple[SimConfig, ...]:
    """Return the simulated backends of the demo."""
    low, high = _ANSWER
    gpus = tuple(
        SimConfig("vllm", (LARGE,), f"gpu-{letter}", timing=_GPU, answer_tokens=low, answer_tokens_max=high, seed=seed)
        for seed, letter in enumerate("abc")
    )
    small = SimConfig("vllm", (SMALL,), "gpu-d", timing=_SMALL_GPU, answer_tokens=low, answer_tokens_max=high, seed=3)
    api = SimConfig(
        "openai",
        ("qwen3-32b", "qwen3-8b"),
        "cloud",
        timing=_API,
        answer_tokens=low,
        answer_tokens_max=high,
        api_key=api_key,
        seed=4,
    )
    return (*gpus, small, api)


@contextmanager
def simulated_fleet(api_key: str) -> Iterator[dict[str, str]]:
    """Run the simulators in a child process; give the block their URLs by name.

    Raises:
        StartError: they do not start.
    """
    environment = os.environ | {"WEIR_SIM_DEMO_KEY": api_key}
    command = [sys.executable, "-m", "gateway.cli", "sim", "--demo"]
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=environment
    ) as child:
        try:
            urls: dict[str, str] = {}
            assert child.stdout is not None
            for _ in fleet(api_key):
                line = child.stdout.readline().decode().split()
                if len(line) != 3 or line[0] != "READY":
                    raise StartError("the simulated fleet did not start; what it said is above")
                urls[line[1]] = line[2]
            yield urls
        finally:
            child.terminate()


async def run_fleet(api_key: str) -> None:
    """Be that child process: simulate the fleet until SIGTERM, or until the parent is gone, however it went.

    The parent holds the other end of standard input, which ends with it.
    """
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def abandoned() -> None:
        loop.remove_reader(stdin)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(stdin, abandoned)
    await run(fleet(api_key))


def write_config(home: Path, urls: dict[str, str]) -> Path:
    """Write the demo's configuration file and return its path."""
    path = home / "demo.yaml"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    gpu = "kind: vllm, provider: own, region: eu"
    path.write_text(
        f"""# Made by `weir demo` at each start. A real one looks just like it; see docs/configuration.md.
backends:
  - {{name: gpu-a, {gpu}, url: "{urls["gpu-a"]}", usd_per_hour: "4.60", gpu: 2xH100, capacity: {{max_running: 64}}}}
  - {{name: gpu-b, {gpu}, url: "{urls["gpu-b"]}", usd_per_hour: "4.60", gpu: 2xH100, capacity: {{max_running: 64}}}}
  - {{name: gpu-c, {gpu}, url: "{urls["gpu-c"]}", usd_per_hour: "4.60", gpu: 2xH100, capacity: {{max_running: 64}}}}
  - {{name: gpu-d, {gpu}, url: "{urls["gpu-d"]}", usd_per_hour: "2.30", gpu: 1xH100, capacity: {{max_running: 128}}}}
  - {{name: cloud, kind: openai, provider: cloud, url: "{urls["cloud"]}/v1", api_key: "${{WEIR_SIM_DEMO_KEY}}"}}
models:
  - id: qwen/qwen3-32b
    name: Qwen3 32B
    context_length: 40960
    price: {{prompt: "0.10", completion: "0.30", cache_read: "0.02"}}
    endpoints:
      - {{backend: gpu-a, model: {LARGE}, quantization: fp8}}
      - {{backend: gpu-b, model: {LARGE}, quantization: fp8}}
      - {{backend: gpu-c, model: {LARGE}, quantization: fp8}}
      - backend: cloud
        model: qwen3-32b
        cost: {{prompt: "0.16", completion: "0.64"}}
        price: {{prompt: "0.20", completion: "0.80"}}
  - id: qwen/qwen3-8b
    name: Qwen3 8B
    context_length: 40960
    price: {{prompt: "0.04", completion: "0.12"}}
    endpoints:
      - {{backend: gpu-d, model: {SMALL}, quantization: bf16}}
      - backend: cloud
        model: qwen3-8b
        cost: {{prompt: "0.05", completion: "0.20"}}
        price: {{prompt: "0.06", completion: "0.24"}}
aliases: {{house-default: {{qwen/qwen3-32b: 95, qwen/qwen3-8b: 5}}}}
routing: {{default: balanced}}
egress: {{allow: ["127.0.0.0/8"]}}
boards: {{keyless: true}}
""",
        encoding="utf-8",
    )
    return path


def kept(home: Path, name: str, make: str) -> str:
    """Return the demo secret kept in ``home`` under ``name``, made as ``make`` on first use; mode 0600."""
    path = home / name
    if path.exists() and not stat.S_IMODE(path.stat().st_mode) & 0o077:
        return path.read_text(encoding="ascii").strip()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(make + "\n")
    return make


def inference_key(home: Path) -> str:
    """Return the demo's inference key, the same at every start in ``home``."""
    return kept(home, DEMO_KEY, new_key_text(new_key_id()))


def admin_key(home: Path) -> str:
    """Return the demo's management key, the same at every start in ``home``."""
    return kept(home, "demo.admin-key", f"weir-admin-{token_hex(32)}")


def past(home: Path, days: int, key: str) -> Beside:
    """Return what fills the ledger with a made-up past of ``days`` days beside the gateway."""

    async def fill(keeper: Keeper) -> None:
        await fill_beside(keeper, home, days, (key_id_of(key),))

    return fill


def welcome(base: str, key: str, admin: str, days: int) -> str:
    """Return what the demo prints once it serves."""
    shown = (
        f"""\
                  Their past of {days} days is MADE UP: scaled from statistics of recorded traffic, no real usage.
                  It fills in within seconds. --history 0d leaves it out.
"""
        if days
        else ""
    )
    return f"""
  Weir serves a simulated fleet: three vLLM replicas of qwen/qwen3-32b, one of qwen/qwen3-8b, one external API.

  API             {base}/v1        (OpenRouter's form: {base}/api/v1)
  inference key   {key}
  management key  {admin}
  console         {base}/console        (at first it asks for the management key and makes you its owner)

  rankings        {base}/rankings        (as data: {base}/api/v1/rankings)
{shown}
  curl {base}/v1/chat/completions \\
    -H "Authorization: Bearer {key}" \\
    -d '{{"model": "qwen/qwen3-32b", "stream": true, "messages": [{{"role": "user", "content": "What is a weir?"}}]}}'

  Ctrl-C stops it.
"""
