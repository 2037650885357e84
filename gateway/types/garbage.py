"""Garbage collection of a process that serves for long."""

from __future__ import annotations

import gc
from typing import Final

THRESHOLD: Final = 20_000
"""Container objects made and not freed before the youngest generation is collected."""


def settle() -> None:
    """Take what start-up made out of garbage collection, and collect less often: requests and batches free theirs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, 20, 50)
