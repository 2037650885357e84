"""How much a request may be kept waiting for the sake of others."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """Bands of requests, the most urgent first; what each may claim is said in ``docs/admission.md``."""

    INTERACTIVE = "interactive"
    """Somebody is watching."""
    STANDARD = "standard"
    """An application waits; what a request is unless it says otherwise."""
    BATCH = "batch"
    """Nobody waits: it takes what is left, and is the first to be turned away."""
