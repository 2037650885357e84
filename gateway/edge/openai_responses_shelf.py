"""What the Responses API keeps: conversations that callers go on with, and the answers that they fetch again.

Before a request is relayed, what it refers to (``previous_response_id``, ``item_reference``) is fetched from the
keeper and stands in its input. After an answer has left whole, its turn is handed to the keeper. A keeper or database
that is away fails no answer: the turn is handed over again for a while, else it is counted as lost and its id answers
404. A response belongs to the inference key that made it; another one's id answers as one that never was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.access.principal import Principal
from gateway.config.snapshot import ResponsesSpec
from gateway.edge.clerk import Clerk
from gateway.edge.openai_responses import ResponsesCall, read
from gateway.edge.openai_responses_background import Runs
from gateway.edge.openai_responses_reply import PREFIX
from gateway.edge.openai_responses_truncation import Build
from gateway.types import ids
from gateway.types.background import UNFINISHED
from gateway.types.errors import BadRequest
from gateway.types.method import Asking
from gateway.types.responses import CONVERSATION, FIND, KEEP, MOST_BYTES, NewTurn, Turn

FRESH_S: Final = 5.0
"""Age of a response that may still be on its way to the keeper."""
PATIENCE_S: Final = 0.4
_PAUSE_S: Final = 0.02
MOST_REFERENCES: Final = 1_000
_HEX: Final = 32
_REFERENCE: Final = "item_reference"
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def request_of(identity: str) -> bytes | None:
    """Return the request that made the response ``identity``, or None when it is no id of a response."""
    return ids.parse(ids.PREFIX + identity.removeprefix(PREFIX)) if identity.startswith(PREFIX) else None


def maker_of(identity: str) -> bytes | None:
    """Return the request in whose turn the item ``identity`` stands, or None when the id is none of ours."""
    _, _, mark = identity.partition("_")
    return ids.parse(ids.PREFIX + mark[:_HEX]) if len(mark) > _HEX else None


def own_items(call: ResponsesCall, mark: str) -> list[dict[str, Any]]:
    """Return a request's own input as it is kept: every item has an id, and a type."""
    return [
        {**item, "type": item.get("type") or "message", "id": item.get("id") or f"{_prefix(item)}_{mark}i{index:04x}"}
        for index, item in enumerate(call.items)
    ]


def _prefix(item: Mapping[str, Any]) -> str:
    kind = item.get("type")
    return {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}.get(str(kind), "msg")


def output_of(turn: Turn) -> list[dict[str, Any]]:
    """Return the items that a turn's response says."""
    found: list[dict[str, Any]] = _decode(turn.response)["output"]
    return found


