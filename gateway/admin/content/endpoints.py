"""Routes of stored prompts and answers: ``/api/v1/generation/content`` and ``/api/v1/content``.

A team reads and deletes what is stored of its own requests; what belongs to another team, is not stored, or was let go
answers exactly as an unknown id does. Choosing and deleting for whole teams and keys is for management keys. Errors are
``WeirError``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.access.management import ManagementKeys
from gateway.access.principal import Principal
from gateway.admin.body import documented, reader
from gateway.admin.content.schemas import (
    KEY,
    TEAM,
    ChoicesAnswer,
    ChooseBody,
    ContentAnswer,
    ForgottenAnswer,
    ForgottenData,
    choice_data,
)
from gateway.admin.door import management_only
from gateway.types import ids
from gateway.types.content import (
    CHOICES,
    CHOOSE,
    CONTENT,
    FORGET,
    FORGET_ONE,
    UNCHOOSE,
    ContentChoice,
    StoredContent,
)
from gateway.types.errors import BadRequest, NotFound
from gateway.types.method import Asking
from gateway.types.repetition import HIT, CacheHit

_encode: Final = msgspec.json.Encoder().encode
_REFUSED: Final[dict[int | str, dict[str, Any]]] = {"4XX": {"description": "Refused; `error.message` says why."}}
_NO_STORE: Final = {"cache-control": "no-store"}
_Choose = Annotated[ChooseBody, Depends(reader(ChooseBody))]
_Id = Annotated[str, Query(max_length=64, description="The generation's `id`.")]
_Team = Annotated[str, Query(pattern=TEAM, description="Slug of the team.")]
_Key = Annotated[str | None, Query(pattern=KEY, description="`weir.key_id` of one of its keys; left out for all.")]


def build_router(books: Asking, management: ManagementKeys, authenticate: Callable[[Request], Principal]) -> APIRouter:
    """Return the routes of stored prompts and answers.

    Args:
        books: the keeper.
        management: the keys that may choose and delete for teams.
        authenticate: lets inference keys and management keys in.
    """
    router = APIRouter(tags=["content"], responses=_REFUSED)
    router.include_router(_generations(books, Depends(authenticate)))
    router.include_router(_choices(books, management))
    return router


def _generations(books: Asking, known: Any) -> APIRouter:
    """Return the paths of one request's content; whoever is ``known`` may ask for that of its team."""
    router = APIRouter(prefix="/api/v1/generation/content")

    @router.get("", summary="What was asked and answered", response_model=ContentAnswer)
    async def read(id: _Id, caller: Principal = known) -> Response:  # noqa: A002 - as OpenRouter calls it
        found = await _own(books, id, caller)
        content = _encode({"data": msgspec.Raw(found.content)})
        return Response(content, media_type="application/json", headers=_NO_STORE)

    @router.delete("", summary="Delete what is stored of a request")
    async def delete(id: _Id, caller: Principal = known) -> ForgottenAnswer:  # noqa: A002 - as above
        await _own(books, id, caller)
        gone = await books.ask(FORGET_ONE, (ids.parse(id),))
        return ForgottenAnswer(data=ForgottenData(deleted=int(gone)))

    return router


def _choices(books: Asking, management: ManagementKeys) -> APIRouter:
    """Return the paths of whose prompts and answers are stored."""
    router = APIRouter(prefix="/api/v1/content", dependencies=management_only(management))

    @router.get("/choices", summary="Whose prompts and answers are stored")
    async def list_all() -> ChoicesAnswer:
        return _shown(await books.ask(CHOICES))

    @router.put("/choices", summary="Choose whether a team's are stored", openapi_extra=documented(ChooseBody))
    async def choose(body: _Choose) -> ChoicesAnswer:
        return _shown(await books.ask(CHOOSE, (body.value(),)))

    @router.delete("/choices", summary="Take a choice back; what is stored stays until it expires or is deleted")
    async def unchoose(team: _Team, key: _Key = None) -> ChoicesAnswer:
        return _shown(await books.ask(UNCHOOSE, (team, key or "")))

    @router.delete("", summary="Delete all that is kept of a team's or a key's prompts and answers")
    async def forget(team: _Team, key: _Key = None) -> ForgottenAnswer:
        return ForgottenAnswer(data=ForgottenData(deleted=await books.ask(FORGET, (team, key or ""))))

    return router


async def _own(books: Asking, identity: str, caller: Principal) -> StoredContent:
    """Return what is stored of a request of the caller's team; of a cache's hit, that of its source.

    Raises:
        NotFound: nothing, or it is another team's.
    """
    request_id = ids.parse(identity)
    if request_id is None:
        raise BadRequest("a generation id is `gen-` and 32 hexadecimal digits", param="id")
    hit: CacheHit | None = await books.ask(HIT, (request_id,))
    found: StoredContent | None = await books.ask(CONTENT, (hit.source if hit is not None else request_id,))
    if found is None or not (caller.management or found.team == caller.team):
        raise NotFound("no such generation, or its content is not stored", param="id")
    return found


def _shown(choices: Sequence[ContentChoice]) -> ChoicesAnswer:
    return ChoicesAnswer(data=[choice_data(choice) for choice in choices])
