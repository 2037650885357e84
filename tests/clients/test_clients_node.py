"""The official clients for Node, unmodified, against Weir: ``node/*.mjs`` has the checks, each is a test here.

A client's checks run in one process of Node. Without Node, or without the packages, they are skipped with the line that
installs them, and fail where ``CI=true``.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from tests.clients.house import CREATED, EMBEDDER, FAULTS, MODEL, REAL, REAL_TOOLS, RERANKER, House, cost, fragile
from tests.clients.javascript import FOLDER, node
from tests.clients.plays import CACHED, PLAYS, PROMPT
from tests.clients.shows import (
    AI_SDK,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    OPENAI_JS,
    OPENROUTER_JS,
    RERANK,
    RESPONSES,
    shows,
)
from tests.engine.tiny_qwen import CHAIN_TEXT, CHAIN_TOKENS

SCRIPTS: Final = {OPENAI_JS: "openai", OPENROUTER_JS: "openrouter", AI_SDK: "ai-sdk"}
CALLERS: Final = {OPENAI_JS: "openai-js", OPENROUTER_JS: "openrouter-js", AI_SDK: "ai-sdk"}
SECONDS: Final = 100
_CHAT: Final = {
    "chat": (CHAT, "text, usage, cost"),
    "stream": (CHAT, "stream"),
    "tools": (CHAT, "parallel tools, and their results"),
    "tools_in_a_stream": (CHAT, "parallel tools in a stream"),
    "structured": (CHAT, "structured output"),
    "reasoning": (CHAT, "reasoning"),
    "images": (CHAT, "images"),
    "routing": (CHAT, "routing controls"),
    "real": (CHAT, "real llama.cpp engine"),
    "errors": (CHAT, "errors"),
    "errors_of_keys": (CHAT, "errors of keys"),
    "cut": (CHAT, "cut streams"),
    "retries": (CHAT, "the client's own retries"),
    "embeddings": (EMBEDDINGS, "vectors"),
}
_RESPONSES: Final = {
    "responses": (RESPONSES, "text, usage, cost"),
    "responses_stream": (RESPONSES, "stream"),
    "responses_tools": (RESPONSES, "parallel tools, and their results"),
    "responses_errors": (RESPONSES, "errors"),
}
CHECKS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    OPENAI_JS: {
        **_CHAT,
        **_RESPONSES,
        "responses_structured": (RESPONSES, "structured output"),
        "completions": (COMPLETIONS, "text"),
        "models": ("GET /models", "list"),
        "model": ("GET /models/{model}", "one"),
    },
    OPENROUTER_JS: {
        **_CHAT,
        **_RESPONSES,
        "rerank": (RERANK, "documents by relevance"),
        "credits": ("GET /credits", "spent and left"),
        "workspaces": ("POST /workspaces", "make, list, read, change, budget, delete"),
        "guardrails": ("POST /guardrails", "make, assign, obey, delete"),
        "presets": ("GET /presets", "make from a request, list, read, use"),
        "byok": ("POST /byok", "make, list, change, delete"),
        "analytics": ("POST /analytics/query", "tokens and cost by model"),
        "models": ("GET /models", "list"),
        "model": ("GET /model/{model}", "one"),
        "count": ("GET /models/count", "count"),
        "endpoints": ("GET /models/{model}/endpoints", "who serves it"),
        "zdr": ("GET /endpoints/zdr", "list"),
        "providers": ("GET /providers", "list"),
        "generation": ("GET /generation", "usage and cost of an answer"),
        "content": ("GET /generation/content", "what was asked and answered"),
        "key": ("GET /key", "usage and limits of the key"),
        "keys": ("POST /keys", "make, list, read, change, delete"),
        "activity": ("GET /activity", "usage by day"),
        "rankings": ("GET /datasets/rankings-daily", "tokens by model and day"),
        "app_rankings": ("GET /datasets/app-rankings", "tokens by app"),
    },
    AI_SDK: {
        **_CHAT,
        "completions": (COMPLETIONS, "text"),
    },
}
"""What each check shows, by client."""

Results = Callable[[str], dict[str, Any]]


def expected(house: House, caller: str) -> dict[str, Any]:
    """Return what a script is told: where everything is, and what must come of it."""
    plays = {
        name: {
            "text": play.text,
            "pieces": play.pieces,
            "thought": play.thought,
            "tools": [[tool.id, tool.name, tool.arguments] for tool in play.tools],
            "completion": play.completion,
            "reasoning": play.reasoning,
            "cost": float(cost(play)),
        }
        for name, play in PLAYS.items()
    }
    return {
        "url": house.url,
        "key": house.key,
        "admin": house.admin,
        "keys": {
            "unknown": "sk-weir-aaaaaaaa-" + "0" * 48,
            "elsewhere": house.new_key(weir={"models": [REAL]}),
            "poor": house.new_key(limit=0.000001),
            "often": house.new_key(weir={"limits": {"rpm": 1}}),
            "kept": house.keeping_key(f"kept-{caller}"),
            "limited": house.new_key(limit=1.5, limit_reset="daily"),
        },
        "models": {
            "scripted": MODEL,
            "real": REAL,
            "realTools": REAL_TOOLS,
            "embedder": EMBEDDER,
            "reranker": RERANKER,
        },
        "weak": {fault: fragile(caller, fault) for fault in FAULTS},
        "created": CREATED,
        "prompt": PROMPT,
        "cached": CACHED,
        "plays": plays,
        "real": {"text": CHAIN_TEXT, "tokens": CHAIN_TOKENS},
    }


@pytest.fixture(scope="module")
def results(house: House) -> Results:
    """Return what gives the results of a client's checks, which run when they are first asked for."""
    known: dict[str, dict[str, Any] | str] = {}

    def of(client: str) -> dict[str, Any]:
        if client not in known:
            known[client] = _checked(client, json.dumps(expected(house, CALLERS[client])))
        found = known[client]
        return found if isinstance(found, dict) else pytest.fail(found)

    return of


def _checked(client: str, told: str) -> dict[str, Any] | str:
    """Run the checks of a client; return what came of each, or why they did not come to their end."""
    try:
        done = subprocess.run(
            [node(), "run.mjs", SCRIPTS[client]],
            cwd=FOLDER,
            env={"PATH": os.environ["PATH"]},
            input=told,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        return f"still running after {SECONDS} s: {error.stdout!r}"
    if done.returncode != 0:
        return done.stderr
    return {line["name"]: line["error"] for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(
    ("client", "name"),
    [
        pytest.param(client, name, id=f"{SCRIPTS[client]}-{name}", marks=shows(client, *what))
        for client, checks in CHECKS.items()
        for name, what in checks.items()
    ],
)
def test_check(results: Results, client: str, name: str) -> None:
    """The check of that name did not fail."""
    error = results(client)[name]
    assert error is None, error


@pytest.mark.parametrize("client", CHECKS, ids=list(SCRIPTS.values()))
def test_every_check_is_a_test(results: Results, client: str) -> None:
    """No check runs that nobody looks at."""
    assert set(results(client)) == set(CHECKS[client])
