"""Who is asking: the outcome of a successful authentication. Values only; nothing here can fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.types.guardrails import Rule
from gateway.types.keys import KeyLimits

_UNLIMITED: Final = KeyLimits()


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a key, as every later stop of a request sees it.

    Attributes:
        key_id: public id of the inference key, ``""`` for a management key.
        team: slug of the team that pays, ``""`` for a management key.
        models: ids and aliases the key may use, or None for all.
        limits: limits of the key.
        management: whether this is a management key, which cannot run inference.
        rule: what guardrails ask of its requests, or None.
        role: of a management key that has one; the operator's key, which may everything, has none.
    """

    key_id: str
    team: str
    models: frozenset[str] | None = None
    limits: KeyLimits = _UNLIMITED
    management: bool = False
    rule: Rule | None = None
    role: str = ""

    def may_use(self, model_id: str, alias: str | None = None) -> bool:
        """Return whether the key may use ``model_id``, by that name or by the ``alias`` the caller used."""
        if self.rule is not None and not self.rule.allows(model_id):
            return False
        return self.models is None or model_id in self.models or (alias is not None and alias in self.models)
