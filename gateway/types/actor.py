"""Who does what is being done: set where a request enters, read where the audit log is written.

A context variable, so that nothing on the way has to pass it on; between processes it travels with the call to the
keeper. What nobody set is the gateway's own doing. Nothing here raises.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import msgspec


class Actor(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Who acts.

    Attributes:
        name: a user's login, ``management key``, or the user of the command line.
        via: ``console``, ``api``, ``command`` or ``gateway``.
        address: the network address that the request came from, ``""`` where there is none.
    """

    name: str = "weir"
    via: str = "gateway"
    address: str = ""


GATEWAY: Final = Actor()
"""The gateway itself: its duties, and what the configuration file says."""
ACTING: Final[ContextVar[Actor]] = ContextVar("acting", default=GATEWAY)
"""Who acts now."""
