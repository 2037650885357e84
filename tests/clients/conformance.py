"""The compatibility page: what each official client gets from each endpoint, as the tests of this folder show it.

``python -m tests.clients.conformance`` (``make conformance``) runs those tests, writes ``docs/compatibility.md`` and
exits with 1 when a test failed or was skipped or the page was another one before. Every run of all tests looks that the
page is the one that is made when each of them passes.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.clients.shows import (
    AI_SDK,
    ANTHROPIC,
    CHAT,
    CLIENTS,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    OPENAI,
    OPENAI_JS,
    OPENROUTER,
    OPENROUTER_JS,
    RERANK,
    RESPONSES,
)
from tests.clients.unserved import operations, why_not

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "compatibility.md"
TESTS: Final = ROOT / "tests" / "clients"
PAGE_TEST: Final = TESTS / "test_compatibility_page.py"
NODE: Final = TESTS / "node" / "package-lock.json"
LOCK: Final = ROOT / "requirements-dev.lock"

Cell = tuple[str, str, str]
"""Client, endpoint, feature."""

ENDPOINTS: Final = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    MESSAGES,
    COUNT_TOKENS,
    EMBEDDINGS,
    RERANK,
    "GET /models",
    "GET /models/{model}",
    "GET /model/{model}",
    "GET /models/user",
    "GET /models/count",
    "GET /models/{model}/endpoints",
    "GET /endpoints/zdr",
    "GET /providers",
    "GET /generation",
    "GET /generation/content",
    "GET /key",
    "POST /keys",
    "GET /credits",
    "GET /activity",
    "POST /analytics/query",
    "POST /workspaces",
    "POST /guardrails",
    "GET /presets",
    "POST /byok",
    "GET /datasets/rankings-daily",
    "GET /datasets/app-rankings",
)
"""The rows, in their order; each has as many lines as features are shown of it."""
_OPENAI: Final = frozenset({CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, "GET /models", "GET /models/{model}"})
_OWN_FORM: Final = frozenset({COMPLETIONS, MESSAGES, COUNT_TOKENS, "GET /models/{model}"})
CALLS: Final[Mapping[str, frozenset[str]]] = {
    OPENAI: _OPENAI,
    OPENAI_JS: _OPENAI,
    ANTHROPIC: frozenset({MESSAGES, COUNT_TOKENS, "GET /models", "GET /models/{model}"}),
    OPENROUTER: frozenset(ENDPOINTS) - _OWN_FORM,
    OPENROUTER_JS: frozenset(ENDPOINTS) - _OWN_FORM,
    AI_SDK: frozenset({CHAT, COMPLETIONS, EMBEDDINGS}),
}
"""The endpoints for which a client has a call at all."""
NOT_REPEATED: Final = "not repeated: another client shows it of the same API"
REASONS: Final[Mapping[tuple[str, str, str | None], str]] = {
    (OPENROUTER_JS, "GET /models/user", "list"): "the client asks for it with a token of a person's login alone",
    (OPENROUTER, RESPONSES, None): NOT_REPEATED,
    (OPENROUTER_JS, RESPONSES, None): NOT_REPEATED,
    (OPENAI_JS, RESPONSES, None): NOT_REPEATED,
}
"""Why a client that has a call for an endpoint does not show a feature of it; None is any feature."""
_BASES: Final = {OPENAI: "/v1", OPENAI_JS: "/v1", ANTHROPIC: "", OPENROUTER: "/api/v1", OPENROUTER_JS: "/api/v1"}


def versions() -> dict[str, str]:
    """Return the version of each client, from the lock files."""
    python = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", LOCK.read_text(), re.MULTILINE))
    node = json.loads(NODE.read_text())["packages"]
    found = {}
    for client in CLIENTS:
        name, _, language = client.partition(" ")
        found[client] = python[name] if language == "(Python)" else node[f"node_modules/{name}"]["version"]
    return found


def render(outcomes: Mapping[Cell, str]) -> str:
    """Return the page that says ``outcomes``. Raises ``KeyError`` when a gap has no reason."""
    found = versions()
    lines = [
        "# Compatibility",
        "",
        "What the official clients, unmodified, get from Weir: the results of `tests/clients`, made by",
        "`make conformance`, which fails when a result differs from this page. `pass`: a test asserts the values that",
        "the client returns.",
        "`no call`: the client has no call for the endpoint. Set-up of each client: [setup](setup/README.md).",
        "",
        "| client | version | base URL |",
        "|---|---|---|",
        *(f"| {client} | {found[client]} | `http://HOST{_BASES.get(client, '/api/v1')}` |" for client in CLIENTS),
        "",
        "Engines behind it: one with scripted answers (text, parallel tools, reasoning, JSON schema, errors of each",
        "class, cut streams), and llama.cpp's server with a small model.",
        "",
        "| endpoint | feature | " + " | ".join(CLIENTS) + " |",
        "|---|---|" + "---|" * len(CLIENTS),
    ]
    notes: list[str] = []
    for endpoint, feature in rows(outcomes):
        cells = [_cell((client, endpoint, feature), outcomes, notes) for client in CLIENTS]
        lines.append(f"| `{endpoint}` | {feature} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {note}." for number, note in enumerate(notes, 1)), *_unserved()]
    return "\n".join(lines) + "\n"


def rows(outcomes: Mapping[Cell, str]) -> list[tuple[str, str]]:
    """Return the rows: endpoints in their order, features as they came."""
    known = dict.fromkeys((endpoint, feature) for _, endpoint, feature in outcomes)
    return sorted(known, key=lambda row: ENDPOINTS.index(row[0]))


def _cell(cell: Cell, outcomes: Mapping[Cell, str], notes: list[str]) -> str:
    if cell in outcomes:
        return outcomes[cell]
    if cell[1] not in CALLS[cell[0]]:
        return "no call"
    note = REASONS.get(cell) or REASONS[(*cell[:2], None)]
    if note not in notes:
        notes.append(note)
    return f"no ({notes.index(note) + 1})"


def _unserved() -> Iterator[str]:
    """List what OpenRouter has and Weir has not."""
    yield from (
        "",
        "## Not served",
        "",
        "Every path that the `openrouter` client knows is served under `/api/v1`, but for these:",
        "",
        "| path | methods | why |",
        "|---|---|---|",
    )
    methods: dict[tuple[str, str], list[str]] = {}
    for path, method in operations():
        reason = why_not(path, method)
        if reason is not None:
            methods.setdefault((path, reason), []).append(method)
    for (path, reason), known in methods.items():
        yield f"| `{path}` | {', '.join(sorted(known))} | {reason} |"


class Collector:
    """Notes which test shows what, and how it went: a cell passes when all of its tests do."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self.outcomes: dict[Cell, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read the marks."""
        for item in sorted(items, key=lambda item: item.path.name):
            for mark in item.iter_markers("shows"):
                client, endpoint, feature = mark.args
                self.cells[item.nodeid] = (client, endpoint, feature)
                self.outcomes.setdefault((client, endpoint, feature), "pass")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what did not pass."""
        cell = self.cells.get(report.nodeid)
        if cell is not None and not report.passed and self.outcomes[cell] != "fail":
            self.outcomes[cell] = "fail" if report.failed else "skipped"


def main() -> int:
    """Write the page; see the module."""
    collector = Collector()
    but = f"{PAGE_TEST}::test_the_page_lists_every_test_of_a_client"
    status = pytest.main(["-q", "--deselect", but, str(TESTS)], plugins=[collector])
    made, before = render(collector.outcomes), PAGE.read_text() if PAGE.exists() else ""
    PAGE.write_text(made)
    difference = difflib.unified_diff(before.splitlines(), made.splitlines(), "committed", "made", lineterm="")
    sys.stdout.writelines(line + "\n" for line in difference)
    return int(status) or int(made != before)


if __name__ == "__main__":
    sys.exit(main())
