"""A real gateway for tests: keeper, native road and all, on a free port of 127.0.0.1, in the test's event loop.

``Stage`` gives each test its own state folder. Processes of their own (kill -9, several workers) are in
``tests/e2e``; here failures are easier to look at.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from gateway.access.management import obtain_admin_digest
from gateway.app import Gateway, Identity, presets
from gateway.config.load import load
from gateway.keeper.process import serving
from gateway.keeper.service import Keeper
from gateway.serving import serve
from gateway.settings import Settings
from gateway.sim import SimServer
from gateway.supervisor import bind
from gateway.types.generation import GenerationRecord
from gateway.types.keys import IssuedKey, KeyLimits, NewKey
from tests.fakes.ledgers import furnish

ADMIN_KEY = "management-key-of-the-tests-0123456789"
SECRET = "the pepper of the tests"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: loading the certificate store takes longer than most tests."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend of a configuration.

    Attributes:
        more: further members of its section, as YAML flow text, such as ``timeouts: {idle: 1}``.
    """

    name: str
    url: str
    kind: str = "vllm"
    model: str = "Qwen/Qwen3-32B"
    provider: str = "own"
    more: str = ""
    endpoint: str = ""


@dataclass(slots=True)
class Stage:
    """A running gateway.

    Attributes:
        url: its root, without a slash at the end.
        key: an unlimited inference key of the team ``default``.
        headers: authorization with that key.
        admin: authorization with the management key.
    """

    url: str
    key: str
    home: Path
    config: Path
    gateway: Gateway
    keeper: Keeper
    http: httpx.AsyncClient
    headers: dict[str, str] = field(init=False)
    admin: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"authorization": f"Bearer {self.key}"}
        self.admin = {"authorization": f"Bearer {ADMIN_KEY}"}

    @property
    def port(self) -> int:
        """Its TCP port."""
        return int(self.url.rpartition(":")[2])

    def openai(self, key: str | None = None, *, base: str = "/v1", retries: int = 0) -> AsyncOpenAI:
        """Return the official client; its connections end with the stage."""
        return AsyncOpenAI(
            api_key=key or self.key,
            base_url=self.url + base,
            max_retries=retries,
            http_client=self.http,  # type: ignore[arg-type] # declared for another library of the same shape
        )

    async def new_key(self, team: str = "default", *, models: Sequence[str] | None = None, **limits: int) -> IssuedKey:
        """Make a key."""
        chosen = None if models is None else tuple(models)
        return await self.keeper.create_key(NewKey("test", team, chosen, KeyLimits(**limits)))

    async def chat(self, body: Mapping[str, Any] | None = None, **more: Any) -> httpx.Response:
        """Send a chat request with the usual model and a short prompt, changed by ``body`` and ``more``."""
        request = chat_body() | dict(body or {}) | more
        return await self.http.post(f"{self.url}/v1/chat/completions", json=request, headers=self.headers)

    async def generation(self, identity: str) -> dict[str, Any]:
        """Return what ``GET /api/v1/generation`` says of an answer."""
        answer = await self.http.get(f"{self.url}/api/v1/generation", params={"id": identity}, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    async def settled(self, count: int = 1, seconds: float = 20.0) -> list[GenerationRecord]:
        """Return the newest requests of the ledger once there are ``count``."""
        async with asyncio.timeout(seconds):
            while True:
                found = list(await self.keeper.recent(count))
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.05)


def chat_body(model: str = "qwen/qwen3-32b") -> dict[str, Any]:
    """Return a small chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "Tell me about weirs."}]}


def configuration(backends: Sequence[Backend], *, models: str = "", more: str = "") -> str:
    """Return a configuration file with one model over ``backends``, or with the ``models`` given as YAML."""
    lines = ["backends:"]
    for backend in backends:
        extra = f", {backend.more}" if backend.more else ""
        lines.append(
            f'  - {{name: {backend.name}, kind: {backend.kind}, url: "{backend.url}", '
            f"provider: {backend.provider}{extra}}}"
        )
    lines.append("models:")
    if not models:
        lines += [
            "  - id: qwen/qwen3-32b",
            "    name: Qwen3 32B",
            "    context_length: 40960",
            '    price: {prompt: "0.10", completion: "0.30", cache_read: "0.02"}',
            "    capabilities: {vision: true, audio: true}",
            "    endpoints:",
        ]
        for backend in backends:
            extra = f", {backend.endpoint}" if backend.endpoint else ""
            lines.append(f"      - {{backend: {backend.name}, model: {backend.model}{extra}}}")
    return "\n".join(lines) + f'\n{models}\negress: {{allow: ["127.0.0.0/8"]}}\n{more}\n'


def over(*sims: SimServer, **more: Any) -> list[Backend]:
    """Return backends for simulators, named as they are."""
    return [Backend(sim.config.name, sim.url, sim.config.kind, sim.config.models[0], **more) for sim in sims]


class _Complaints(logging.Handler):
    """Keeps what the server says of a start that fails.

    Attributes:
        said: sentences, with their traces.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.said.append(self.format(record))


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Give the block a list of what the server complains of meanwhile."""
    log, handler = logging.getLogger("uvicorn.error"), _Complaints()
    log.addHandler(handler)
    try:
        yield handler.said
    finally:
        log.removeHandler(handler)


@asynccontextmanager
async def staged(home: Path, config: str, *, following: bool = False, **environment: str) -> AsyncIterator[Stage]:
    """Run a gateway on ``config`` inside the block; a ``following`` keeper goes by it, too, as in a real process."""
    running: list[Gateway] = []
    extra: dict[str, Any] = {"config": lambda: running[0].snapshot if running else None} if following else {}
    home.mkdir(parents=True, exist_ok=True)
    path = home / "weir.yaml"
    path.write_text(config)
    settings = Settings.model_validate(
        {"WEIR_HOME": home, "WEIR_CONFIG": path, "WEIR_ADMIN_KEY": ADMIN_KEY, "WEIR_SECRET": SECRET} | environment
    )
    pepper = SECRET.encode()
    digest, _ = obtain_admin_digest(home, pepper, ADMIN_KEY)
    furnish(home)
    async with serving(home, settings.ledger_url.get_secret_value(), pepper, **extra) as keeper:
        issued = await keeper.create_key(NewKey("test", "default"))
        gateway = Gateway(settings, load(path, presets=presets()), keeper, Identity(pepper, digest))
        running.append(gateway)
        listener = bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        up, stop = asyncio.Event(), asyncio.Event()
        with _complaints() as said:
            task = asyncio.create_task(serve(gateway, listener, started=up.set, stop=stop))
            waiting = asyncio.create_task(up.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            task.result()
            listener.close()
            raise RuntimeError("\n".join(["the gateway did not start", *said]))
        async with httpx.AsyncClient(verify=NO_TLS, timeout=30.0) as http:
            try:
                yield Stage(url, issued.key, home, path, gateway, keeper, http)
            finally:
                stop.set()
                await task
                for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
                    logging.getLogger(name).setLevel(logging.NOTSET)  # as uvicorn found them: they outlive it
