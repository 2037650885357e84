"""The router: the one question the rest of the gateway asks of routing.

Raises typed errors only: an unknown model or preset, or no candidate left (``gateway.routing.refusal``).
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from gateway.fleet.registry import FleetRegistry
from gateway.fleet.snapshot import Model
from gateway.routing.candidates import resolve
from gateway.routing.interface import Plan, RouteRequest
from gateway.routing.pipeline import Policy, decide
from gateway.routing.refusal import near_names
from gateway.types.errors import BadRequest


class Router:
    """Plans requests over the current fleet.

    Args:
        registry: holds the fleet.
        policies: presets by name; holds the default of every configuration that is accepted.
        rng: randomness of aliases and pickers.
    """

    __slots__ = ("_policies", "_registry", "_rng")

    def __init__(self, registry: FleetRegistry, policies: Mapping[str, Policy], rng: Random) -> None:
        self._registry = registry
        self._policies = policies
        self._rng = rng

    def model(self, name: str) -> Model:
        """Return the model a caller means by ``name``; an alias draws. Raises ``NotFound``."""
        return resolve(self._registry.fleet, name, self._rng)

    def knows(self, name: str) -> bool:
        """Return whether ``name`` is the id of a model that is served now."""
        return name in self._registry.fleet.models

    def plan(self, request: RouteRequest, *, explain: bool = False) -> Plan:
        """Return the order in which replicas are to be tried; ``request.model_id`` becomes the chosen model's id.

        Raises:
            NotFound: unknown model, or no endpoint supports the request.
            BadRequest: unknown preset, or the request is too long for every endpoint.
            Unavailable: those that could serve it are down, out or full.
        """
        fleet = self._registry.fleet
        model = fleet.models.get(request.model_id)
        if model is None:
            model = resolve(fleet, request.model_id, self._rng)
            request.model_id = model.id
        name = request.preset or fleet.default_preset
        policy = self._policies.get(name)
        if policy is None:
            raise self._unknown_preset(name)
        return decide(request, model.candidates, policy, self._rng, explain=explain)

    def _unknown_preset(self, name: str) -> BadRequest:
        near = near_names(name, list(self._policies))
        hint = f"; did you mean {', '.join(near)}?" if near else f"; there are {', '.join(self._policies)}"
        return BadRequest(f"there is no routing preset {name[:100]!r}{hint}", metadata={"near": near})
