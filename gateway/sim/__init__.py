"""Simulated engines with the HTTP faces of vLLM, SGLang, TGI, OpenAI-like APIs and Anthropic.

For the demo, the benchmarks and the tests: they answer at once or with a simple timing, count every token they
produce in their own books, and break in all the ways a backend can break. One process can host a fleet.

A request goes ``connection`` (HTTP) → ``backend`` (routes, checks) → ``answers`` (what will be said) → ``engine``
(when) → ``exchange`` or ``streaming`` (bytes, faults); ``faces`` holds what differs between the engines.
"""

from __future__ import annotations

from gateway.sim.books import BookEntry, Books, Totals
from gateway.sim.config import ALL_KINDS, INSTANT, KINDS, Kind, SimConfig, Timing
from gateway.sim.faults import Fault, FaultKind, Faults
from gateway.sim.fleet import SimFleet, run
from gateway.sim.server import SimServer

__all__ = [
    "ALL_KINDS",
    "INSTANT",
    "KINDS",
    "BookEntry",
    "Books",
    "Fault",
    "FaultKind",
    "Faults",
    "Kind",
    "SimConfig",
    "SimFleet",
    "SimServer",
    "Timing",
    "Totals",
    "run",
]
