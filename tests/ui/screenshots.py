"""``python -m tests.ui.screenshots [--home DIR] [PATH ...]``: pictures of every page, and what was measured of it.

Writes to ``build/screenshots``: each page of ``tests.ui.places`` in light and dark at desktop and phone width, and
``pages.json``. Pages are timed without what they keep for some seconds. Exits
with 1 when a page misses a bar: another status than it should have, a breach of the policy, an error in the browser's
console, a serious finding of axe-core, more than 12 queries, 100 ms at the 95th percentile, 300 kB with all it loads,
or a phone that has to be scrolled sideways.

With ``--home`` the house is one that ``python -m bench.loader`` filled, with ``--no-pictures`` pages are only timed.
CPU time is that of the whole process: gateway, keeper, simulated backends and the client that asks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from playwright.sync_api import Browser, Response

from dashboards import standings
from tests.ui.house import House, opened
from tests.ui.look import SIZES, browser, looking
from tests.ui.places import expected_status, places

OUT: Final = Path("build/screenshots")
QUERIES, P95_MS, BYTES = 12, 100.0, 300_000
ROUNDS: Final = 12


def name_of(role: str, path: str) -> str:
    """Return a file name for a page."""
    words = re.sub(r"gen-[0-9a-f]+", "decision", path)
    return re.sub(r"\W+", "-", f"{words.removeprefix('/console').strip('/') or 'overview'}-{role or 'stranger'}").strip(
        "-"
    )


def served(house: House, role: str, path: str) -> dict[str, Any]:
    """Return what a page costs the gateway: its own bytes, its queries, and how long it took."""
    times, cpus, counts = [], [], []
    with house.client(role) as client, patch.object(standings, "time", Hurried()):
        client.get(path)
        time.sleep(0.3)
        for _ in range(ROUNDS):
            house.queries.clear()
            began, used = time.perf_counter(), time.process_time()
            answer = client.get(path)
            times.append((time.perf_counter() - began) * 1_000)
            cpus.append((time.process_time() - used) * 1_000)
            counts.append(len([each for each in house.queries if each != "BEGIN"]))
    worst = sorted(times)[int(len(times) * 0.95) - 1]
    return {
        "page_bytes": len(answer.content),
        "queries": max(counts),
        "p95_ms": round(worst, 1),
        "cpu_ms": round(median(cpus), 1),
    }


class Hurried:
    """A clock by which an hour passes between two looks: what pages keep for some seconds is old at every visit."""

    now = 0.0

    def monotonic(self) -> float:
        """Return seconds, an hour more than the last time."""
        self.now += 3_600
        return self.now


def looked_at(running: Browser, house: House, role: str, path: str) -> dict[str, Any]:
    """Take the pictures of a page; return what was found."""
    found: dict[str, Any] = {"url": path, "role": role, "axe": [], "console": [], "csp": [], "wide": 0, "bytes": 0}
    for size in SIZES:
        for theme in ("light", "dark"):
            with looking(running, house, role, size=size, theme=theme) as looker:
                loaded: list[Response] = []
                looker.page.on("response", lambda each, loaded=loaded: loaded.append(each))
                answer = looker.page.goto(house.url + path)
                looker.page.wait_for_timeout(600)
                found["status"] = answer.status if answer is not None else 0
                done = [each for each in loaded if "event-stream" not in each.headers.get("content-type", "")]
                sent = sum(each.request.sizes()["responseBodySize"] for each in done if each.status == 200)
                found["bytes"] = max(found["bytes"], sent)
                picture = OUT / f"{name_of(role, path)}-{size}-{theme}.png"
                looker.page.screenshot(path=picture, full_page=True)
                found["axe"] += looker.axe()
                found["wide"] = max(found["wide"], looker.too_wide())
                for said in looker.complaints:
                    if "Content Security Policy" in said:
                        found["csp"].append(said)
                    elif found["status"] == 200:
                        found["console"].append(said)
    return found


def missed(found: dict[str, Any]) -> list[str]:
    """Return the bars that a page misses."""
    bars = {
        "status": found.get("status", 0) in (0, expected_status(found["role"], found["url"])),
        "axe": not found.get("axe"),
        "console": not found.get("console"),
        "csp": not found.get("csp"),
        "wide": found.get("wide", 0) <= 0,
        "queries": found["queries"] <= QUERIES,
        "p95_ms": found["p95_ms"] <= P95_MS,
        "bytes": found.get("bytes", 0) <= BYTES,
    }
    return [name for name, held in bars.items() if not held]


def main() -> int:
    """Do it all, or only the paths that are named; return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.ui.screenshots", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--home", type=Path, help="a house of bench.loader; else one with the demo's past")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    pages = []
    with ExitStack() as stack:
        home = options.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        house = stack.enter_context(opened(home))
        running = stack.enter_context(browser()) if options.pictures else None
        for role, path in places(house):
            if options.paths and path not in options.paths:
                continue
            found: dict[str, Any] = {"url": path, "role": role}
            if running is not None:
                found = looked_at(running, house, role, path)
            found |= served(house, role, path)
            found["missed"] = missed(found)
            pages.append(found)
            line = f"{role or 'stranger':>11} {path:<60} {found['p95_ms']:>6} ms {found['cpu_ms']:>6} ms CPU"
            line += f" {found['queries']:>3} queries {found['page_bytes'] / 1e3:>6.0f} kB"
            sys.stdout.write(f"{line} {' '.join(found['missed'])}\n")
            sys.stdout.flush()
    if options.pictures:
        (OUT / "pages.json").write_text(json.dumps(pages, indent=2) + "\n")
    return 1 if any(found["missed"] for found in pages) else 0


if __name__ == "__main__":
    sys.exit(main())
