"""Sources of prices: the data of the package ``genai-prices``, and LiteLLM's price map as a JSON file.

Neither is asked over the network: the package's data is as old as the package, and the file is whatever the operator
has downloaded. Decimal numbers stay decimal from the first byte on. A source that cannot be read is ``BadRequest``;
a price that cannot be held exactly is reported with its reason and not taken.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.tariff.offers import Found, Offer, Point, Target, assembled, nano_of, pico_of
from gateway.types.errors import BadRequest
from gateway.types.money import DEFAULT_TIER

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

GENAI: Final = "genai-prices"
LITELLM: Final = "litellm"
Pairs = list[tuple[str, Any]]
Priced = tuple[dict[Point, int], list[str]]
"""Points, and notes on what they leave out."""

_GENAI_CLASSES: Final = {
    "input_mtok": "prompt",
    "output_mtok": "completion",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_prompt",
    "output_audio_mtok": "audio_completion",
    "input_image_mtok": "image_prompt",
    "output_image_mtok": "image_completion",
}
_GENAI_CONTEXTS: Final = {
    DEFAULT_TIER: {},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "batch": {"processing": "batch"},
}
_LITELLM_CLASSES: Final = {
    "input_cost_per_token": "prompt",
    "output_cost_per_token": "completion",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_prompt",
    "output_cost_per_audio_token": "audio_completion",
    "input_cost_per_image_token": "image_prompt",
    "output_cost_per_image_token": "image_completion",
    "input_cost_per_request": "request",
}
_LITELLM_KEY: Final = re.compile(
    rf"({'|'.join(_LITELLM_CLASSES)})(?:_above_(\d+)k_tokens)?(?:_(flex|priority|batches))?"
)
_LARGEST_FILE: Final = 64 * 1024 * 1024


def from_genai_prices(targets: Sequence[Target], names: Mapping[str, str], provider: str | None) -> Found:
    """Return what ``genai-prices`` says of ``targets`` today.

    Args:
        targets: what is looked for.
        names: what the source calls a model of ours, where that is another name: ``provider/model``.
        provider: the provider in the source, when it is not called as here.
    """
    import genai_prices  # noqa: PLC0415 - half a second and 30 MB, needed by this command alone
    from genai_prices.data import providers  # noqa: PLC0415 - see above

    by_id = {each.id: each for each in providers}
    now = datetime.now(UTC)

    def look(target: Target) -> tuple[str, Callable[[], Priced]] | None:
        given = names.get(target.model)
        if given is not None:
            wanted, _, ref = given.partition("/")
            refs: tuple[str, ...] = (ref,)
        else:
            wanted, refs = provider or target.provider, target.names
        found = by_id.get(wanted)
        model = next((model for ref in refs if found is not None and (model := found.find_model(ref))), None)
        return (f"{wanted}/{model.id}", partial(_of_genai, model, now)) if model is not None else None

    return _collect(GENAI, genai_prices.__version__, targets, look)


def _of_genai(model: ModelInfo, now: datetime) -> Priced:
    points: dict[Point, int] = {}
    notes: list[str] = []
    standard = model.get_prices(now)
    for tier, context in _GENAI_CONTEXTS.items():
        prices = model.get_prices(now, dict(context)) if context else standard
        if tier == DEFAULT_TIER or prices != standard:
            _take_genai(prices, tier, points, notes)
    return points, notes


def _take_genai(prices: ModelPrice, tier: str, points: dict[Point, int], notes: list[str]) -> None:
    for key, price in vars(prices).items():
        if price is None or key.startswith("_"):
            continue
        lines = [
            (0, getattr(price, "base", price)),
            *((each.start, each.price) for each in getattr(price, "tiers", ())),
        ]
        for above, usd in lines:
            if key in _GENAI_CLASSES:
                points[tier, above, _GENAI_CLASSES[key]] = pico_of(usd, 1_000_000)
            elif key == "requests_kcount":
                points[tier, above, "request"] = nano_of(usd, 1_000)
        if key not in _GENAI_CLASSES and key != "requests_kcount" and tier == DEFAULT_TIER:
            notes.append(f"{key} is not charged here")


def from_litellm(data: bytes, targets: Sequence[Target], names: Mapping[str, str], provider: str | None) -> Found:
    """Return what LiteLLM's price map ``data`` (``model_prices_and_context_window.json``) says of ``targets``."""
    if len(data) > _LARGEST_FILE:
        raise BadRequest("the file is over 64 MB: that is no price map")
    try:
        entries = json.loads(data, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=_told)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the file is not JSON: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise BadRequest("the file is no price map: it should be an object of models")

    def look(target: Target) -> tuple[str, Callable[[], Priced]] | None:
        name = names.get(target.model)
        wanted = provider or target.provider
        tries = [name] if name is not None else [f"{wanted}/{target.names[0].rpartition('/')[2]}", *target.names]
        for tried in dict.fromkeys(tries):
            entry = entries.get(tried)
            if entry is not None and (name or provider is None or entry.get("litellm_provider") == provider):
                return tried, partial(_of_litellm, entries, tried)
        return None

    return _collect(LITELLM, hashlib.sha256(data).hexdigest()[:16], targets, look)


class _Doubled(dict[str, Any]):
    """An object that says some of its ``names`` twice and differently: nobody can say which of the two counts."""

    names: frozenset[str]


def _told(pairs: Pairs) -> dict[str, Any]:
    """Return the object of ``pairs``; what is repeated word for word is said once."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled = _Doubled(found)
    doubled.names = frozenset(name for name, value in pairs if value != found[name])
    return doubled


def _once_in(entries: Mapping[str, Any], name: str) -> None:
    """Raise ``ValueError`` when ``entries`` says ``name`` twice and differently."""
    if isinstance(entries, _Doubled) and name in entries.names:
        raise ValueError(f"{name} is in the file twice, and differently: keep one of them")


def _of_litellm(entries: Mapping[str, Any], tried: str) -> Priced:
    _once_in(entries, tried)
    entry = entries[tried]
    points: dict[Point, int] = {}
    notes: list[str] = []
    for key, value in entry.items():
        if not isinstance(value, Decimal) or "cost" not in key:
            continue
        match = _LITELLM_KEY.fullmatch(key)
        if match is None:
            notes.append(f"{key} is not charged here")
            continue
        _once_in(entry, key)
        class_, tier = _LITELLM_CLASSES[match[1]], {None: DEFAULT_TIER, "batches": "batch"}.get(match[3], match[3])
        above = int(match[2]) * 1_000 if match[2] else 0
        points[tier, above, class_] = nano_of(value) if class_ == "request" else pico_of(value)
    return points, notes


def _collect(
    source: str,
    version: str,
    targets: Sequence[Target],
    look: Callable[[Target], tuple[str, Callable[[], Priced]] | None],
) -> Found:
    offers: list[Offer] = []
    missing: list[Target] = []
    unclear: list[tuple[Target, str]] = []
    for target in targets:
        known = look(target)
        if known is None:
            missing.append(target)
            continue
        matched, read = known
        try:
            points, notes = read()
            offers.append(Offer(target, matched, assembled(points), tuple(notes)))
        except ValueError as error:
            unclear.append((target, f"{matched}: {error}"))
    return Found(source, version, tuple(offers), tuple(missing), tuple(unclear))
