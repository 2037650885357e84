"""The egress guard: which addresses a backend's name may lead to, checked whenever it is resolved.

A host is resolved once, every address is judged by the configured rules, and connections are made to the addresses
that passed, so a name that changes its mind between check and connect (DNS rebinding) gains nothing. Names are
resolved again every ``TTL`` seconds, and sooner where probes find nobody who accepts a connection. When the name
service fails, addresses that passed before stay good for ``STALE`` seconds; an answer with a forbidden address never
falls back to them. They are used as well while it is silent for longer than ``PATIENCE``: whoever connects has a limit
of his own, which its silence must not use up.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final

from gateway.config.egress import Egress
from gateway.config.problem import RefusedError

TTL: Final = 60.0
"""Seconds after which a name is resolved again."""
DOUBTED: Final = 5.0
"""Seconds after which addresses at which nobody accepts a connection are looked up again."""
STALE: Final = 600.0
"""Seconds for which checked addresses are used while the name service fails."""
LOOKUP_LIMIT: Final = 5.0
"""Seconds one look-up may take."""
PATIENCE: Final = 0.1
"""Seconds for which a look-up is waited for where there are addresses that passed before. A name service at work takes
less, and a limit of a connection that is shorter fails where the name service is silent."""

_EVERYWHERE: Final = Egress((ip_network("0.0.0.0/0"), ip_network("::/0")))
"""Rules that allow all that can be allowed; what they refuse, metadata services above all, is never a backend."""

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Maps a host name to the texts of its addresses; raises ``OSError`` when it has none."""


class EgressError(Exception):
    """No connection may or can be made to a host.

    Args:
        message: a sentence that may be shown to callers; it names no host and no address.
        detail: the address at fault and the mend, for the operator's log.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class AddressForbidden(EgressError):
    """The rules allow none of the host's addresses, or one that no rule can allow is among them."""


class NameUnresolved(EgressError):
    """The name service knows no address of the host, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class _Entry:
    addresses: tuple[str, ...]
    resolved_at: float


async def system_lookup(host: str) -> Sequence[str]:
    """Return the addresses of ``host`` by the system's resolver. Raises ``OSError``."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class EgressGuard:
    """Resolves the hosts of backends under the rules of one configuration.

    Args:
        rules: what the configuration allows.
        lookup: the name service.
        clock: monotonic seconds.
    """

    def __init__(
        self, rules: Egress, *, lookup: Lookup = system_lookup, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules = rules
        self._lookup = lookup
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._doubted: set[str] = set()
        self._under_way: dict[str, asyncio.Task[_Entry]] = {}

    def configure(self, rules: Egress) -> None:
        """Apply new rules from now on; what passed the old ones is judged anew."""
        if rules != self._rules:
            self._rules = rules
            self._entries.clear()
            self._under_way.clear()

    async def resolve(self, host: str, port: int) -> tuple[tuple[str, int], ...]:
        """Return the addresses of ``host`` that may be connected to, with ``port``, in the resolver's order.

        Raises:
            AddressForbidden: none may.
            NameUnresolved: there is none.
        """
        entry = self._entries.get(host)
        if entry is None or self._clock() - entry.resolved_at >= TTL or host in self._doubted:
            entry = await self._refreshed(host, entry)
        return tuple((address, port) for address in entry.addresses)

    def doubt(self, host: str) -> None:
        """Look ``host`` up anew before its time: nobody accepts a connection there, so it may have moved."""
        entry = self._entries.get(host)
        if entry is not None and self._clock() - entry.resolved_at >= DOUBTED:
            self._doubted.add(host)

    async def _refreshed(self, host: str, old: _Entry | None) -> _Entry:
        """Resolve ``host``, once for all who ask meanwhile."""
        if old is not None and self._clock() - old.resolved_at >= STALE:
            old = None
        while True:
            rules = self._rules
            task = self._under_way.get(host)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._check(host, rules))
                task.add_done_callback(partial(self._ended, host, rules))
                self._under_way[host] = task
            # One caller that leaves must not take the look-up away from the others.
            await asyncio.wait((task,), timeout=None if old is None else PATIENCE)
            if rules is not self._rules:
                old = None  # other rules let it pass
                continue
            if old is not None and (not task.done() or isinstance(task.exception(), NameUnresolved)):
                return old
            return task.result()

    def _ended(self, host: str, rules: Egress, task: asyncio.Task[_Entry]) -> None:
        """Keep what a look-up under ``rules`` found, whoever still waits for it."""
        if self._under_way.get(host) is task:
            del self._under_way[host]
            self._doubted.discard(host)
        if task.cancelled():
            return
        error = task.exception()  # looked at, so that a failure nobody waits for any more is not reported as lost
        if rules is not self._rules:
            return
        if error is None:
            self._entries[host] = task.result()
        elif isinstance(error, AddressForbidden):
            self._entries.pop(host, None)

    async def _check(self, host: str, rules: Egress) -> _Entry:
        """Resolve ``host`` and judge its addresses under ``rules``."""
        try:
            rules.admit_host(host)
        except RefusedError as error:
            raise AddressForbidden("the backend's host is not allowed", f"{error.message}: {error.mend}") from None
        try:
            literal = ip_address(host)
        except ValueError:
            return _Entry(_admitted(rules, await self._addresses(host)), self._clock())
        return _Entry((str(literal),), math.inf)

    async def _addresses(self, host: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(LOOKUP_LIMIT):
                found = await self._lookup(host)
        except TimeoutError:
            raise NameUnresolved("the name service did not answer in time") from None
        except (OSError, UnicodeError):
            raise NameUnresolved("the host's name cannot be resolved") from None
        if not found:
            raise NameUnresolved("the host's name has no address")
        return found


def _admitted(rules: Egress, found: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses that the rules admit. Raises ``AddressForbidden`` when there is none."""
    admitted: dict[str, None] = {}
    detail = ""
    for text in found:
        try:
            address = ip_address(text)
        except ValueError:
            detail = "the name service gave something that is no address"
            continue
        try:
            _EVERYWHERE.admit(address)
        except RefusedError as error:
            # A name that leads there once is an attack, not a host with one odd address among good ones.
            raise AddressForbidden(
                "the backend's name leads to an address that is never a backend's", f"{address} {error.message}"
            ) from None
        try:
            rules.admit(address)
        except RefusedError as error:
            detail = f"{error.message}: {error.mend}"
            continue
        admitted[text] = None
    if not admitted:
        raise AddressForbidden("no address of the backend's host is allowed", detail)
    return tuple(admitted)
