"""The turnstile of one host: rate limits and hard budgets of a request together, all of them or none.

What the host's own counts and leases can answer is answered in the same step of the event loop; only a budget whose
slice is used up, or limits shared with other hosts, make a request wait for a server. Every refusal leaves nothing
counted. Errors are those of the parts: ``RateLimited`` and ``Unavailable``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Protocol

from gateway.access.limits import LocalLimits
from gateway.access.treasury import Treasury
from gateway.types.budgets import Paid, Shortfall, Spend
from gateway.types.errors import Unavailable
from gateway.types.keys import Grant, KeyLimits


class SharedLimits(Protocol):
    """Limits over several hosts."""

    @property
    def away(self) -> bool:
        """Whether they cannot be asked now; then the limits of each host hold alone."""

    async def admit(self, key_id: str, limits: KeyLimits, tokens: int) -> Grant:
        """Return whether a request that this host has counted is within the limits over all hosts."""

    def changed(self, key_id: str) -> None:
        """Take note that this host's counts of a key have changed."""


class Turnstile:
    """Admits requests to one host.

    Args:
        limits: the host's own counts.
        treasury: returns the hard budgets, or None while the host has none open.
        shared: limits over several hosts, or None when this host counts alone.
    """

    __slots__ = ("_limits", "_shared", "_treasury")

    def __init__(
        self, limits: LocalLimits, treasury: Callable[[], Treasury | None], shared: SharedLimits | None = None
    ) -> None:
        self._limits = limits
        self._treasury = treasury
        self._shared = shared

    def take(
        self, owner: Hashable, key_id: str, limits: KeyLimits, tokens: int, spend: Spend | None = None
    ) -> Grant | Awaitable[Grant]:
        """Ask to run a request of about ``tokens`` tokens for ``owner``.

        Args:
            owner: whoever runs it, as told to ``Treasury.present``.
            key_id: public id of the key.
            limits: of the key.
            tokens: reserved for the token limit.
            spend: what is asked of hard budgets; None when the caller knows that none is concerned.

        Returns:
            The grant, or something to await for it.

        Raises:
            RateLimited: the request alone is larger than a limit.
        """
        grant = self._limits.take(owner, key_id, limits, tokens)
        if grant.refused is not None:
            return grant
        waits = self._shared is not None and not limits.unlimited and not self._shared.away
        if spend is None:
            return self._share(grant, key_id, limits, tokens) if waits else grant
        treasury = self._opened()
        shares = treasury.shares(key_id, spend)
        if not shares:
            return self._share(grant, key_id, limits, tokens) if waits else grant
        hold = grant.hold or self._limits.new_hold()
        if not treasury.reserve(hold, owner, shares, spend):
            return self._obtain(hold, owner, key_id, limits, tokens, spend)
        grant = Grant(hold, reserved=spend.amount)
        return self._share(grant, key_id, limits, tokens) if waits else grant

    def settle(self, hold: int, tokens: int, paid: Paid = (), owner: Hashable = None) -> None:
        """End the request of ``hold``, which took ``tokens`` tokens and was charged ``paid``.

        Holds that are unknown, or not of ``owner`` where one is named, are ignored.
        """
        counts = owner is None or self._limits.owned(hold, owner)
        key_id = self._limits.settle(hold, tokens) if counts else ""
        treasury = self._treasury()
        if treasury is not None:
            treasury.settle(hold, paid, owner)
        if key_id and self._shared is not None:
            self._shared.changed(key_id)

    def leave(self, owner: Hashable) -> int:
        """End all requests of an ``owner`` that is gone; return how many counted against rate limits."""
        treasury = self._treasury()
        if treasury is not None:
            treasury.leave(owner)
        return self._limits.release_owner(owner)

    def adopt(self, owner: Hashable, holds: Iterable[tuple[int, str, int, int]]) -> None:
        """Take over requests; see ``LocalLimits.adopt``."""
        self._limits.adopt(owner, holds)

    async def _obtain(
        self, hold: int, owner: Hashable, key_id: str, limits: KeyLimits, tokens: int, spend: Spend
    ) -> Grant:
        """Go on with a request whose budgets have to be leased first."""
        treasury = self._opened()
        try:
            found = await treasury.obtain(hold, owner, treasury.shares(key_id, spend), spend)
        except BaseException:
            self._cancel(hold)
            raise
        if isinstance(found, Shortfall):
            self._cancel(hold)
            return Grant(0, "budget", shortfall=found)
        grant = Grant(hold, reserved=found)
        if self._shared is None or limits.unlimited or self._shared.away:
            return grant
        return await self._share(grant, key_id, limits, tokens)

    async def _share(self, grant: Grant, key_id: str, limits: KeyLimits, tokens: int) -> Grant:
        """Go on with a request whose limits are shared."""
        assert self._shared is not None
        try:
            answer = await self._shared.admit(key_id, limits, max(tokens, 0))
        except BaseException:
            self._cancel(grant.hold)
            raise
        if answer.refused is not None:
            self._cancel(grant.hold)
            return answer
        return grant

    def _cancel(self, hold: int) -> None:
        """Take back what was counted for a request that does not run."""
        self._limits.cancel(hold)
        treasury = self._treasury()
        if treasury is not None:
            treasury.settle(hold, ())

    def _opened(self) -> Treasury:
        treasury = self._treasury()
        if treasury is None:
            raise Unavailable("the keeper is not running", retry_after=1.0)
        return treasury
