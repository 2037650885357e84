"""What an operator may switch: the filters, scorers and pickers that presets combine, one class a file.

``BUILTIN`` is the whole list; a class that is not in it does not exist for a preset. ``PRESETS`` is the folder of the
presets, one YAML file each. See ``docs/policies.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.routing.interface import Parts
from policies.filters.capability import CapabilityFilter
from policies.filters.context import ContextFilter
from policies.filters.health import HealthFilter
from policies.pickers.best import BestPicker
from policies.scorers.latency import LatencyScorer
from policies.scorers.price import PriceScorer
from policies.scorers.queue import QueueScorer

BUILTIN: Final = Parts(
    filters=(CapabilityFilter, ContextFilter, HealthFilter),
    scorers=(PriceScorer, LatencyScorer, QueueScorer),
    pickers=(BestPicker,),
)

PRESETS: Final = Path(__file__).parent / "presets"
