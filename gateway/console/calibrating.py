"""Calibrating a backend: a few requests of known length, one after the other, that its estimate learns from.

The estimate of a replica starts from what its owner or its kind says and learns from traffic (see
``gateway.fleet.estimate``). Calibrating does at once what traffic would do in time: prompts that nobody has cached,
short to long, each answered with a few tokens. What else runs there goes on and is accounted for. The requests are the
owner's: nobody is charged. Every worker learns the samples (``gateway.console.lessons``), also after its start. What
goes wrong is a ``CannotCalibrate`` with the reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from copy import deepcopy
from random import Random
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from gateway.console.lessons import error_of, learn
from gateway.console.question import BEGIN_CALIBRATION, END_CALIBRATION, Measured, Sample
from gateway.engines.kind import joined
from gateway.fleet.egress import EgressError, EgressGuard
from gateway.fleet.snapshot import Candidate, Fleet
from gateway.telemetry import logs
from gateway.types.call import Operation
from gateway.types.errors import WeirError
from gateway.types.method import Asking
from gateway.upstream.sse import EventReader, LineTooLong

if TYPE_CHECKING:
    import httpx

LENGTHS: Final = (64, 512, 64, 2_048, 512, 8_192, 2_048)
"""Tokens of the prompts, about; those that do not fit half the context are left out."""
ANSWER: Final = 24
"""Tokens of each answer at most."""
LONGEST_S: Final = 120.0
"""Seconds that a whole run may take; what was measured by then is learned from."""
FEWEST: Final = 3
"""Samples without which a run has failed."""
_WORDS: Final = ("weir", "river", "gauge", "flow", "stone", "bank", "reed", "mill", "ford", "current", "rapid", "pool")
_log: Final = logs.logger(__name__)


class CannotCalibrate(Exception):
    """Why a backend cannot be calibrated."""


async def run(books: Asking, fleet: Fleet, backend: str, guard: EgressGuard) -> asyncio.Task[None]:
    """Begin to calibrate ``backend`` and return the task that does it; it ends within ``LONGEST_S`` and a little.

    Raises:
        CannotCalibrate: it cannot be now.
        Conflict: it is being calibrated already.
    """
    candidate = subject(fleet, backend)
    run_id = await books.ask(BEGIN_CALIBRATION, (backend,))
    return asyncio.get_running_loop().create_task(_whole(books, candidate, guard, run_id), name=f"calibrate {backend}")


def subject(fleet: Fleet, backend: str) -> Candidate:
    """Return the model and backend that are measured. Raises ``CannotCalibrate``."""
    replica = fleet.replicas[backend]
    if replica.engine.external:
        raise CannotCalibrate("somebody else bills its requests; it learns from those of callers")
    if not replica.load.ready:
        raise CannotCalibrate("it does not answer its probe")
    for model in fleet.models.values():
        for candidate in model.candidates:
            if candidate.replica is replica and candidate.endpoint.capabilities.chat:
                return candidate
    raise CannotCalibrate("it serves no model that chats")


async def _whole(books: Asking, candidate: Candidate, guard: EgressGuard, run_id: str) -> None:
    """Measure, learn, and tell the books what came of it."""
    backend, problem, measured = candidate.replica.name, "", None
    try:
        measured = await measure(candidate, guard)
    except CannotCalibrate as error:
        problem = str(error)
    except Exception:  # noqa: BLE001 - whatever happened, the run must not seem to go on
        _log.exception("a calibration failed: defect", backend=backend)
        problem = "a defect of Weir; it is in the log"
    with suppress(WeirError):  # a run that nobody could end is over by itself after a while
        await books.ask(END_CALIBRATION, (backend, run_id, problem, measured))


async def measure(candidate: Candidate, guard: EgressGuard, chance: Random | None = None) -> Measured:
    """Ask, and return what was measured and what learning it would do. Raises ``CannotCalibrate``."""
    import httpx  # noqa: PLC0415 - only a process that calibrates needs the library

    chance = chance or Random()  # noqa: S311 - prompts that nobody has cached, not secrets
    replica, found, problem = candidate.replica, list[Sample](), "no answer"
    half = candidate.endpoint.context_length // 2
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_S), httpx.AsyncClient(timeout=60.0, trust_env=False) as client:
            for length in LENGTHS:
                if length + ANSWER > half:
                    continue
                try:
                    found.append(await _asked(client, guard, candidate, length, chance))
                except (EgressError, httpx.HTTPError, OSError, LineTooLong) as error:
                    problem = str(error) or type(error).__name__
                except CannotCalibrate as error:
                    problem = str(error)
    if len(found) < FEWEST:
        raise CannotCalibrate(f"{len(found)} of {len(LENGTHS)} requests were answered: {problem}")
    samples = tuple(found)
    estimate = deepcopy(replica.load.estimate)
    before = error_of(estimate, samples)
    learn(estimate, samples)
    return Measured(
        candidate.upstream_model,
        samples,
        before,
        error_of(estimate, samples),
        estimate.base,
        estimate.rate,
        estimate.pace(1.0, 0.0),
    )


async def _asked(
    client: httpx.AsyncClient, guard: EgressGuard, candidate: Candidate, length: int, chance: Random
) -> Sample:
    """Send one request and return what it took. Raises ``CannotCalibrate``, ``EgressError`` and ``httpx.HTTPError``."""
    import httpx  # noqa: PLC0415 - see ``measure``

    replica = candidate.replica
    parts = urlsplit(replica.backend.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = await guard.resolve(parts.hostname or "", port)
    path = joined(parts.path, replica.engine.paths[Operation.CHAT])
    # The checked address itself, so that the name cannot lead elsewhere between check and connect.
    url = httpx.URL(f"{parts.scheme}://{parts.netloc}{path}").copy_with(host=addresses[0][0])
    key = replica.backend.api_key
    headers = {"host": parts.netloc.rpartition("@")[2], "content-type": "application/json", "user-agent": "weir"}
    if key is not None:
        headers["authorization"] = f"Bearer {key.reveal()}"
    prompt = f"{chance.getrandbits(64):x} " + " ".join(chance.choices(_WORDS, k=length))
    body = {
        "model": candidate.upstream_model,
        "messages": [{"role": "user", "content": prompt}],
        replica.engine.length_field: ANSWER,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    load = replica.load
    batch, context = load.beside(time.monotonic())
    began = time.monotonic()
    request = client.stream("POST", url, json=body, headers=headers, extensions={"sni_hostname": parts.hostname or ""})
    async with request as answer:
        if not answer.is_success:
            raise CannotCalibrate(f"it answered {answer.status_code}")
        times, tokens = [], 0
        async for document in _documents(answer):
            if _writes(document):
                times.append(time.monotonic())
            tokens = (document.get("usage") or {}).get("prompt_tokens") or tokens
    if not times:
        raise CannotCalibrate("it answered without a token")
    between = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 2 else None
    return Sample(tokens or length, batch, context, times[0] - began, between)


async def _documents(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Return the events of a stream; what is no JSON object is passed over."""
    reader = EventReader()
    async for data in answer.aiter_bytes():
        for payload in reader.feed(data):
            with suppress(msgspec.DecodeError):
                found = msgspec.json.decode(payload)
                if isinstance(found, dict):
                    yield found


def _writes(document: dict[str, Any]) -> bool:
    """Whether an event holds a token of the answer, thoughts included: a model that thinks may not come any further."""
    deltas = (choice.get("delta") or {} for choice in document.get("choices") or ())
    return any(delta.get(member) for delta in deltas for member in ("content", "reasoning_content", "reasoning"))
