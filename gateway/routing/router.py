"""The router: the one question the rest of the gateway asks of routing.

Raises typed errors only: an unknown model or preset, or no candidate left (``gateway.routing.refusal``).
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from gateway.fleet.expectation import Expectations
from gateway.fleet.prefix import chain
from gateway.fleet.registry import FleetRegistry
from gateway.fleet.snapshot import Model
from gateway.routing.candidates import MayUse
from gateway.routing.chance import Chance
from gateway.routing.interface import Plan, RouteRequest
from gateway.routing.pipeline import Policy, decide
from gateway.routing.preferences import allowed, gather, named, stem_of, targets
from gateway.routing.prompt import conversation, text
from gateway.routing.refusal import near_names
from gateway.types.call import Call, Need
from gateway.types.errors import BadRequest
from gateway.types.guardrails import Rule

_OTHER_THAN_CHAT: Final = Need.COMPLETIONS | Need.EMBEDDINGS | Need.RERANK


class Router:
    """Plans requests over the current fleet.

    Args:
        registry: holds the fleet.
        policies: presets by name; holds the default of every configuration that is accepted.
        rng: randomness of aliases and pickers; of any but a ``Chance`` one is made.

    Attributes:
        expectations: how long answers usually are.
    """

    __slots__ = ("_policies", "_registry", "_rng", "expectations")

    def __init__(self, registry: FleetRegistry, policies: Mapping[str, Policy], rng: Random) -> None:
        self._registry = registry
        self._policies = policies
        self._rng = rng if isinstance(rng, Chance) else Chance(rng.getrandbits(64))
        self.expectations = Expectations()

    def model(self, name: str) -> Model:
        """Return the model a caller means by ``name``; an alias draws. Raises ``NotFound``."""
        return named(self._registry.fleet, name, self._rng)[0]

    def knows(self, name: str) -> bool:
        """Return whether ``name`` is the id of a model that is served now."""
        return name in self._registry.fleet.models

    def permitted(self, call: Call, allowed: frozenset[str]) -> frozenset[str]:
        """Return the ids of models that a key with the models and aliases ``allowed`` may get for ``call``."""
        names = (call.model, *call.preferences.models) if call.preferences is not None else (call.model,)
        return allowed | {id_ for name in names for id_ in targets(self._registry.fleet, name, allowed)}

    def reachable(self, call: Call) -> list[Model]:
        """Return every model that may answer ``call``, whatever its aliases draw; unknown names add none."""
        fleet = self._registry.fleet
        names = (call.model, *call.preferences.models) if call.preferences is not None else (call.model,)
        found: dict[str, Model] = {}
        for stem in (stem_of(fleet, name) for name in names):
            shares = fleet.aliases.get(stem or "", ((stem or "", 1),))
            found.update((name, fleet.models[name]) for name, _ in shares if name in fleet.models)
        return list(found.values())

    def plan(
        self,
        request: RouteRequest,
        *,
        explain: bool = False,
        rule: Rule | None = None,
        may_use: MayUse | None = None,
    ) -> Plan:
        """Return the order in which replicas are to be tried; ``request.model_id`` becomes the chosen model's id.

        ``rule`` is what guardrails ask: what it objects to is not decided about at all. An alias draws among the models
        that the caller ``may_use``.

        Raises:
            Forbidden: the rule objects to everything.
            NotFound: unknown model, or no endpoint supports the request.
            BadRequest: unknown preset, provider or quantization, or the request is too long for every endpoint.
            Unavailable: those that could serve it are down, out or full.
        """
        fleet = self._registry.fleet
        model = fleet.models.get(request.model_id)
        if model is None or request.preferences is not None:
            candidates = gather(fleet, request, self._rng, may_use)
        else:
            candidates = model.candidates
        if rule is not None:
            candidates = allowed(rule, candidates)
        if not fleet.chats and (model is None or not model.chats) and not request.needs & _OTHER_THAN_CHAT:
            request.needs |= Need.CHAT
        name = request.preset or fleet.default_preset
        policy = self._policies.get(name)
        if policy is None:
            raise self._unknown_preset(name)
        if policy.reads_prompts and request.prompt is not None and not request.blocks:
            request.blocks = chain(text(request.prompt))
        if policy.keeps_sessions and request.prompt is not None and not request.session:
            wishes = request.preferences
            if wishes is None or not wishes.order:  # an order of the caller's own goes before any affinity
                request.session = conversation(request.prompt)
        request.considered, request.chance = candidates, self._rng.state
        return decide(request, candidates, policy, self._rng, explain=explain)

    def _unknown_preset(self, name: str) -> BadRequest:
        near = near_names(name, list(self._policies))
        hint = f"; did you mean {', '.join(near)}?" if near else f"; there are {', '.join(self._policies)}"
        known = {"near": near, "available": list(self._policies)}
        return BadRequest(f"there is no routing preset {name[:100]!r}{hint}", param="preset", metadata=known)
