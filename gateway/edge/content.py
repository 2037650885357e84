"""Prompts and answers that teams want stored: which ones, and what of them.

Nothing is stored unless the configuration or the management API says so. Storing is done after the answer, beside the
requests: a failure to store never fails an answer and is counted. The keeper asks again whether it is still wanted,
seals what it gets and lets it go in time. None of it is ever in a log or a trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from gateway.access.principal import Principal
from gateway.config.snapshot import ContentSpec
from gateway.edge.clerk import Clerk
from gateway.edge.witness import Seen, Witness
from gateway.telemetry import logs
from gateway.telemetry.instruments import Counter
from gateway.types.call import Call, Operation
from gateway.types.content import CHOICES, STORE, ContentChoice, chosen
from gateway.types.errors import UpstreamFailed, WeirError
from gateway.types.method import Asking
from gateway.upstream.fold import Folder

EVERY_S: Final = 2.0
FEW: Final = 256
"""Chunks of an answer that are put together on the event loop; it takes some microseconds a chunk."""
_encode: Final = msgspec.json.Encoder().encode
_log: Final = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """What was asked.

    Attributes:
        asked: JSON of ``input``.
        team, key_id: who asked.
    """

    asked: bytes
    team: str
    key_id: str


class Contents:
    """What is stored of the requests of one process.

    Args:
        books: the keeper.
        clerk: hands over what is stored.
        spec: returns what the configuration says now.
        outcomes: counts answers that were to be stored, by what became of them.

    Attributes:
        on: whether anything is stored of anybody.
    """

    def __init__(self, books: Asking, clerk: Clerk, spec: Callable[[], ContentSpec], outcomes: Counter) -> None:
        self.on = spec().store
        self._books = books
        self._clerk = clerk
        self._spec = spec
        self._outcomes = outcomes
        self._choices: tuple[ContentChoice, ...] = ()

    async def learn(self) -> None:
        """Ask the keeper what was chosen; while it is away its last word holds."""
        try:
            self._choices = await self._books.ask(CHOICES)
        except WeirError as error:
            _log.debug("the keeper does not say whose prompts are stored", reason=error.message)
        self.on = self._spec().store or any(choice.store for choice in self._choices)

    async def run(self) -> None:
        """Follow what is chosen. Runs until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.learn()

    def draft(self, call: Call, principal: Principal) -> Draft | None:
        """Return what was asked, before anybody changes it, or None when it is not to be stored."""
        choice = chosen(self._choices, principal.team, principal.key_id)
        if not (self._spec().store if choice is None else choice.store):
            return None
        if call.preferences is not None and call.preferences.zdr:
            return None
        if principal.rule is not None and principal.rule.keeps_nothing:
            return None
        return Draft(_encode(_input(call)), principal.team, principal.key_id)

    def store(self, draft: Draft, witness: Witness) -> None:
        """Store what was asked and answered."""
        error = witness.error
        if error is not None and not isinstance(error, UpstreamFailed):
            return  # refused before it reached a backend: there is nothing that was answered
        if witness.over or len(draft.asked) + witness.size > self._spec().largest:
            self._outcomes.add(("too_large",))
            return
        make = partial(_arguments, draft, witness.request_id, witness.seen, witness.call.operation, error)
        size = len(draft.asked) + witness.size
        task = self._clerk.post(STORE, make() if len(witness.seen.parts) <= FEW else make, size)
        if task is None:
            self._outcomes.add(("failed",))
            return
        task.add_done_callback(self._stored)

    def _stored(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None or task.result() is None:
            self._outcomes.add(("failed",))
        else:
            self._outcomes.add(("stored" if task.result() else "unwanted",))


def _arguments(
    draft: Draft, request_id: bytes, seen: Seen, operation: Operation, error: WeirError | None
) -> tuple[bytes, str, str, bytes]:
    """Return the arguments of ``STORE``."""
    content = {
        "input": msgspec.Raw(draft.asked),
        "output": _output(seen, operation),
        "error": None if error is None else _error(error, seen.provider),
    }
    return request_id, draft.key_id, draft.team, _encode(content)


def _input(call: Call) -> dict[str, Any]:
    """Return ``input`` as OpenRouter has it: messages, or a prompt."""
    body = call.body
    if call.operation is Operation.CHAT:
        return {"messages": body.get("messages", [])}
    if call.operation is Operation.RERANK:
        return {"prompt": _encode({"query": body["query"], "documents": body["documents"]}).decode()}
    prompt = body.get("prompt") if call.operation is Operation.COMPLETIONS else body.get("input")
    return {"prompt": prompt if isinstance(prompt, str) else _encode(prompt).decode()}


def _output(seen: Seen, operation: Operation) -> dict[str, Any]:
    """Return ``output`` as OpenRouter has it: the first choice; tool calls and further choices beside it."""
    chunks = list(seen.chunks())
    if seen.streamed:
        folder = Folder(operation)
        folder.feed(chunks)
        answer = folder.answer()
    else:
        answer = chunks[0] if chunks and isinstance(chunks[0], dict) else {}
    choices = [_choice(choice) for choice in answer.get("choices") or ()]
    output: dict[str, Any] = {"completion": None, "reasoning": None} | (choices[0] if choices else {})
    if len(choices) > 1:
        output["choices"] = choices
    return output


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message") or {}
    text = message.get("content", choice.get("text"))
    found = {
        "completion": text if isinstance(text, str) or text is None else _encode(text).decode(),
        "reasoning": message.get("reasoning") or message.get("reasoning_content"),
    }
    if message.get("tool_calls"):
        found["tool_calls"] = message["tool_calls"]
    return found


def _error(error: WeirError, provider: str) -> dict[str, Any]:
    return {
        "message": error.message,
        "previous_errors": [],
        "provider_name": provider or None,
        "raw": None,
        "status": error.code,
    }
