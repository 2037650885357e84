"""Routes of presets: ``/api/v1/presets``. An inference key sees and makes those of its own team, and no others.

A preset is made of the body of an inference request, which is read as such first, so that it cannot hold what no
request could. Errors are ``WeirError``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from gateway.access.principal import Principal
from gateway.admin.answer import REFUSED, Limit, Offset, answered
from gateway.admin.body import MAX_BODY, received
from gateway.admin.keys.schemas import key_hash
from gateway.admin.presets import schemas
from gateway.admin.presets.schemas import preset_data, version_data
from gateway.types import presets as methods
from gateway.types.errors import BadRequest, NotFound
from gateway.types.method import Asking

DEFAULT_TEAM: Final = "default"
Decode = Callable[[bytes], dict[str, Any]]
Read = Callable[[dict[str, Any]], object]
"""Reads a body as an inference request. Raises ``BadRequest``."""
Settle = Callable[[], Any]
_OF_REQUESTS: Final = frozenset(
    {
        *("messages", "input", "prompt", "instructions", "system", "stream", "stream_options", "preset", "user"),
        *("session_id", "metadata", "trace", "previous_response_id", "conversation", "background", "store"),
    }
)
"""Fields that are of one request and of no preset; what they tell the system becomes the system prompt."""
_Slug = Annotated[str, Path(description="The preset's slug.", max_length=64)]
_Team = Annotated[
    str | None, Query(description="For management keys: the workspace, `default` unless said.", max_length=64)
]


def build_router(
    books: Asking,
    authenticate: Callable[[Request], Principal],
    decode: Decode,
    forms: Mapping[str, Read],
    taken: Callable[[], frozenset[str]],
    changed: Settle,
) -> APIRouter:
    """Return the routes of presets.

    Args:
        books: the keeper.
        authenticate: lets any key in.
        decode: reads a body as a JSON object.
        forms: readers of bodies by the path of their form, such as ``chat/completions``.
        taken: returns names that no preset may have, because routing has them.
        changed: called after a change.
    """
    router = APIRouter(prefix="/api/v1/presets", tags=["presets"], responses=REFUSED)
    known = Depends(authenticate)
    _add_lookups(router, books, known)

    @router.delete("/{slug}", response_model=schemas.DeletedAnswer, summary="Delete a preset with all its versions")
    async def delete(slug: _Slug, workspace_id: _Team = None, caller: Principal = known) -> Response:
        await books.ask(methods.DELETE_PRESET, (_team(caller, workspace_id), slug))
        await changed()
        return answered({"deleted": True})

    def add(form: str, read: Read) -> None:
        @router.post(
            f"/{{slug}}/{form}",
            response_model=schemas.PresetAnswer,
            summary="Make a preset, or a new version of one, of a request",
            name=f"put_{form}",
            openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _ANY}}}},
        )
        async def put(request: Request, slug: _Slug, workspace_id: _Team = None, caller: Principal = known) -> Response:
            if slug in taken():
                raise BadRequest(f"{slug!r} is a policy of routing: choose another slug", param="slug")
            config, prompt = taken_from(decode(await received(request, MAX_BODY)), read)
            creator = key_hash(caller.key_id) if caller.key_id else "management"
            made = await books.ask(methods.PUT_PRESET, (_team(caller, workspace_id), slug, config, prompt, creator))
            await changed()
            return answered({"data": preset_data(made)})

    for form, read in forms.items():
        add(form, read)
    return router


def _add_lookups(router: APIRouter, books: Asking, known: Any) -> None:
    """Add what only reads; whoever is ``known`` may ask."""

    @router.get("", response_model=schemas.PresetsAnswer, summary="Presets, by slug")
    async def list_page(
        offset: Offset = 0, limit: Limit = 50, workspace_id: _Team = None, caller: Principal = known
    ) -> Response:
        team = workspace_id if caller.management else caller.team
        if workspace_id not in (None, team):
            raise NotFound("there is no such workspace", param="workspace_id")
        found, count = await books.ask(methods.PRESETS, (team, offset, limit))
        data = [preset_data(each) for each in found]
        for each in data:
            del each["designated_version"]
        return answered({"data": data, "total_count": count})

    @router.get("/{slug}", response_model=schemas.PresetAnswer, summary="A preset with the version that is used")
    async def get(slug: _Slug, workspace_id: _Team = None, caller: Principal = known) -> Response:
        found = await books.ask(methods.PRESET, (_team(caller, workspace_id), slug))
        return answered({"data": preset_data(found)})

    @router.get("/{slug}/versions", response_model=schemas.VersionsAnswer, summary="Versions, newest first")
    async def versions(
        slug: _Slug, offset: Offset = 0, limit: Limit = 50, workspace_id: _Team = None, caller: Principal = known
    ) -> Response:
        team = _team(caller, workspace_id)
        found, count = await books.ask(methods.PRESET_VERSIONS, (team, slug, offset, limit))
        return answered({"data": [version_data(team, slug, each) for each in found], "total_count": count})

    @router.get("/{slug}/versions/{version}", response_model=schemas.VersionAnswer, summary="One version")
    async def version(
        slug: _Slug,
        version: Annotated[int, Path(ge=1, le=1_000_000)],
        workspace_id: _Team = None,
        caller: Principal = known,
    ) -> Response:
        team = _team(caller, workspace_id)
        found = await books.ask(methods.PRESET_VERSION, (team, slug, version))
        return answered({"data": version_data(team, slug, found)})


_ANY: Final = {"type": "object", "description": "The body of a request of this form.", "additionalProperties": True}


def taken_from(body: dict[str, Any], read: Read) -> tuple[dict[str, Any], str]:
    """Return what of a request becomes a preset, and its system prompt. Raises ``BadRequest``."""
    model = body.get("model")
    if "preset" in body or (isinstance(model, str) and "@preset/" in model):
        raise BadRequest("a preset is not made of another one: name a model", param="model")
    # Readers may change what they read, and want a model, which a preset need not have.
    whole = copy.deepcopy(body)
    if model is None and not body.get("models"):
        whole["model"] = "any"
    read(whole)
    config = {name: value for name, value in body.items() if name not in _OF_REQUESTS}
    told = [*_spoken(body.get("messages")), *filter(None, (_text(body.get("system")), _text(body.get("instructions"))))]
    return config, "\n\n".join(told)


def _spoken(messages: Any) -> list[str]:
    """Return what messages tell the system before anybody else speaks."""
    found = []
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer"):
            break
        found.append(_text(message.get("content")))
    return [text for text in found if text]


def _text(content: Any) -> str:
    """Return the text of a content, a text or parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _team(caller: Principal, asked: str | None) -> str:
    """Return whose presets are meant. Raises ``NotFound`` for those of another team."""
    if caller.management:
        return asked or DEFAULT_TEAM
    if asked not in (None, caller.team):
        raise NotFound("there is no such preset", param="slug")
    return caller.team
