"""Rate limits over several hosts, by Redis: each host says what it has counted, and hears whether that is too much.

Every host keeps its own exact counts (``gateway.access.limits``) and writes them, as they are, under its name; a
request is admitted when the sum over all hosts, itself included, is within the limit. That takes one script, and all
requests that wait at the same time go in one pipeline. Counts are told again every second, because they fall with time:
so nothing has to be rebuilt when Redis was restarted or emptied, and a host that is lost is left out after seconds.

Soft by design: while Redis is away, or slower than ``TIMEOUT_S``, the limits hold on each host alone, and requests do
not wait for it again until it has answered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gateway.access.limits import CONCURRENCY_RETRY_S, LocalLimits
from gateway.telemetry import logs
from gateway.types.keys import Grant, KeyLimits

if TYPE_CHECKING:
    from redis.asyncio import Redis

TIMEOUT_S: Final = 0.25
TELL_S: Final = 1.0
LOST_MS: Final = 5_000
"""Milliseconds after which counts that were not told again are left out."""
PREFIX: Final = "weir:limit:"
_BATCH: Final = 500
"""Keys told in one pipeline."""
_NO_LIMIT: Final = -1

SCRIPT: Final = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local requests, tokens, running = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local rpm, tpm, concurrent = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local others = {0, 0, 0}
local told = redis.call('HGETALL', KEYS[1])
for i = 1, #told, 2 do
  if told[i] ~= ARGV[1] then
    local r, t, c, at = string.match(told[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
    if at == nil or ms - tonumber(at) > tonumber(ARGV[8]) then
      redis.call('HDEL', KEYS[1], told[i])
    else
      others[1], others[2], others[3] = others[1] + r, others[2] + t, others[3] + c
    end
  end
end
local verdicts = {}
for i = 9, #ARGV do
  local more, verdict = tonumber(ARGV[i]), ''
  if concurrent >= 0 and others[3] + running + 1 > concurrent then verdict = 'concurrent'
  elseif rpm >= 0 and others[1] + requests + 1 > rpm then verdict = 'rpm'
  elseif tpm >= 0 and others[2] + tokens + more > tpm then verdict = 'tpm'
  else requests, tokens, running = requests + 1, tokens + more, running + 1 end
  verdicts[#verdicts + 1] = verdict
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %.0f %.0f', requests, tokens, running, ms))
redis.call('PEXPIRE', KEYS[1], 120000)
return verdicts
"""

_log: Final = logs.logger(__name__)


class _Asked:
    """Requests of one key that wait for the same script."""

    __slots__ = ("limits", "tokens", "waiters")

    def __init__(self, limits: KeyLimits) -> None:
        self.limits = limits
        self.tokens: list[int] = []
        self.waiters: list[asyncio.Future[Grant]] = []


