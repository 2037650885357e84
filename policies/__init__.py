"""What an operator may switch: the filters, scorers and pickers that presets combine, one class a file.

``BUILTIN`` is the whole list; a class that is not in it does not exist for a preset. ``PRESETS`` is the folder of the
presets, one YAML file each. See ``docs/policies.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.routing.interface import Parts
from policies.filters.adapter import AdapterFilter
from policies.filters.capability import CapabilityFilter
from policies.filters.context import ContextFilter
from policies.filters.data_collection import DataCollectionFilter
from policies.filters.health import HealthFilter
from policies.filters.ignore import IgnoreFilter
from policies.filters.limits import LimitsFilter
from policies.filters.max_price import MaxPriceFilter
from policies.filters.only import OnlyFilter
from policies.filters.quantization import QuantizationFilter
from policies.filters.supported import SupportedParametersFilter
from policies.filters.zdr import ZdrFilter
from policies.pickers.best import BestPicker
from policies.pickers.cache_aware import CacheAwarePicker
from policies.pickers.inverse_square import InverseSquarePicker
from policies.pickers.least_request import LeastRequestPicker
from policies.pickers.p2c import TwoChoicesPicker
from policies.pickers.round_robin import RoundRobinPicker
from policies.scorers.cold import ColdScorer
from policies.scorers.cost import CostScorer
from policies.scorers.kv import KvScorer
from policies.scorers.latency import LatencyScorer
from policies.scorers.price import PriceScorer
from policies.scorers.queue import QueueScorer
from policies.scorers.session import SessionScorer
from policies.scorers.throughput import ThroughputScorer
from policies.scorers.time import TimeScorer
from policies.scorers.uptime import UptimeScorer
from policies.tiers.affinity import AffinityTier
from policies.tiers.capacity import CapacityTier
from policies.tiers.models import ModelsTier
from policies.tiers.order import OrderTier
from policies.tiers.outage import OutageTier
from policies.tiers.own import OwnTier
from policies.tiers.preferred import PreferredTier
from policies.tiers.quality import ToolQualityTier
from policies.tiers.slo import SloTier
from policies.tiers.sort import SortTier
from policies.tiers.uptime import UptimeTier

BUILTIN: Final = Parts(
    filters=(CapabilityFilter, ContextFilter, HealthFilter),
    scorers=(
        ColdScorer,
        CostScorer,
        KvScorer,
        LatencyScorer,
        PriceScorer,
        QueueScorer,
        SessionScorer,
        ThroughputScorer,
        TimeScorer,
        UptimeScorer,
    ),
    pickers=(
        BestPicker,
        CacheAwarePicker,
        InverseSquarePicker,
        LeastRequestPicker,
        RoundRobinPicker,
        TwoChoicesPicker,
    ),
    tiers=(AffinityTier, CapacityTier, OwnTier, SloTier, OutageTier, UptimeTier, ToolQualityTier),
    binding_filters=(
        OnlyFilter,
        IgnoreFilter,
        QuantizationFilter,
        DataCollectionFilter,
        ZdrFilter,
        MaxPriceFilter,
        SupportedParametersFilter,
        AdapterFilter,
        LimitsFilter,
    ),
    binding_tiers=(ModelsTier, OrderTier, PreferredTier, SortTier),
)

PRESETS: Final = Path(__file__).parent / "presets"
