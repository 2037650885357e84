"""The command line of Weir with failpoints in it and in all processes it starts; everything else is as it is.

Segments are short, so that many end while a run lasts, and progress is journalled often. The supervisor's children are
forked from it, as ever, with the failpoints, and here with what keepers import, which saves half a second of CPU time
at each of hundreds of starts. The environment says where failpoints are armed (``KILL_POINTS``) and where deleted
segments are kept (``KILL_ARCHIVE``).
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.kill.failpoints import Points, install

PROGRESS_TOKENS: Final = 16
SEGMENT_BYTES: Final = 24 * 1024
SEGMENT_SECONDS: Final = 0.7
_NEEDED: Final = ("gateway.keeper.server", "gateway.keeper.service", "gateway.keeper.schema")


def main() -> None:
    """Install the failpoints and run the command line."""
    from gateway import cli, supervisor
    from gateway.metering import meter
    from gateway.metering.journal import Journal

    install(Points(Path(os.environ["KILL_POINTS"])), Path(os.environ["KILL_ARCHIVE"]))
    meter.PROGRESS_TOKENS = PROGRESS_TOKENS  # type: ignore[misc]
    create = functools.partial(Journal.create, segment_bytes=SEGMENT_BYTES, segment_seconds=SEGMENT_SECONDS)
    Journal.create = staticmethod(create)  # type: ignore[method-assign]
    supervisor.STEADY_AFTER = 0.0  # type: ignore[misc]
    if "--workers=1" not in sys.argv:
        for name in _NEEDED:
            import_module(name)
    cli.main()


if __name__ == "__main__":
    main()
