"""Counting failed sign-ins, so that nobody guesses passwords for long.

Counts live in the keeper's memory: one per host, forgotten with it. A login and an address each may fail a number of
times within a quarter of an hour; a success clears the login at that address. ``RateLimited`` says until when.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from gateway.types.errors import RateLimited

WINDOW_S: Final = 900.0
PER_LOGIN: Final = 8
"""Failures of one login from one address."""
PER_NAME: Final = 40
"""Failures of one login from anywhere: high, because others could lock its owner out with it."""
PER_ADDRESS: Final = 40
MOST: Final = 20_000
"""Counts that are kept; the oldest go first."""


class Attempts:
    """The failures of the last quarter of an hour."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def admit(self, login: str, address: str, now: float) -> None:
        """Let somebody try. Raises ``RateLimited``."""
        for name, most in _counted(login, address):
            failed = self._failures.get(name)
            if failed is None:
                continue
            while failed and failed[0] <= now - WINDOW_S:
                failed.popleft()
            if len(failed) >= most:
                wait = failed[0] + WINDOW_S - now
                raise RateLimited(
                    f"too many failed sign-ins: try again in {int(wait // 60) + 1} minutes", retry_after=wait
                )

    def failed(self, login: str, address: str, now: float) -> None:
        """Count a failure."""
        for name, _ in _counted(login, address):
            self._failures.setdefault(name, deque()).append(now)
            self._failures.move_to_end(name)
        while len(self._failures) > MOST:
            self._failures.popitem(last=False)

    def succeeded(self, login: str, address: str) -> None:
        """Forget the failures of a login at an address."""
        self._failures.pop(_counted(login, address)[0][0], None)


def _counted(login: str, address: str) -> tuple[tuple[str, int], ...]:
    return (
        (f"both {login[:128]} {address}", PER_LOGIN),
        (f"login {login[:128]}", PER_NAME),
        (f"address {address}", PER_ADDRESS),
    )
