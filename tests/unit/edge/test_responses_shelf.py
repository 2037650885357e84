"""What the Responses API fetches and keeps, when the keeper is late, away, or has nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.access.principal import Principal
from gateway.config.snapshot import ResponsesSpec
from gateway.edge import openai_responses_shelf
from gateway.edge.clerk import Clerk
from gateway.edge.openai_responses import ResponsesCall
from gateway.edge.openai_responses_background import Runs
from gateway.edge.openai_responses_reply import ResponsesReply, response_id
from gateway.edge.openai_responses_shelf import Shelf
from gateway.telemetry.metrics import GatewayMetrics
from gateway.types import ids
from gateway.types.errors import BadRequest, Unavailable
from gateway.types.reply import Bill
from gateway.types.responses import CONVERSATION, KEEP, NewTurn, Turn
from gateway.types.tokens import Usage
from tests.unit.edge.responses_exchange import KeptExchange

ANSWER: dict[str, Any] = {
    "id": "up",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}],
}
_new = ids.RequestIds().new


class Books:
    """A keeper that says what it is told to, and notes what it is asked.

    Attributes:
        answers: one for each question; an exception is raised.
        asked: names and arguments of the methods.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any]] = []

    async def ask(self, method: Any, arguments: Any = ()) -> Any:
        """Answer."""
        self.asked.append((method.name, arguments))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def shelf(books: Books, **spec: Any) -> Shelf:
    """Return a shelf."""
    clerk = Clerk(books, GatewayMetrics("test").unkept)

    async def whole(call: ResponsesCall, *_: Any) -> ResponsesCall:
        return call

    return Shelf(books, clerk, lambda: ResponsesSpec(**spec), Runs(books, clerk, "journal"), whole)


def somebody() -> Principal:
    """Return who asks."""
    return Principal("somekey1", "default")


def body(**members: Any) -> dict[str, Any]:
    """Return a request."""
    return {"model": "m", "input": "x"} | members


def turn(*items: Any) -> Turn:
    """Return a turn with the output ``items``."""
    asked = [{"type": "message", "role": "user", "content": "Hi.", "id": "msg_1"}]
    return Turn(msgspec.json.encode(asked), msgspec.json.encode({"output": items}))


async def test_a_turn_that_is_on_its_way_is_waited_for() -> None:
    """A response of just now that is not there yet comes within a moment; an old id is answered at once."""
    said = {"type": "message", "id": "msg_2", "role": "assistant", "content": [{"type": "output_text", "text": "Ho."}]}
    books = Books(None, None, [turn(said)])
    call = await shelf(books).read(body(previous_response_id=response_id(_new())), somebody(), openrouter=False)
    assert [message["content"] for message in call.body["messages"]] == ["Hi.", "Ho.", "x"]
    assert [name for name, _ in books.asked] == [CONVERSATION.name] * 3
    assert (call.history, len(call.items)) == (2, 1)
    old = bytes.fromhex("0180000000007000800000000000000" + "0")
    books = Books(None)
    with pytest.raises(BadRequest):
        await shelf(books).read(body(previous_response_id=response_id(old)), somebody(), openrouter=False)
    assert len(books.asked) == 1


async def test_ids_that_are_none_are_refused_without_asking() -> None:
    """What no gateway ever made is not looked for."""
    books = Books(None)
    for identity in ("", "resp_", "resp_abc", "gen-" + _new().hex(), "resp_" + "0" * 32):
        with pytest.raises(BadRequest):
            await shelf(books).read(body(previous_response_id=identity), somebody(), openrouter=False)
    assert not books.asked


async def test_without_the_keeper_only_what_needs_it_waits() -> None:
    """A plain request is read and answered; one that refers to something is told that the keeper is away."""
    books = Books(Unavailable("away"))
    kept = shelf(books)
    call = await kept.read(body(), somebody(), openrouter=False)
    exchange = KeptExchange()
    reply = ResponsesReply(exchange, call)
    reply.answer(msgspec.json.decode(msgspec.json.encode(ANSWER)), "m", "own", Bill(Usage(1, 1), 0, 0, 0))
    assert exchange.document["output"][0]["content"][0]["text"] == "Yes."
    assert exchange.document["store"] is True
    await asyncio.sleep(0)
    assert books.asked[0][0] == KEEP.name
    with pytest.raises(Unavailable):
        await kept.read(body(previous_response_id=response_id(_new())), somebody(), openrouter=False)
    await asyncio.wait_for(_stopped(kept.clerk), 10)


async def _stopped(clerk: Clerk) -> None:
    for task in list(clerk._running):
        task.cancel()
    await clerk.stop()


async def test_what_is_kept_is_the_turn_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own input with ids, the response with what is sealed in it, and the request that it went on from."""
    books = Books([turn()], True)
    kept = shelf(books)
    previous = _new()
    call = await kept.read(body(previous_response_id=response_id(previous)), somebody(), openrouter=False)
    answer = msgspec.json.decode(msgspec.json.encode(ANSWER))
    sealed = {"type": "reasoning.encrypted", "data": "sealed"}
    answer["choices"][0]["message"]["reasoning_details"] = [sealed]
    exchange = KeptExchange()
    ResponsesReply(exchange, call).answer(answer, "m", "own", Bill(Usage(1, 1), 0, 0, 0))
    assert "encrypted_content" not in exchange.document["output"][0]
    await kept.clerk.flush()
    (new,) = books.asked[-1][1]
    assert isinstance(new, NewTurn)
    assert (new.key_id, new.previous, new.request_id) == ("somekey1", previous, exchange.request_id)
    mark = exchange.request_id.hex()
    assert msgspec.json.decode(new.turn.items) == [
        {"type": "message", "role": "user", "content": "x", "id": f"msg_{mark}i0000"}
    ]
    assert msgspec.json.decode(new.turn.response)["output"][0]["encrypted_content"] == "sealed"
    monkeypatch.setattr(openai_responses_shelf, "MOST_BYTES", 10)
    call = await kept.read(body(), somebody(), openrouter=False)
    ResponsesReply(KeptExchange(), call).answer(dict(ANSWER), "m", "own", Bill(Usage(1, 1), 0, 0, 0))
    await kept.clerk.flush()
    assert len(books.asked) == 2


async def test_references_stand_for_items_of_their_turn() -> None:
    """Each turn is asked for once; what is referred to may be an output or an input."""
    request_id = _new()
    mark = request_id.hex()
    call = {"type": "function_call", "id": f"fc_{mark}0000", "call_id": "c", "name": "n", "arguments": "{}"}
    books = Books(turn(call))
    asked = [
        {"type": "item_reference", "id": call["id"]},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
        {"type": "item_reference", "id": call["id"]},
    ]
    read = await shelf(books).read(body(input=asked), somebody(), openrouter=False)
    assert [item["type"] for item in read.items] == ["function_call", "function_call_output", "function_call"]
    assert len(books.asked) == 1
    with pytest.raises(BadRequest) as caught:
        await shelf(Books(None)).read(body(input=asked[1:]), somebody(), openrouter=False)
    assert caught.value.param in {"input[1].id", "input[0].call_id"}
