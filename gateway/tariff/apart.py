"""Looking prices up in ``genai-prices`` by a process of its own: its data are 30 MB that serving does without.

The child reads what is looked for from its standard input and writes what it found to its standard output. A child that
fails or takes too long is ``Unavailable``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.tariff.offers import Found, Target
from gateway.telemetry import logs
from gateway.types.errors import Unavailable

LONGEST_S: Final = 60.0
_log: Final = logs.logger(__name__)


class _Wanted(msgspec.Struct, frozen=True):
    """What is looked for; see ``from_genai_prices``."""

    targets: tuple[Target, ...]
    names: dict[str, str]
    provider: str | None


async def looked_up(targets: Sequence[Target], names: Mapping[str, str], provider: str | None) -> Found:
    """Return what ``genai-prices`` says of ``targets`` today; arguments as of ``from_genai_prices``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(LONGEST_S):
            said, _ = await process.communicate(msgspec.msgpack.encode(_Wanted(tuple(targets), dict(names), provider)))
    except TimeoutError:
        raise Unavailable("the prices could not be looked up in time: try again", retry_after=5.0) from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        _log.error("looking up prices failed", status=process.returncode)
        raise Unavailable("the prices could not be looked up: `weir prices import genai-prices` says why")
    return msgspec.msgpack.decode(said, type=Found)


def main() -> None:
    """Answer what standard input asks."""
    from gateway.tariff.sources import from_genai_prices  # noqa: PLC0415 - the parent does without

    wanted = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Wanted)
    found = from_genai_prices(wanted.targets, wanted.names, wanted.provider)
    sys.stdout.buffer.write(msgspec.msgpack.encode(found))


if __name__ == "__main__":
    main()
