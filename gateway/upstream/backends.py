"""The data plane's way to the backends: their connection pools, and requests as their engines want them."""

from __future__ import annotations

import asyncio
from typing import Final, cast

import msgspec

from gateway.config.snapshot import BackendSpec
from gateway.engines.body import upstream_body, with_options
from gateway.engines.kind import joined
from gateway.engines.resume import unbegun
from gateway.fleet.health import Health
from gateway.fleet.keychain import UpstreamKey
from gateway.fleet.snapshot import Candidate
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types.call import Call
from gateway.upstream.budget import RetryBudget
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.drain import Drains
from gateway.upstream.litellm import LitellmPool
from gateway.upstream.speech import Speech
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
        # Of a backend as it was told of: a walk that began before a reload still asks it by the old configuration.
        self._libraries: dict[str, tuple[BackendSpec, Pool]] = {}
        self._heads: dict[tuple[str, str, bool, bool], tuple[BackendSpec, bytes]] = {}

    def pool(self, candidate: Candidate) -> Pool:
        """Return the connection pool of a candidate's backend; backends that share a URL share it."""
        url = candidate.replica.backend.url
        if candidate.replica.backend.litellm is not None:
            return self._litellm(candidate.replica.backend)
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = Pool(url, loop=self.loop, deadlines=self.deadlines, resolve=self._resolve)
        return pool

    def _litellm(self, backend: BackendSpec) -> Pool:
        """Return what stands for the connection pool of a backend that is reached through litellm."""
        made = self._libraries.get(backend.name)
        if made is None or made[0] is not backend:
            # It has all of a pool that a try uses, and nothing of its sockets.
            made = backend, cast("Pool", LitellmPool(backend, loop=self.loop, resolve=self._resolve))
            self._libraries[backend.name] = made
        return made[1]

    def request(
        self,
        candidate: Candidate,
        call: Call,
        speech: Speech | None,
        *,
        stream: bool,
        extra: bytes,
        key: UpstreamKey | None = None,
    ) -> bytes:
        """Return the whole HTTP request for ``call`` as ``candidate``'s engine wants it.

        Args:
            candidate: where it goes.
            call: what is asked.
            speech: how it is said, or None in the chat form.
            stream: whether the engine shall stream.
            extra: more header lines, each ended by CRLF.
            key: what it is asked with, when that is not the one key of the backend.
        """
        engine = candidate.replica.engine
        limit, most = call.max_tokens, candidate.endpoint.max_output
        if most is not None and limit is not None and limit > most:
            limit = most
        content, wishes = call.body, call.preferences
        if call.native is not None:
            if speech is None:
                content = unbegun(engine, content)
            elif speech.dialect is call.dialect:
                content = call.native
        if wishes is not None and wishes.options:
            content = with_options(content, wishes.options, candidate.names)
        if call.service_tier and not candidate.endpoint.sells(call.service_tier):
            # Charged as the default tier, so it must not cost the owner another one.
            content = {name: value for name, value in content.items() if name != "service_tier"}
        if key is not None:
            present = engine.greeting if speech is None else engine.presented
            extra += present(None if key.secret is None else key.secret.reveal()).encode("ascii")
        keyless = key is not None
        if speech is not None:
            extra += speech.lines(call)
            body = _encoder.encode(speech.body(candidate, call, content, max_tokens=limit, stream=stream))
            head = self._head(candidate, speech.dialect, speech.path, stream, keyless=keyless, spoken=True)
        else:
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
            head = self._head(candidate, call.operation, engine.paths[call.operation], stream, keyless=keyless)
        return b"%s%scontent-length: %d\r\n\r\n%s" % (head, extra, len(body), body)

    def question(self, candidate: Candidate, path: str, document: object) -> bytes:
        """Return a whole HTTP request that posts ``document`` to ``path`` (``/v1/…``, ``/tokenize``) of a backend."""
        replica, pool, body = candidate.replica, self.pool(candidate), _encoder.encode(document)
        keys = replica.load.quota.keys
        secret = keys[0].secret if keys else replica.backend.api_key
        return (
            b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\naccept: application/json\r\n"
            b"accept-encoding: identity\r\nuser-agent: weir\r\n%scontent-length: %d\r\n\r\n%s"
        ) % (
            joined(pool.path, path).encode("ascii"),
            pool.host,
            replica.engine.greeting(None if secret is None else secret.reveal()).encode("ascii"),
            len(body),
            body,
        )

    def _head(
        self, candidate: Candidate, saying: str, path: str, stream: bool, *, keyless: bool, spoken: bool = False
    ) -> bytes:
        """Return the request line and the headers that never change, made once per backend and what is ``saying``."""
        backend = candidate.replica.backend
        key = (backend.name, saying, stream, keyless)
        made = self._heads.get(key)
        if made is None or made[0] is not backend:
            pool = self.pool(candidate)
            path = pool.path + path.removeprefix("/v1" if pool.path.endswith("/v1") else "")
            secret = backend.api_key
            head = (
                b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\naccept: %s\r\n"
                b"accept-encoding: identity\r\nuser-agent: weir\r\n"
                % (path.encode("ascii"), pool.host, b"text/event-stream" if stream else b"application/json")
            )
            if not keyless:
                key_text = None if secret is None else secret.reveal()
                engine = candidate.replica.engine
                head += (engine.presented(key_text) if spoken else engine.greeting(key_text)).encode("ascii")
            made = self._heads[key] = backend, head
        return made[1]

    def reconfigured(self) -> None:
        """Forget what was derived from the old configuration; running requests keep their connections."""
        self._heads.clear()
        self._libraries.clear()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def close(self) -> None:
        """Close all idle connections."""
        self.reconfigured()