def items_of(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return everything that was said in ``turns``."""
    return [item for turn in turns for item in (*_decode(turn.items), *output_of(turn))]


Fit = Callable[[ResponsesCall, list[dict[str, Any]], Build, Principal], Awaitable[ResponsesCall]]


@dataclass(frozen=True, slots=True)
class Shelf:
    """What one process fetches and keeps.

    Attributes:
        books: the keeper.
        clerk: hands over what is to be kept.
        spec: returns what is kept, as of now.
        runs: what is being made in the background.
        fit: leaves out the oldest of what does not fit (``gateway.edge.openai_responses_truncation``).
    """

    books: Asking
    clerk: Clerk
    spec: Callable[[], ResponsesSpec]
    runs: Runs
    fit: Fit

    async def read(self, body: dict[str, Any], principal: Principal, *, openrouter: bool) -> ResponsesCall:
        """Return the call in ``body``, with all that it refers to in its input.

        Raises:
            BadRequest: it cannot be read, or refers to what is not there.
            Unavailable: the keeper is away, and it refers to something.
        """
        previous, items = body.get("previous_response_id"), body.get("input")
        unkept = self._unkept(principal)
        history: list[dict[str, Any]] = []
        if type(previous) is str:
            if unkept:
                raise BadRequest(
                    f"previous_response_id: {unkept}; send the conversation as input", param="previous_response_id"
                )
            history = await self._history(principal.key_id, previous)
        if type(items) is list and any(type(each) is dict and each.get("type") == _REFERENCE for each in items):
            body = {**body, "input": await self._resolved(principal.key_id, items)}
        call = read(body, openrouter=openrouter, history=history)
        if call.asked.truncation == "auto":
            fewer = body
            call = await self.fit(
                call,
                [*history, *call.items],
                lambda items: read({**fewer, "input": items}, openrouter=openrouter),
                principal,
            )
        if not unkept and call.preferences is not None and call.preferences.zdr:
            unkept = "provider.zdr asks that nothing is kept"
        if call.asked.background:
            self._detach(call, principal.key_id, unkept)
        if unkept:
            call.asked.store = False
        if call.asked.store is not False:
            call.keep = self._keeper(call, principal.key_id)
        return call

    def _unkept(self, principal: Principal) -> str:
        """Return why nothing of what ``principal`` asks is kept, or ``""``."""
        if not self.spec().store:
            return "responses are not kept here"
        if principal.rule is not None and principal.rule.keeps_nothing:
            return "a guardrail of this key wants zero data retention, so its responses are not kept"
        return ""

    def _detach(self, call: ResponsesCall, key_id: str, unkept: str) -> None:
        """Have ``call`` answered in the background. Raises ``BadRequest`` when its answer may not be kept."""
        if call.asked.store is False:
            unkept = unkept or "store is false"
        if unkept:
            raise BadRequest(
                f"background: a response that is made in the background has to be kept, and {unkept}",
                param="background",
            )
        asked = call.asked.previous_response_id
        previous = request_of(asked) if asked is not None else None
        call.detached = True
        call.begin = self.runs.begin(key_id, previous, lambda request_id: _encode(own_items(call, request_id.hex())))

    def _keeper(self, call: ResponsesCall, key_id: str) -> Callable[[bytes, dict[str, Any]], None]:
        """Return what hands over the turn of ``call`` once its answer has left."""

        def keep(request_id: bytes, response: dict[str, Any]) -> None:
            turn = Turn(_encode(own_items(call, request_id.hex())), _encode(response))
            size = len(turn.items) + len(turn.response)
            if size <= MOST_BYTES:
                asked = call.asked.previous_response_id
                previous = request_of(asked) if asked is not None else None
                self.clerk.post(KEEP, (NewTurn(request_id, key_id, previous, turn),), size)

        return keep

    async def find(self, key_id: str, request_id: bytes) -> Turn | None:
        """Return a turn of a key, or None. One that is new is waited for: it may be on its way to the keeper."""
        found: Turn | None = await self._patiently(request_id, lambda: self.books.ask(FIND, (key_id, request_id)))
        return found

    async def conversation(self, key_id: str, request_id: bytes) -> list[Turn] | None:
        """Return the turns that lead to a request of a key, or None; waits as ``find`` does."""
        asked = (key_id, request_id)
        found: list[Turn] | None = await self._patiently(request_id, lambda: self.books.ask(CONVERSATION, asked))
        return found

    async def _patiently(self, request_id: bytes, ask: Callable[[], Any]) -> Any:
        now = time.time()
        fresh = ids.unix_ms(request_id) / 1000 > now - FRESH_S
        deadline, pause = now + PATIENCE_S, _PAUSE_S
        while (found := await ask()) is None and fresh and time.time() < deadline:
            await asyncio.sleep(pause)
            pause *= 2
        return found

    async def _history(self, key_id: str, identity: str) -> list[dict[str, Any]]:
        request_id = request_of(identity)
        turns = await self.conversation(key_id, request_id) if request_id is not None else None
        if not turns:
            raise BadRequest(
                f"there is no response {identity[:64]!r} to go on from, or one before it is gone",
                param="previous_response_id",
                metadata={"code": "previous_response_not_found"},
            )
        status = _decode(turns[-1].response).get("status")
        if status in UNFINISHED:
            raise BadRequest(
                f"the response {identity[:64]!r} is {status}: it cannot be gone on from", param="previous_response_id"
            )
        return items_of(turns)

    async def _resolved(self, key_id: str, items: Sequence[Any]) -> list[Any]:
        """Return ``items`` with what references among them stand for."""
        known: dict[bytes, dict[str, dict[str, Any]]] = {}
        found: list[Any] = []
        for index, item in enumerate(items):
            if type(item) is not dict or item.get("type") != _REFERENCE:
                found.append(item)
                continue
            identity = item.get("id")
            maker = maker_of(identity) if isinstance(identity, str) else None
            if maker is not None and maker not in known and len(known) < MOST_REFERENCES:
                turn = await self.find(key_id, maker)
                known[maker] = {each["id"]: each for each in items_of([turn])} if turn is not None else {}
            meant = known.get(maker or b"", {}).get(str(identity))
            if meant is None:
                place = f"input[{index}].id"
                raise BadRequest(f"{place}: there is no item {str(identity)[:96]!r}", param=place)
            found.append(meant)
        return found
