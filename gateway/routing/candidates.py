"""From the name a caller wrote to the model that answers, and so to its candidates.

A name that is neither a model nor an alias raises ``NotFound`` with the near names.
"""

from __future__ import annotations

from random import Random

from gateway.fleet.snapshot import Fleet, Model
from gateway.routing.refusal import unknown_model


def resolve(fleet: Fleet, name: str, rng: Random) -> Model:
    """Return the model called ``name``; an alias draws one of its models, each with its weight's share."""
    model = fleet.models.get(name)
    if model is not None:
        return model
    targets = fleet.aliases.get(name)
    if targets is None:
        raise unknown_model(name, [*fleet.models, *fleet.aliases])
    if len(targets) == 1:
        return fleet.models[targets[0][0]]
    ticket = rng.random() * sum(weight for _, weight in targets)
    for model_id, weight in targets:
        ticket -= weight
        if ticket < 0:
            return fleet.models[model_id]
    return fleet.models[targets[-1][0]]
