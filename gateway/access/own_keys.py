"""Teams' own keys at work: where a request of a team goes with them, and what it is charged then.

An endpoint of a provider for which its team has a key is asked with that key before anybody's else; the owner's key
follows unless the team's says that it must not (``required``, ``only``). What goes with a team's key costs the owner
nothing, and the team a fee: a share of the list price. A key that cannot be opened, because the secret of the gateway
changed, is left out with a word in the log. Nothing else here raises but ``Unavailable``, when nothing is left to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

import msgspec

from gateway.access.principal import Principal
from gateway.beat import paused
from gateway.config.snapshot import EXTERNAL, Secret
from gateway.db.cipher import Cipher, Unsealable
from gateway.fleet.keychain import UpstreamKey
from gateway.fleet.snapshot import Candidate, Endpoint, Model
from gateway.pricing.charge import rates_id
from gateway.telemetry import logs, redaction
from gateway.types.errors import Unavailable, WeirError
from gateway.types.method import Asking
from gateway.types.money import BASIS_POINTS, Rates
from gateway.types.upstream_keys import KNOWN_UPSTREAM_KEYS, OWN_KEY, KnownKeys, OwnKey, context_of

EVERY_S: Final = 0.5
_NONE: Final[frozenset[str]] = frozenset()
_NOTHING: Final = Rates(prompt=0, completion=0)
_log: Final = logs.logger(__name__)


class _Held:
    """A key of a team, open."""

    __slots__ = ("known", "sealed", "used")

    def __init__(self, known: OwnKey, sealed: bytes, used: UpstreamKey) -> None:
        self.known = known
        self.sealed = sealed
        self.used = used

    def serves(self, model: str, key_id: str) -> bool:
        """Whether it is for requests of the inference key ``key_id`` for ``model``."""
        known = self.known
        return (known.models is None or model in known.models) and (known.keys is None or key_id in known.keys)


class OwnKeys:
    """What one process knows of teams' keys.

    Args:
        pepper: the gateway's secret; without one no key is opened.
        fee: basis points of the list price that teams pay for what goes with their own keys.

    Attributes:
        active: whether there is any key at all.
        fee: as of the arguments.
    """

    __slots__ = ("_cipher", "_teams", "active", "fee")

    def __init__(self, pepper: bytes = b"", fee: int = 0) -> None:
        self._cipher = Cipher(pepper) if pepper else None
        self._teams: dict[str, dict[str, list[_Held]]] = {}
        self.active = False
        self.fee = fee

    def learn(self, known: KnownKeys) -> None:
        """Go by ``known`` from now on; what is known of keys that stay is kept."""
        before = {
            (held.known.key_id, held.known.team, held.known.provider, held.sealed): held.used
            for providers in self._teams.values()
            for held_keys in providers.values()
            for held in held_keys
        }
        teams: dict[str, dict[str, list[_Held]]] = {}
        for each in known.keys:
            key = each.key
            place = (key.key_id, key.team, key.provider, each.sealed)
            used = before.get(place) or self._opened(key, each.sealed)
            if used is not None:
                teams.setdefault(key.team, {}).setdefault(key.provider, []).append(_Held(key, each.sealed, used))
        self._teams = teams
        self.active = bool(teams)

    def providers(self, principal: Principal) -> frozenset[str]:
        """Return the providers for which the team has a key."""
        found = self._teams.get(principal.team)
        return frozenset(found) if found else _NONE

    def arranged(self, steps: Sequence[Candidate], principal: Principal, *, alone: bool) -> tuple[Candidate, ...]:
        """Return ``steps`` with those that go with the team's keys first, and its fallbacks last.

        Args:
            steps: of a plan.
            principal: who asks.
            alone: leave out everything that does not go with a key of the team's.

        Raises:
            Unavailable: nothing is left.
        """
        first: list[Candidate] = []
        shared: list[Candidate] = []
        last: list[Candidate] = []
        providers, now, reason = self._teams.get(principal.team, {}), monotonic(), ""
        for step in steps:
            held = providers.get(step.endpoint.provider)
            if not held or step.replica.backend.kind not in EXTERNAL:
                shared.append(step)
                continue
            serving = [each for each in held if each.serves(step.endpoint.model_id, principal.key_id)]
            if not any(each.known.only for each in held) and not any(each.known.required for each in serving):
                shared.append(step)
            for each in serving:
                refusal = each.used.refusal(0, now)
                if refusal:
                    reason = refusal
                else:
                    (last if each.known.fallback else first).append(self._with(step, each.used, principal.team))
        found = (*first, *(() if alone else shared), *last)
        if not found:
            said = f"your own key cannot be used now: {reason}" if reason else "no key of your own is for this request"
            raise Unavailable(said, retry_after=1.0)
        return found

    def priced(self, models: Sequence[Model], principal: Principal, *, alone: bool) -> Sequence[Model]:
        """Return ``models`` as they are charged at most; with ``alone`` those endpoints that the team has keys for."""
        providers = self._teams.get(principal.team, {})
        found = []
        for model in models:
            endpoints = []
            for endpoint in model.endpoints:
                held = providers.get(endpoint.provider, ())
                serving = [each for each in held if each.serves(model.id, principal.key_id)]
                never = any(each.known.only for each in held) or any(each.known.required for each in serving)
                if serving and (alone or never):
                    endpoints.append(self._charged(endpoint, principal.team))
                elif not alone:
                    endpoints.append(endpoint)
            if endpoints:
                found.append(replace(model, endpoints=tuple(endpoints)))
        return found

    def _opened(self, key: OwnKey, sealed: bytes) -> UpstreamKey | None:
        if self._cipher is None:
            return None
        try:
            secret = self._cipher.open(sealed, context_of(key.key_id, key.team, key.provider)).decode("ascii")
        except (Unsealable, UnicodeDecodeError) as error:
            _log.warning("a team's key for a provider cannot be opened", key=key.key_id, reason=str(error))
            return None
        redaction.conceal([secret])
        return UpstreamKey(key.key_id, Secret(secret))

    def _with(self, step: Candidate, key: UpstreamKey, team: str) -> Candidate:
        return replace(step, endpoint=self._charged(step.endpoint, team), cost=_NOTHING, cost_id=OWN_KEY, key=key)

    def _charged(self, endpoint: Endpoint, team: str) -> Endpoint:
        """Return ``endpoint`` as it is charged to a team that brings the key: the fee, whatever its terms."""
        rates = msgspec.structs.replace(endpoint.price.listed, discount=BASIS_POINTS - self.fee, markup=0)
        return replace(endpoint, team_prices={team: (rates, rates_id(rates))})


class OwnKeyFollower:
    """Keeps one process's keys as the keeper has them: it asks twice a second. While it is away its last word holds."""

    def __init__(self, books: Asking, keys: OwnKeys) -> None:
        self._books = books
        self._keys = keys
        self._revision = -1

    async def look(self) -> None:
        """Take over what is new. Raises ``Unavailable``."""
        found = await self._books.ask(KNOWN_UPSTREAM_KEYS, (self._revision,))
        if found is not None and found.revision >= self._revision:
            self._revision = found.revision
            self._keys.learn(found)

    async def run(self) -> None:
        """Follow. Runs until cancelled."""
        while True:
            await asyncio.sleep(paused(EVERY_S))
            try:
                await self.look()
            except Unavailable:
                continue  # the keeper is away: its last word holds
            except WeirError as error:
                _log.warning("the keeper does not tell teams' keys", reason=error.message)
