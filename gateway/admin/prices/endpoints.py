"""Routes of price management: ``/api/v1/prices``, for management keys only. Errors are ``WeirError``."""

from __future__ import annotations

import time
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query

from gateway.access.management import ManagementKeys
from gateway.admin.body import documented, reader
from gateway.admin.door import management_only
from gateway.admin.prices.schemas import LinesAnswer, MarginAnswer, NewVersionBody, VersionAnswer, VersionsAnswer
from gateway.tariff.form import day_of, proposal_of, version_form
from gateway.tariff.margin import ALLOCATION, MARGIN
from gateway.tariff.report import allocation_form, margin_form
from gateway.tariff.version import ACCEPT, TARIFF, VERSIONS, Kind, VersionQuery, standing
from gateway.types.method import Asking

MOST: Final = 1_000
_New = Annotated[NewVersionBody, Depends(reader(NewVersionBody))]
_First = Annotated[str, Query(alias="from", description="First UTC day, such as 2026-11-01.")]
_Last = Annotated[str, Query(alias="to", description="Last UTC day.")]


def build_router(books: Asking, management: ManagementKeys) -> APIRouter:
    """Return the routes of price management.

    Args:
        books: the keeper.
        management: the keys that may use the routes.
    """
    router = APIRouter(
        prefix="/api/v1/prices",
        tags=["prices"],
        dependencies=management_only(management),
        responses={"4XX": {"description": "Refused; `error.message` says why."}},
    )

    @router.get("")
    async def list_versions(
        kind: Kind | None = None,
        model: str | None = None,
        place: str | None = None,
        history: bool = False,
        before: Annotated[int, Query(ge=0, le=2**62)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST)] = MOST,
    ) -> VersionsAnswer:
        """List versions that are valid or will be, or with `history` all there ever were, newest first."""
        if not history:
            known = await books.ask(TARIFF, (0,))
            found = [
                version
                for version in standing(known.versions if known is not None else (), time.time_ns() // 1000)
                if (kind is None or version.kind is kind)
                and (model is None or version.model == model)
                and (place is None or version.place == place)
            ]
            found.sort(key=lambda version: -version.version_id)
            return VersionsAnswer(data=[version_form(version) for version in found], next=None)
        query = VersionQuery(
            kind=kind.value if kind is not None else None, model=model, place=place, before=before, limit=limit
        )
        page = await books.ask(VERSIONS, (query,))
        after = page[-1].version_id if len(page) == limit else None
        return VersionsAnswer(data=[version_form(version) for version in page], next=after)

    @router.post("", status_code=201, openapi_extra=documented(NewVersionBody))
    async def accept(body: _New) -> VersionAnswer:
        """Make a version. Requests that run keep the price they were opened with."""
        made = await books.ask(ACCEPT, ((proposal_of(body.wanted(), who="management key", source="api"),),))
        return VersionAnswer(data=version_form(made[0]))

    _report(router, books)
    return router


def _report(router: APIRouter, books: Asking) -> None:
    """Add the reports to ``router``."""

    @router.get("/margin")
    async def margin(first: _First, last: _Last) -> MarginAnswer:
        """What was charged and what it cost, per day, model and endpoint, with idle hours of machines."""
        lines = await books.ask(MARGIN, (day_of(first, "from"), day_of(last, "to")))
        return MarginAnswer(**margin_form(lines))

    @router.get("/allocation")
    async def allocation(first: _First, last: _Last, backend: str | None = None) -> LinesAnswer:
        """What the hours of own machines cost, and what they were used for."""
        hours = day_of(first, "from") * 24, day_of(last, "to") * 24 + 23
        lines = await books.ask(ALLOCATION, (*hours, backend))
        return LinesAnswer(data=allocation_form(lines))
