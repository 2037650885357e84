"""Kept responses, as their callers fetch and delete them: ``/v1/responses/{id}`` and what is below it.

A response belongs to the inference key that made it. One of another key, one that was never kept, one that has expired
and one that was deleted are the same 404.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.access.principal import Principal
from gateway.edge.openai_responses_shelf import Shelf, items_of, request_of
from gateway.types.errors import BadRequest, NotFound
from gateway.types.responses import FORGET, Turn

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

    async def find(identity: str, caller: Principal) -> Turn:
        request_id = request_of(identity)
        turn = await shelf().find(caller.key_id, request_id) if request_id is not None else None
        if turn is None:
            raise _absent(identity)
        return turn

    for prefix in ("/v1", "/api/v1"):
        base = f"{prefix}/responses/{{response_id}}"

        @router.get(base, summary="A response that was kept")
        async def response(response_id: str, stream: bool = False, caller: Principal = known) -> Response:
            turn = await find(response_id, caller)
            if stream:
                raise BadRequest("stream: only answers made in the background can be streamed again", param="stream")
            return Response(turn.response, media_type="application/json")

        @router.delete(base, summary="Forget a response")
        async def forget(response_id: str, caller: Principal = known) -> Response:
            await find(response_id, caller)
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
            turn = await find(response_id, caller)
            request_id = request_of(response_id)
            turns = await shelf().conversation(caller.key_id, request_id) if request_id is not None else None
            before = items_of(turns[:-1]) if turns else []
            return _json(_page([*before, *_decode(turn.items)], limit, order, after))

        @router.post(f"{base}/cancel", summary="Refused: no response is made in the background")
        async def cancel(response_id: str, caller: Principal = known) -> Response:
            await find(response_id, caller)
            raise BadRequest("this response was not made in the background: close its connection to cancel one")

    return router


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
