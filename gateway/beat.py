"""A common beat for what comes again and need not come at an exact moment.

Waking costs an idle process more than what it wakes for: 0.2 ms of CPU for a look that takes 0.02. Pauses that end with
a beat end together, so a process wakes as often as the beat and not as often as all its loops together.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

BEAT_S: Final = 0.25
"""Seconds between two beats."""


def paused(seconds: float) -> float:
    """Return the pause nearest to ``seconds`` that ends with a beat of the running loop; a short one stays as it is.

    A pause that begins with a beat and is a multiple of it stays as it is too, so loops keep their pace.
    """
    if seconds < BEAT_S:
        return seconds
    # Each process has beats of its own: workers do not all turn to their keeper at once.
    phase = os.getpid() % 16 * (BEAT_S / 16)
    now = asyncio.get_running_loop().time()
    return round((now + seconds - phase) / BEAT_S) * BEAT_S + phase - now
