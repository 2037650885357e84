"""``python -m tests.ui.screenshots [--home DIR] [PATH ...]``: pictures of every page, and what was measured of it.

Writes to ``build/screenshots``: each page of ``tests.ui.places`` in light and dark at desktop and phone width, and
``pages.json``. Exits with 1 when a page misses a bar: another status than it should have, a breach of the policy, an
error in the browser's console, a serious finding of axe-core, more than 12 queries (when all that is kept has just
become void), 100 ms at the 95th percentile in a ``weir serve`` of its own (``tests.ui.timing``), 300 kB with all it
loads, or a phone that has to be scrolled sideways.

``--tolerate BAR`` tells a miss of this bar and does not exit with 1 for it: a machine that others use is no judge of
times. With ``--home`` the house is one that ``python -m bench.loader`` filled, with ``--no-pictures`` pages are only
timed, with ``--no-times`` only looked at.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from playwright.sync_api import Browser, Response

from dashboards import standings
from tests.ui.house import House, opened
from tests.ui.look import SIZES, browser, looking
from tests.ui.places import expected_status, places
from tests.ui.timing import ROUNDS, timed

OUT: Final = Path("build/screenshots")
DOCS: Final = {
    "console": ("owner", "/console"),
    "rankings": ("", "/rankings?days=90"),
    "model": ("", "/models/qwen/qwen3-32b"),
}
QUERIES, P95_MS, BYTES = 12, 100.0, 300_000
BARS: Final = ("status", "axe", "console", "csp", "wide", "queries", "p95_ms", "bytes")


def name_of(role: str, path: str) -> str:
    """Return a file name for a page."""
    words = re.sub(r"gen-[0-9a-f]+", "decision", path)
    return re.sub(r"\W+", "-", f"{words.removeprefix('/console').strip('/') or 'overview'}-{role or 'stranger'}").strip(
        "-"
    )


def served(house: House, role: str, path: str) -> dict[str, Any]:
    """Return what a page costs where all that pages and the console keep is void: its own bytes and its queries."""
    counts = []
    with house.client(role) as client, patch.object(standings, "time", HURRIED):
        for _ in range(2):
            house.forget()
            house.visits.clear()
            answer = client.get(path)
            counts.append(max(map(len, house.visits)))
    return {"page_bytes": len(answer.content), "queries": max(counts)}


class Hurried:
    """A clock by which an hour passes between two looks: what pages keep for some seconds is old at every visit."""

    def __init__(self) -> None:
        self._now = time.monotonic()

    def monotonic(self) -> float:
        """Return seconds, an hour more than the last time."""
        self._now += 3_600
        return self._now


HURRIED: Final = Hurried()
"""One for all pages: what one keeps, another must not find to be of the future."""


def collector(loaded: list[Response]) -> Callable[[Response], None]:
    """Return what puts each response into ``loaded``; the browser's library wants a function that it can mark."""

    def collect(response: Response) -> None:
        loaded.append(response)

    return collect


def looked_at(running: Browser, house: House, role: str, path: str) -> dict[str, Any]:
    """Take the pictures of a page; return what was found."""
    found: dict[str, Any] = {"url": path, "role": role, "axe": [], "console": [], "csp": [], "wide": 0, "bytes": 0}
    for size in SIZES:
        for theme in ("light", "dark"):
            with looking(running, house, role, size=size, theme=theme) as looker:
                loaded: list[Response] = []
                looker.page.on("response", collector(loaded))
                answer = looker.page.goto(house.url + path)
                for late in looker.page.locator("img[loading=lazy]").all():
                    late.scroll_into_view_if_needed()
                looker.page.wait_for_timeout(600)
                looker.page.evaluate("scrollTo(0, 0)")
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


def shown_in_docs(running: Browser, house: House) -> None:
    """Take the pictures that README and docs show: what a window shows of a page."""
    for name, (role, path) in DOCS.items():
        with looking(running, house, role, theme="light") as looker:
            looker.page.goto(house.url + path)
            looker.page.wait_for_timeout(1_500)
            looker.page.screenshot(path=Path("docs/images") / f"{name}.png")


def missed(found: dict[str, Any]) -> list[str]:
    """Return the bars that a page misses."""
    held = (
        found.get("status", 0) in (0, expected_status(found["role"], found["url"])),
        not found.get("axe"),
        not found.get("console"),
        not found.get("csp"),
        found.get("wide", 0) <= 0,
        found["queries"] <= QUERIES,
        found.get("p95_ms", 0.0) <= P95_MS,
        found.get("bytes", 0) <= BYTES,
    )
    return [name for name, good in zip(BARS, held, strict=True) if not good]


def looked(options: argparse.Namespace, home: Path) -> tuple[list[dict[str, Any]], dict[str, str], bool]:
    """Look at every page; return what was found, the sessions by role, and whether the house was loaded."""
    pages = []
    with ExitStack() as stack:
        house = stack.enter_context(opened(home))
        running = stack.enter_context(browser()) if options.pictures else None
        for role, path in places(house):
            if options.paths and path not in options.paths:
                continue
            found: dict[str, Any] = {"url": path, "role": role}
            if running is not None:
                found = looked_at(running, house, role, path)
                sys.stderr.write(f"{role or 'stranger':>11} {path}\n")
            pages.append(found | served(house, role, path))
        if running is not None and options.docs:
            shown_in_docs(running, house)
        return pages, house.tokens, house.loaded


def line_of(found: dict[str, Any]) -> str:
    """Return what is said of a page on the terminal."""
    line = f"{found['role'] or 'stranger':>11} {found['url']:<60}"
    if "p95_ms" in found:
        line += f" p95 {found['p95_ms']:>6} CPU {found['cpu_ms']:>5}"
    if "cold_ms" in found:
        line += f" first {found['cold_ms']:>6} CPU {found['cold_cpu_ms']:>5} ms"
    line += f" {found['queries']:>3} queries {found['page_bytes'] / 1e3:>6.0f} kB"
    return f"{line} {' '.join(found['missed'])}\n"


def main() -> int:
    """Do it all, or only the paths that are named; return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.ui.screenshots", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--home", type=Path, help="a house of bench.loader; else one with the demo's past")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false")
    parser.add_argument("--no-times", dest="times", action="store_false")
    parser.add_argument("--docs", action="store_true", help="take the pictures of docs/images anew, too")
    parser.add_argument("--tolerate", action="append", default=[], choices=BARS, metavar="BAR", help=", ".join(BARS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="visits of each page after the first")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        home = options.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pages, tokens, loaded = looked(options, home)
        if options.times:
            asked = [(found["role"], found["url"]) for found in pages]
            visits, first = timed(home, asked, tokens, loaded=loaded, rounds=options.rounds)
            sys.stdout.write(f"the first page of the process: {first:.0f} ms\n")
            for found in pages:
                found.update(visits[(found["role"], found["url"])].told())
    for found in pages:
        found["missed"] = missed(found)
        sys.stdout.write(line_of(found))
    if not options.paths:
        name = "pages.json" if options.pictures and options.times else "part.json"
        (OUT / name).write_text(json.dumps(pages, indent=2) + "\n")
    return 1 if any(set(found["missed"]) - set(options.tolerate) for found in pages) else 0


if __name__ == "__main__":
    sys.exit(main())
