"""A gateway that starts while its database is away: waiting for it beside the work that goes on.

What the keeper knew last serves requests meanwhile; their records wait in the journal. The database is looked for ever
less often, up to every five seconds, and whatever is wrong with it is logged and does not end the waiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from gateway.keeper.address import KeeperError
from gateway.telemetry import logs
from gateway.types.errors import Unavailable

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
_log: Final = logs.logger(__name__)


async def wait_for_database(
    come_back: Callable[[], Awaitable[None]],
    stops_within: Callable[[float], Awaitable[bool]],
    look: Callable[[], None],
) -> bool:
    """Call ``come_back`` until it succeeds; return whether it did before the keeper stops.

    Args:
        come_back: opens the books; raises while that cannot be done.
        stops_within: waits some seconds and returns whether the keeper stops.
        look: measures what waits in the journal, so that its metrics tell the truth. Raises ``OSError``.
    """
    pause, said = FIRST_PAUSE_S, ""
    while not await stops_within(pause):
        pause = min(2 * pause, LONGEST_PAUSE_S)
        try:
            look()
            await come_back()
        except Unavailable:
            continue
        except (KeeperError, OSError) as error:
            if str(error) != said:
                said = str(error)
                _log.error("the database is there and cannot be used", reason=said)
        except Exception:  # noqa: BLE001 - without this loop the books would stay closed until a restart
            _log.exception("the database is there and cannot be used: defect")
        else:
            _log.info("the database is there: the books are open, the journal is shipped now")
            return True
    return False
