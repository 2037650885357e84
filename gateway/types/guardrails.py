"""Guardrails as values: what requests of a key may use, beside what the key itself says, and what they may spend.

A guardrail is of a team. The team's default one holds for every key of the team, any other one for the keys and for the
keys of the members that it is assigned to. Those that hold for a key hold all together: a request has to satisfy each.
Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from gateway.types.budgets import Window
from gateway.types.method import Method, method

GROUPS: Final = ("anthropic", "google", "openai", "xai", "other")
"""Groups of models, by who made them, for which retention is forbidden apart."""
_XAI: Final = frozenset({"xai", "x-ai"})


class Terms(msgspec.Struct, frozen=True):
    """What a guardrail asks of requests; None is no restriction.

    Attributes:
        allowed_models, ignored_models: ids of models.
        allowed_providers, ignored_providers: slugs as of ``Preferences.only``, case-folded.
        zdr: groups of models that only endpoints with zero data retention may serve.
        deny_collection: whether endpoints that may store prompts or train on them must not serve.
    """

    allowed_models: tuple[str, ...] | None = None
    ignored_models: tuple[str, ...] | None = None
    allowed_providers: tuple[str, ...] | None = None
    ignored_providers: tuple[str, ...] | None = None
    zdr: tuple[str, ...] = ()
    deny_collection: bool = False


class Guardrail(msgspec.Struct, frozen=True):
    """A guardrail; times are microseconds since 1970.

    Attributes:
        limit_nano: nano-USD that each key it holds for may spend in a window, or None.
        window: that window, when there is a limit.
        is_default: whether it is its team's default one.
    """

    guardrail_id: str
    team: str
    name: str
    description: str
    terms: Terms
    limit_nano: int | None
    window: Window | None
    created_at: int
    updated_at: int | None
    is_default: bool


class NewGuardrail(msgspec.Struct, frozen=True):
    """What a guardrail is to be."""

    name: str
    description: str
    terms: Terms
    limit_nano: int | None
    window: Window | None


class Assignment(msgspec.Struct, frozen=True):
    """That a guardrail is for a key or a member.

    Attributes:
        subject: public id of the key, or the member's user id.
        key_name: what people call the key, ``""`` of a member.
    """

    guardrail_id: str
    team: str
    subject: str
    created_at: int
    key_name: str = ""


class Rule(msgspec.Struct, frozen=True):
    """All that guardrails ask of the requests of one key: names and terms, each of which has to be satisfied."""

    guardrails: tuple[tuple[str, Terms], ...]

    def objection(self, model_id: str, names: frozenset[str], *, zdr: bool, collects: bool) -> str:
        """Return what speaks against a replica, or ``""``.

        Args:
            model_id: the model it serves.
            names: every slug by which the replica may be meant, case-folded.
            zdr: whether it keeps nothing of a request.
            collects: whether it may store prompts or train on them.
        """
        for name, terms in self.guardrails:
            if not _allows(terms, model_id):
                return f"the guardrail {name!r} does not allow the model {model_id}"
            allowed = terms.allowed_providers
            if allowed is not None and names.isdisjoint(allowed):
                return f"the guardrail {name!r} does not allow this provider"
            if terms.ignored_providers is not None and not names.isdisjoint(terms.ignored_providers):
                return f"the guardrail {name!r} excludes this provider"
            if not zdr and terms.zdr and group_of(model_id) in terms.zdr:
                return f"the guardrail {name!r} wants zero data retention"
            if collects and terms.deny_collection:
                return f"the guardrail {name!r} denies data collection"
        return ""

    @property
    def keeps_nothing(self) -> bool:
        """Whether zero data retention is wanted of any models: then the gateway itself keeps nothing of a request."""
        return any(terms.zdr for _, terms in self.guardrails)

    def allows(self, model_id: str) -> bool:
        """Return whether no guardrail forbids the model altogether."""
        return all(_allows(terms, model_id) for _, terms in self.guardrails)


def _allows(terms: Terms, model_id: str) -> bool:
    if terms.allowed_models is not None and model_id not in terms.allowed_models:
        return False
    return terms.ignored_models is None or model_id not in terms.ignored_models


def group_of(model_id: str) -> str:
    """Return the one of ``GROUPS`` that a model is in."""
    author = model_id.partition("/")[0].casefold()
    return "xai" if author in _XAI else author if author in GROUPS else "other"


def default_id(team: str) -> str:
    """Return the id of a team's default guardrail."""
    return f"gr-default-{sha256(team.encode()).hexdigest()[:16]}"


class Governance(msgspec.Struct, frozen=True):
    """Everything about teams that serving processes go by.

    Attributes:
        revision: number of the change it is of.
        guardrails: name and terms by id, of those that restrict anything.
        keys: ids of guardrails that are for a key, by its public id.
        members: ids of guardrails that are for the keys of a member, by team and user id.
        defaults: default model and sort of teams that have one.
        presets: teams that have presets.
    """

    revision: int = 0
    guardrails: Mapping[str, tuple[str, Terms]] = {}
    keys: Mapping[str, tuple[str, ...]] = {}
    members: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
    defaults: Mapping[str, tuple[str, str]] = {}
    presets: frozenset[str] = frozenset()

    def rule(self, key_id: str, team: str, creator: str) -> Rule | None:
        """Return what holds for a key, or None when nothing does."""
        if not self.guardrails:
            return None
        wanted = [default_id(team), *self.keys.get(key_id, ())]
        if creator:
            wanted += self.members.get(team, {}).get(creator, ())
        found = tuple(self.guardrails[each] for each in dict.fromkeys(wanted) if each in self.guardrails)
        return Rule(found) if found else None


GUARDRAILS: Final[Method[Sequence[Guardrail]]] = method("guardrails.list", tuple[str | None], tuple[Guardrail, ...])
"""All guardrails, or those of a team; each team's default one is among them also before anybody changed it."""
GUARDRAIL: Final[Method[Guardrail]] = method("guardrails.get", tuple[str], Guardrail)
CREATE_GUARDRAIL: Final[Method[Guardrail]] = method(
    "guardrails.create", tuple[str, NewGuardrail], Guardrail, repeatable=False
)
UPDATE_GUARDRAIL: Final[Method[Guardrail]] = method("guardrails.update", tuple[str, NewGuardrail], Guardrail)
DELETE_GUARDRAIL: Final[Method[None]] = method("guardrails.delete", tuple[str], None)
KEY_ASSIGNMENTS: Final[Method[Sequence[Assignment]]] = method(
    "guardrails.keys", tuple[str | None], tuple[Assignment, ...]
)
"""Keys of one guardrail, or of all."""
MEMBER_ASSIGNMENTS: Final[Method[Sequence[Assignment]]] = method(
    "guardrails.members", tuple[str | None], tuple[Assignment, ...]
)
ASSIGN_KEYS: Final[Method[int]] = method("guardrails.assign_keys", tuple[str, tuple[str, ...], bool], int)
"""Guardrail, hashes of keys, and whether they are assigned or no more; returns how many changed."""
ASSIGN_MEMBERS: Final[Method[int]] = method("guardrails.assign_members", tuple[str, tuple[str, ...], bool], int)
GOVERNANCE: Final[Method[Governance | None]] = method("guardrails.governance", tuple[int], Governance | None)
"""What serving processes go by; None when the revision they name is still the newest."""
