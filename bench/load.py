"""The JSON and burst load: `wrk` with generated Lua scripts.

A run in which any answer was not a success, any connection broke or the answers were too small to be whole
raises LoadError: a figure from failing requests is worse than none. wrk's own CPU is not part of any
figure.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.payload import chat_body

_PROMPTS: Final = 64
"""Different prompts in rotation."""

INSTALL_WRK: Final = "wrk is missing: sudo apt-get install wrk"

_SCRIPT: Final = """local bodies = {%(bodies)s}
local headers = {%(headers)s}
local requests, at = {}, 0
init = function(args)
  for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", "%(path)s", headers, body) end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
done = function(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'FIGURES {"requests": %%d, "seconds": %%.6f, "bytes": %%d, "errors": %%d, ' ..
    '"p50_us": %%d, "p99_us": %%d}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class LoadError(Exception):
    """A load that cannot count: failed requests, no requests, or no load generator."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where load goes: a contestant, or the mock itself."""

    host: str
    port: int
    path: str
    model: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What one wrk run saw. Latencies in microseconds, `size` is bytes per answer with its head."""

    requests: int
    seconds: float
    size: float
    p50_us: float
    p99_us: float


def wrk_path() -> str:
    """Returns the path of wrk. Raises LoadError with the install line when it is missing."""
    path = shutil.which("wrk")
    if path is None:
        raise LoadError(INSTALL_WRK)
    return path


def _lua_table(items: Sequence[str]) -> str:
    """Returns the inside of a Lua table."""
    return ", ".join(items)


def script(target: Target, mode: str) -> str:
    """Returns the Lua script that sends chat completions of `mode` to `target`, prompts in rotation."""
    bodies = [f"[==[{chat_body(mode, target.model, serial).decode()}]==]" for serial in range(_PROMPTS)]
    headers = {"Content-Type": "application/json", **target.headers}
    return _SCRIPT % {
        "bodies": _lua_table(bodies),
        "headers": _lua_table([f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in headers.items()]),
        "path": target.path,
    }


def wrk(target: Target, mode: str, *, connections: int, seconds: float, work: Path, least_size: int) -> WrkResult:
    """Loads `target` for `seconds` (at least 1, rounded) over `connections` connections from one wrk thread.

    `work` is a folder for the script; answers smaller than `least_size` bytes on average are an error. Raises
    LoadError when anything failed.
    """
    path = work / f"{mode}.lua"
    path.write_text(script(target, mode))
    duration = max(1, round(seconds))
    argv = [wrk_path(), "-t1", f"-c{connections}", f"-d{duration}s", "--timeout", "30s", "-s", str(path)]
    argv.append(f"http://{target.host}:{target.port}")
    # 30 s more than asked for: the slowest contestant needs a while to finish what it has begun.
    done = subprocess.run(argv, capture_output=True, text=True, timeout=duration + 30, check=False)
    return _result(done.stdout + done.stderr, least_size)


def _result(output: str, least_size: int) -> WrkResult:
    """Reads wrk's output. Raises LoadError when it holds no figures or figures of failed requests."""
    lines = [line for line in output.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        raise LoadError(f"wrk printed no figures: {output[-400:]}")
    seen = json.loads(lines[-1].removeprefix("FIGURES "))
    if seen["errors"] or not seen["requests"]:
        raise LoadError(f"{seen['errors']} of {seen['requests']} requests failed")
    size = seen["bytes"] / seen["requests"]
    if size < least_size:
        raise LoadError(f"answers of {size:.0f} bytes are not whole: at least {least_size} expected")
    return WrkResult(seen["requests"], seen["seconds"], size, seen["p50_us"], seen["p99_us"])
