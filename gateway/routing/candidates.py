"""From the name a caller wrote to the model that answers, and so to its candidates.

A name that is neither a model nor an alias raises ``NotFound`` with the near names.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from gateway.fleet.snapshot import Fleet, Model
from gateway.routing.refusal import unknown_model

MayUse = Callable[[str, str], bool]
"""Whether the caller may use a model by the alias that it is asked for by."""


def resolve(fleet: Fleet, name: str, rng: Random, may_use: MayUse | None = None) -> Model:
    """Return the model called ``name``; an alias draws one of its models, each with its weight's share.

    It draws among those that the caller may use, as long as there are any.
    """
    model = fleet.models.get(name)
    if model is not None:
        return model
    targets = fleet.aliases.get(name)
    if targets is None:
        raise unknown_model(name, [*fleet.models, *fleet.aliases])
    if len(targets) > 1 and may_use is not None:
        targets = tuple([each for each in targets if may_use(each[0], name)]) or targets
    if len(targets) == 1:
        return fleet.models[targets[0][0]]
    ticket = rng.random() * sum(weight for _, weight in targets)
    for model_id, weight in targets:
        ticket -= weight
        if ticket < 0:
            return fleet.models[model_id]
    return fleet.models[targets[-1][0]]