class RedisLimits:
    """Limits over several hosts. See ``gateway.access.turnstile.SharedLimits``.

    Args:
        redis: a client whose commands end within ``TIMEOUT_S``.
        local: the counts of this host.
        errors: what the client raises when Redis cannot be used.
        missing: what it raises when Redis does not know the script.

    Attributes:
        away: whether Redis could not be used the last time.
        trips: pipelines sent so far.
    """

    def __init__(
        self, redis: Redis, local: LocalLimits, errors: tuple[type[Exception], ...], missing: type[Exception]
    ) -> None:
        self.away = True
        self.trips = 0
        self._redis = redis
        self._local = local
        self._errors = errors
        self._missing = missing
        self._host = secrets.token_hex(8)
        self._sha = ""
        self._asked: dict[str, _Asked] = {}
        self._changed: set[str] = set()
        self._sending: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tell the other hosts; needs the running loop."""
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def stop(self) -> None:
        """End all connections; who waits is admitted by this host's own limits."""
        for task in (self._telling, self._sending):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._telling = self._sending = None
        self._answer_all(self._asked)
        self._asked = {}
        with suppress(*self._errors):
            await self._redis.aclose()

    async def admit(self, key_id: str, limits: KeyLimits, tokens: int) -> Grant:
        """Return whether a request that this host has admitted is within the limits over all hosts.

        Args:
            key_id: public id of the key.
            limits: of the key.
            tokens: what the request counts for.
        """
        loop = asyncio.get_running_loop()
        asked = self._asked.get(key_id)
        if asked is None:
            asked = self._asked[key_id] = _Asked(limits)
        future: asyncio.Future[Grant] = loop.create_future()
        asked.tokens.append(tokens)
        asked.waiters.append(future)
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        return await future

    def changed(self, key_id: str) -> None:
        """Take note that this host's counts of a key have changed; they are told with the next pipeline."""
        self._changed.add(key_id)
        if self._sending is None and not self.away:
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        """Send what waits, one pipeline after the other, until nothing does."""
        asked: Mapping[str, _Asked] = {}
        try:
            while self._asked or self._changed:
                asked, self._asked = self._asked, {}
                told, self._changed = self._changed - asked.keys(), set()
                await self._round(asked, list(told))
        except self._errors as error:
            self._lost(error)
            self._changed.clear()
        finally:
            self._answer_all(asked)
            self._answer_all(self._asked)
            self._asked = {}
            self._sending = None

    async def _round(self, asked: Mapping[str, _Asked], told: Sequence[str]) -> None:
        """Send one pipeline and answer who waited for it."""
        keys = [*asked, *told]
        verdicts = await self._run([self._arguments(key, asked.get(key)) for key in keys])
        for key, found in zip(asked, verdicts, strict=False):
            for waiter, verdict in zip(asked[key].waiters, found, strict=True):
                if not waiter.done():
                    word = verdict.decode() if isinstance(verdict, bytes) else verdict
                    waiter.set_result(_refused(word) if word else Grant(0))

    def _arguments(self, key_id: str, asked: _Asked | None) -> list[Any]:
        """Return the arguments of the script for a key: counts without the requests that ask, limits, requests."""
        requests, tokens, running = self._local.counts(key_id)
        if asked is None:
            limits, more = KeyLimits(), []
        else:
            limits, more = asked.limits, asked.tokens
            requests, running = requests - len(more), running - len(more)
            tokens -= sum(more)
        bounds = [_NO_LIMIT if each is None else each for each in (limits.rpm, limits.tpm, limits.concurrent)]
        counts = [max(0, each) for each in (requests, tokens, running)]
        return [PREFIX + key_id, self._host, *counts, *bounds, LOST_MS, *more]

    async def _run(self, calls: Sequence[list[Any]]) -> list[Any]:
        """Run the script once for each of ``calls``, in one pipeline."""
        if not self._sha:
            self._sha = await self._redis.script_load(SCRIPT)
        for final in (False, True):
            pipeline = self._redis.pipeline(transaction=False)
            for arguments in calls:
                pipeline.evalsha(self._sha, 1, *arguments)
            self.trips += 1
            try:
                return list(await pipeline.execute())
            except self._missing:
                if final:
                    raise
                self._sha = await self._redis.script_load(SCRIPT)
        raise AssertionError("unreachable")

    async def _tell(self) -> None:
        """Tell this host's counts again and again; find out when Redis is back. Runs until cancelled."""
        while True:
            try:
                keys = list(self._local.counted)
                if self.away:
                    await self._redis.ping()
                for first in range(0, len(keys), _BATCH):
                    await self._run([self._arguments(key, None) for key in keys[first : first + _BATCH]])
            except Exception as error:  # noqa: BLE001 - whatever the client raises: nobody begins to tell again
                self._lost(error)
            else:
                if self.away:
                    self.away = False
                    _log.info("limits are shared with other hosts")
            await asyncio.sleep(TELL_S)

    def _lost(self, error: Exception) -> None:
        if not self.away:
            self.away = True
            _log.warning("limits hold on each host alone: Redis cannot be used", reason=type(error).__name__)

    @staticmethod
    def _answer_all(asked: Mapping[str, _Asked]) -> None:
        """Admit who still waits: this host's own limits have."""
        for each in asked.values():
            for waiter in each.waiters:
                if not waiter.done():
                    waiter.set_result(Grant(0))


def _refused(limit: str) -> Grant:
    """Return the refusal by a limit that hosts share: nobody knows when there is room, nor how many tokens are left."""
    return Grant(0, limit, CONCURRENCY_RETRY_S, left=None if limit == "tpm" else 0)


def open_shared(url: str, local: LocalLimits) -> RedisLimits:
    """Return the limits that hosts share in the Redis at ``url``. Nothing is connected yet."""
    # Only a keeper that shares limits needs the library.
    from redis import asyncio as redis  # noqa: PLC0415 - see above
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - see above
    from redis.backoff import NoBackoff  # noqa: PLC0415 - see above
    from redis.exceptions import NoScriptError, RedisError  # noqa: PLC0415 - see above

    client = redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )
    return RedisLimits(client, local, (RedisError, OSError, TimeoutError), NoScriptError)
