"""The data plane's way to the backends: their connection pools, and requests as their engines want them."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from gateway.engines.body import upstream_body, with_options
from gateway.fleet.health import Health
from gateway.fleet.snapshot import Candidate
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.call import Call, Operation
from gateway.upstream.budget import RetryBudget
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.drain import Drains
from gateway.upstream.wire import Pool, Resolve

_encoder: Final = msgspec.json.Encoder()


class Upstream:
    """The data plane's way to all backends of a worker: pools, deadlines, retry budget, health.

    Attributes:
        echoes: whether a replica, asked to go on with an answer, says again what is known; by name, once it was seen.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, health: Health, resolve: Resolve, metrics: GatewayMetrics
    ) -> None:
        self.loop = loop
        self.metrics = metrics
        self.deadlines = Deadlines(loop)
        self.health = health
        self.budget = RetryBudget()
        self.drains = Drains(loop, metrics)
        self.echoes: dict[str, bool] = {}
        self._resolve = resolve
        self._pools: dict[str, Pool] = {}
        self._heads: dict[tuple[str, Operation, bool], bytes] = {}

    def pool(self, candidate: Candidate) -> Pool:
        """Return the connection pool of a candidate's backend; backends that share a URL share it."""
        url = candidate.replica.backend.url
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = Pool(url, loop=self.loop, deadlines=self.deadlines, resolve=self._resolve)
        return pool

    def request(self, candidate: Candidate, call: Call, *, stream: bool, extra: bytes) -> bytes:
        """Return the whole HTTP request for ``call`` as ``candidate``'s engine wants it.

        Args:
            candidate: where it goes.
            call: what is asked.
            stream: whether the engine shall stream.
            extra: more header lines, each ended by CRLF.
        """
        engine = candidate.replica.engine
        limit, most = call.max_tokens, candidate.endpoint.max_output
        if most is not None and limit is not None and limit > most:
            limit = most
        content, wishes = call.body, call.preferences
        if wishes is not None and wishes.options:
            content = with_options(content, wishes.options, candidate.names)
        if call.service_tier and not candidate.endpoint.sells(call.service_tier):
            # Charged as the default tier, so it must not cost the owner another one.
            content = {name: value for name, value in content.items() if name != "service_tier"}
        body = _encoder.encode(
            upstream_body(
                engine,
                call.operation,
                content,
                upstream_model=candidate.upstream_model,
                max_tokens=limit,
                stream=stream,
            )
        )
        return b"%s%scontent-length: %d\r\n\r\n%s" % (
            self._head(candidate, call.operation, stream),
            extra,
            len(body),
            body,
        )

    def _head(self, candidate: Candidate, operation: Operation, stream: bool) -> bytes:
        """Return the request line and the headers that never change, made once per backend."""
        backend = candidate.replica.backend
        key = (backend.name, operation, stream)
        head = self._heads.get(key)
        if head is None:
            pool = self.pool(candidate)
            path = pool.path + candidate.replica.engine.paths[operation].removeprefix(
                "/v1" if pool.path.endswith("/v1") else ""
            )
            secret = backend.api_key
            head = (
                b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\naccept: %s\r\n"
                b"accept-encoding: identity\r\nuser-agent: weir\r\n"
                % (path.encode("ascii"), pool.host, b"text/event-stream" if stream else b"application/json")
            )
            if secret is not None:
                head += b"authorization: Bearer %s\r\n" % secret.reveal().encode("ascii")
            self._heads[key] = head
        return head

    def reconfigured(self) -> None:
        """Forget what was derived from the old configuration; running requests keep their connections."""
        self._heads.clear()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def close(self) -> None:
        """Close all idle connections."""
        self.reconfigured()
