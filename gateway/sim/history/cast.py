"""Who takes part in the demo's past: models with their endpoints and fortunes, teams with their keys, apps.

All of it is made up, apart from the names of models. Apps live under ``.example``, teams say what they are. Days are
counted from the day of the first start: negative ones are before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.types.money import Rates

OUTAGE: Final = -37
"""The day on which the own GPUs were away during working hours."""
OUTAGE_HOURS: Final = range(8, 17)
LONG_AGO: Final = -10_000


@dataclass(frozen=True, slots=True)
class Outlet:
    """An endpoint of a model.

    Attributes:
        slug: provider, quantization and region, as the ledger names endpoints.
        backend: replica.
        provider: who runs it.
        share: of the model's traffic, percent.
        cost: what the owner pays, None for own GPUs.
    """

    slug: str
    backend: str
    provider: str
    share: int
    cost: Rates | None = None


@dataclass(frozen=True, slots=True)
class Star:
    """A model and what became of it.

    Attributes:
        id: as callers name it.
        tier: the recorded clients it is given.
        price: what teams pay.
        outlets: its endpoints.
        tokens: a day's tokens on day 0, on a plain weekday.
        growth: growth over 90 days as the exponent of e; negative shrinks.
        launched: its first day.
        pace: tokens per second of one answer.
        wait: seconds to the first token.
    """

    id: str
    tier: str
    price: Rates
    outlets: tuple[Outlet, ...]
    tokens: float
    growth: float
    launched: int = LONG_AGO
    pace: float = 45.0
    wait: float = 0.4


@dataclass(frozen=True, slots=True)
class Crew:
    """A team: its slug, name, how busy it is on weekends against weekdays, and the ids of its keys."""

    slug: str
    name: str
    weekend: float
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """An app: its host, title, categories, and the team that uses it most."""

    host: str
    title: str
    categories: tuple[str, ...]
    team: str


def _usd(prompt: float, completion: float, cache: float | None = None) -> Rates:
    """Return rates from USD per million tokens."""
    return Rates(round(prompt * 1e6), round(completion * 1e6), None if cache is None else round(cache * 1e6))


def _own(share: int, backend: str, quantization: str = "fp8") -> Outlet:
    return Outlet(f"own/{quantization}/eu", backend, "own", share)


def _cloud(share: int, prompt: float, completion: float) -> Outlet:
    return Outlet("cloud", "cloud", "cloud", share, _usd(prompt, completion))


STARS: Final = (
    Star(
        "qwen/qwen3-32b",
        "m-large",
        _usd(0.10, 0.30, 0.02),
        (_own(62, "gpu-a"), _own(26, "gpu-b"), _cloud(12, 0.16, 0.64)),
        1.12e12,
        1.1,
        pace=52,
        wait=0.35,
    ),
    Star(
        "qwen/qwen3-8b",
        "m-small",
        _usd(0.04, 0.12),
        (_own(85, "gpu-d", "bf16"), _cloud(15, 0.05, 0.2)),
        3.1e11,
        0.5,
        pace=95,
        wait=0.15,
    ),
    Star(
        "qwen/qwen3-coder-480b-a35b",
        "m-large",
        _usd(0.40, 1.60, 0.08),
        (_own(40, "gpu-e"), _cloud(60, 0.3, 1.3)),
        5.4e11,
        2.2,
        launched=-58,
        pace=48,
        wait=0.6,
    ),
    Star(
        "qwen/qwen3-next-80b-a3b",
        "m-mid",
        _usd(0.10, 0.80),
        (_own(70, "gpu-f"), _cloud(30, 0.15, 1.2)),
        4.6e11,
        3.0,
        launched=-29,
        pace=110,
        wait=0.25,
    ),
    Star(
        "qwen/qwen2.5-72b-instruct", "m-mid", _usd(0.25, 0.50), (_own(100, "gpu-c"),), 6.5e10, -2.3, pace=34, wait=0.5
    ),
    Star("deepseek/deepseek-v3.1", "m-large", _usd(0.25, 1.0, 0.06), (_cloud(100, 0.2, 0.8),), 2.9e11, 0.6, wait=0.9),
    Star("deepseek/deepseek-r1", "m-mid", _usd(0.50, 2.15), (_cloud(100, 0.4, 2.0),), 5.2e10, -1.6, pace=38, wait=1.1),
    Star(
        "meta-llama/llama-3.3-70b-instruct",
        "m-mid",
        _usd(0.13, 0.40),
        (_cloud(100, 0.1, 0.32),),
        8.8e10,
        -1.1,
        wait=0.5,
    ),
    Star(
        "mistralai/mistral-small-3.2-24b", "m-small", _usd(0.06, 0.18), (_cloud(100, 0.05, 0.15),), 7.0e10, 0.2, pace=75
    ),
    Star("google/gemma-3-27b-it", "m-small", _usd(0.09, 0.17), (_own(100, "gpu-g", "bf16"),), 9.4e10, 0.8, pace=60),
    Star(
        "openai/gpt-oss-120b",
        "m-mid",
        _usd(0.07, 0.30),
        (_own(55, "gpu-f"), _cloud(45, 0.05, 0.25)),
        2.0e11,
        1.4,
        pace=120,
    ),
    Star(
        "z-ai/glm-4.6", "m-mid", _usd(0.45, 1.75, 0.11), (_cloud(100, 0.4, 1.6),), 1.5e11, 1.9, launched=-44, wait=0.8
    ),
    Star("moonshotai/kimi-k2", "m-mid", _usd(0.50, 2.40), (_cloud(100, 0.45, 2.2),), 7.5e10, 0.3, pace=36, wait=1.0),
)
CREWS: Final = (
    Crew("demo-coding", "Coding (made up)", 0.42, ("demokey1", "demokey2", "demokey3")),
    Crew("demo-assistant", "Assistant (made up)", 1.12, ("demokey4", "demokey5")),
    Crew("demo-support", "Support (made up)", 0.71, ("demokey6", "demokey7")),
    Crew("demo-search", "Search (made up)", 0.95, ("demokey8",)),
    Crew("demo-research", "Research (made up)", 0.66, ("demokey9",)),
    Crew("demo-data", "Data platform (made up)", 0.88, ("demokeya", "demokeyb")),
)
PROGRAMS: Final = (
    Program("pilot.example", "Pilot", ("cli-agent", "programming-app"), "demo-coding"),
    Program("sidecar.example", "Sidecar", ("ide-extension",), "demo-coding"),
    Program("nightshift.example", "Nightshift", ("cloud-agent",), "demo-coding"),
    Program("reviewer.example", "Reviewer", ("cloud-agent", "programming-app"), "demo-coding"),
    Program("parley.example", "Parley", ("general-chat",), "demo-assistant"),
    Program("valet.example", "Valet", ("personal-agent",), "demo-assistant"),
    Program("tavern.example", "Tavern", ("roleplay",), "demo-assistant"),
    Program("quill.example", "Quill", ("writing-assistant",), "demo-assistant"),
    Program("frontdesk.example", "Front desk", ("general-chat",), "demo-support"),
    Program("ticketeer.example", "Ticketeer", (), "demo-support"),
    Program("finder.example", "Finder", (), "demo-search"),
    Program("labbook.example", "Lab book", ("writing-assistant",), "demo-research"),
    Program("clauses.example", "Clauses", ("legal",), "demo-research"),
    Program("", "", (), "demo-data"),
)
"""The last one is of requests that do not say which app they are."""
