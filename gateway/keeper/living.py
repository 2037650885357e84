"""Whether the process that something belongs to still lives, as far as a keeper can tell.

On its own host the lock on the process's journal says so at once. Other hosts, which share the database, renew what
belongs to their living processes; what was not renewed for ``LEASE_S`` belongs to nobody. Nothing here raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.keeper.address import host_id
from gateway.metering.segments import list_segments

JOURNAL: Final = "journal"
LEASE_S: Final = 30.0
"""Seconds for which another host's word counts."""
RENEW_S: Final = 5.0
"""Seconds between two renewals."""


class Living:
    """Tells for the keeper of the state folder ``home``."""

    __slots__ = ("_home", "host")

    def __init__(self, home: Path) -> None:
        self._home = home
        self.host = host_id(home)

    def owner(self, writer: str) -> str:
        """Return what belongs to the process of this host that writes the journal ``writer`` is marked with."""
        return f"{self.host}:{writer}"

    def ours(self, owner: str) -> bool:
        """Return whether ``owner`` is of this host."""
        return owner.startswith(f"{self.host}:")

    def lives(self, owner: str, renewed_us: int, now_us: int) -> bool:
        """Return whether the process ``owner``, of this host or another one, lives.

        Args:
            owner: host and journal.
            renewed_us: when its host last said so, microseconds since 1970.
            now_us: now.
        """
        host, _, writer = owner.partition(":")
        if host != self.host:
            return renewed_us + LEASE_S * 1e6 > now_us
        for segment in list_segments(self._home / JOURNAL):
            if segment.writer == writer:
                try:
                    if segment.owned():
                        return True
                except OSError:
                    continue  # shipped and deleted meanwhile
        return False
