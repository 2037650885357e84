"""Kept responses, as their callers fetch and delete them: ``/v1/responses/{id}`` and what is below it.

A response belongs to the inference key that made it. One of another key, one that was never kept, one that has expired
and one that was deleted are the same 404.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from gateway.access.principal import Principal
from gateway.edge.openai_responses_background import BEAT_S
from gateway.edge.openai_responses_shelf import Shelf, items_of, request_of
from gateway.edge.openai_responses_stream import follow
from gateway.types.background import CANCEL, EVENTS_S, READ, RUNNING
from gateway.types.errors import BadRequest, NotFound
from gateway.types.responses import FORGET, Turn

CANCEL_S: Final = 5.0
"""Seconds that whoever cancels waits for another process to do it."""
Authenticate = Callable[[Request], Principal]
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def build_router(shelf: Callable[[], Shelf], authenticate: Authenticate) -> APIRouter:
    """Return the paths of kept responses.

    Args:
        shelf: where they are.
        authenticate: lets inference keys in.
    """
    router = APIRouter(tags=["responses"])
    known = Depends(authenticate)

    for prefix in ("/v1", "/api/v1"):
        _add_actions(router, prefix, shelf, known)
        base = f"{prefix}/responses/{{response_id}}"

        @router.get(base, summary="A response that was kept")
        async def response(
            response_id: str,
            stream: bool = False,
            starting_after: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
            caller: Principal = known,
        ) -> Response:
            turn = await _find(shelf(), response_id, caller)
            if stream:
                after = -1 if starting_after is None else starting_after
                return await _followed(shelf(), caller.key_id, response_id, after)
            if starting_after is not None:
                raise BadRequest("starting_after: set stream to true with it", param="starting_after")
            return Response(turn.response, media_type="application/json")

        @router.delete(base, summary="Forget a response")
        async def forget(response_id: str, caller: Principal = known) -> Response:
            await _find(shelf(), response_id, caller)
            request_id = request_of(response_id)
            if not await shelf().books.ask(FORGET, (caller.key_id, request_id)):
                raise _absent(response_id)
            return _json({"id": response_id, "object": "response", "deleted": True})

        @router.get(f"{base}/input_items", summary="What a response was an answer to")
        async def input_items(
            response_id: str,
            limit: Annotated[int, Query(ge=1, le=100)] = 20,
            order: Literal["asc", "desc"] = "desc",
            after: Annotated[str | None, Query(max_length=256)] = None,
            caller: Principal = known,
        ) -> Response:
            turn = await _find(shelf(), response_id, caller)
            request_id = request_of(response_id)
            turns = await shelf().conversation(caller.key_id, request_id) if request_id is not None else None
            before = items_of(turns[:-1]) if turns else []
            return _json(_page([*before, *_decode(turn.items)], limit, order, after))

    return router


def _add_actions(router: APIRouter, prefix: str, shelf: Callable[[], Shelf], known: Any) -> None:
    """Add what can be done to responses beside fetching and forgetting them."""

    @router.post(f"{prefix}/responses/compact", summary="Refused: there are no compactions here")
    async def compact(caller: Principal = known) -> Response:  # noqa: ARG001 - only keys are told
        raise BadRequest("compactions are not made here: send truncation auto, or a summary as input")

    @router.post(f"{prefix}/responses/{{response_id}}/cancel", summary="End a response that is made in the background")
    async def cancel(response_id: str, caller: Principal = known) -> Response:
        turn = await _find(shelf(), response_id, caller)
        response = _decode(turn.response)
        if not response.get("background"):
            raise BadRequest("this response was not made in the background: close its connection to cancel one")
        if response["status"] in RUNNING:
            await _cancel(shelf(), caller.key_id, request_of(response_id) or b"")
            turn = await _find(shelf(), response_id, caller)
        return Response(turn.response, media_type="application/json")


async def _find(shelf: Shelf, identity: str, caller: Principal) -> Turn:
    request_id = request_of(identity)
    turn = await shelf.find(caller.key_id, request_id) if request_id is not None else None
    if turn is None:
        raise _absent(identity)
    return turn


async def _followed(shelf: Shelf, key_id: str, identity: str, after: int) -> Response:
    """Return the stream of a response that is, or was, made in the background; raises ``BadRequest`` without one."""
    request_id = request_of(identity) or b""

    async def last() -> Mapping[str, Any] | None:
        turn = await shelf.find(key_id, request_id)
        return None if turn is None else dict(_decode(turn.response))

    found = await shelf.books.ask(READ, (key_id, request_id, after))
    if found is None or not found.streamed:
        raise BadRequest(
            "stream: only a response that was made in the background and as a stream can be streamed again, for "
            f"{EVENTS_S / 3600:g} h",
            param="stream",
        )
    events = follow(shelf.books, key_id, request_id, after, last)
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _cancel(shelf: Shelf, key_id: str, request_id: bytes) -> None:
    """End a run wherever it is; returns once its response says so, or after a while."""
    run = shelf.runs.running.get(request_id)
    if run is not None and run.key_id == key_id:
        await run.cancel()
        return
    await shelf.books.ask(CANCEL, (key_id, request_id))
    for _ in range(int(CANCEL_S / BEAT_S)):
        turn = await shelf.find(key_id, request_id)
        if turn is None or _decode(turn.response)["status"] not in RUNNING:
            return
        await asyncio.sleep(BEAT_S)


def _absent(identity: str) -> NotFound:
    return NotFound(f"there is no response {identity[:64]!r}", param="response_id")


def _page(items: Sequence[Mapping[str, Any]], limit: int, order: str, after: str | None) -> dict[str, Any]:
    """Return a page of items as OpenAI's lists are."""
    found = [_shown(item) for item in (items if order == "asc" else reversed(items))]
    if after is not None:
        place = next((index for index, item in enumerate(found) if item["id"] == after), None)
        if place is None:
            raise BadRequest("after: there is no such item", param="after")
        found = found[place + 1 :]
    page = found[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > limit,
    }


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item with content in parts, which clients need of messages."""
    content = item.get("content")
    if item["type"] != "message" or not isinstance(content, str):
        return dict(item)
    part: dict[str, Any] = {"type": "input_text", "text": content}
    if item.get("role") == "assistant":
        part = {"type": "output_text", "text": content, "annotations": []}
    return {"status": "completed", **item, "content": [part]}


def _json(document: Any) -> Response:
    return Response(_encode(document), media_type="application/json")
