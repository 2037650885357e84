"""Management keys: keys of the API with a role, which may do no more than a person with that role everywhere.

A key is shown when it is made, and never again. Owners alone make or revoke keys that may what owners may.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from dashboards import forms
from dashboards.visit import Page, Visit
from gateway.console.question import CREATE_MANAGEMENT_KEY, MANAGEMENT_KEYS, REVOKE_MANAGEMENT_KEY
from gateway.console.roles import GLOBAL_ROLES, Permission, Role
from gateway.types.errors import BadRequest, Forbidden, NotFound

PATH: Final = "/console/keys/management"


async def listed(visit: Visit) -> Response:
    """List them."""
    return await _listed(visit, {})


async def _listed(
    visit: Visit, errors: dict[str, str], status: int = 200, *, key: str = "", name: str = ""
) -> Response:
    return visit.render(
        "management_keys.html",
        status=status,
        keys=await visit.site.books.ask(MANAGEMENT_KEYS),
        roles=[("", "choose"), *((role.value, role.value) for role in GLOBAL_ROLES if _may(visit, role.value))],
        may_touch=lambda role: _may(visit, role),
        errors=errors,
        form=visit.form,
        key=key,
        name=name,
        done=visit.asked("done"),
    )


def _may(visit: Visit, role: str) -> bool:
    return role != Role.OWNER.value or visit.may(Permission.OWNERS_CHANGE)


async def create(visit: Visit) -> Response:
    """Make a key and show it."""
    name, role = visit.form.get("name", ""), visit.form.get("role", "")
    if not _may(visit, role):
        raise Forbidden("owners alone make keys that may what owners may")
    try:
        issued = await visit.site.books.ask(CREATE_MANAGEMENT_KEY, (name, role))
    except BadRequest as error:
        return await _listed(visit, forms.problem(error, "name"), 400)
    visit.form = {}
    return await _listed(visit, {}, key=issued.key, name=issued.record.name)


async def revoke(visit: Visit) -> Response:
    """Revoke a key for good."""
    key_id = visit.form.get("key", "")
    found = next((each for each in await visit.site.books.ask(MANAGEMENT_KEYS) if each.key_id == key_id), None)
    if found is None:
        raise NotFound("there is no such management key")
    if not _may(visit, found.role):
        raise Forbidden("owners alone revoke keys that may what owners may")
    await visit.site.books.ask(REVOKE_MANAGEMENT_KEY, (key_id,))
    return visit.go(PATH, done="revoked")


PAGES: Final = (
    Page(PATH, listed, Permission.USERS_CHANGE),
    Page(PATH, create, Permission.USERS_CHANGE, ("POST",)),
    Page(f"{PATH}/revoke", revoke, Permission.USERS_CHANGE, ("POST",)),
)
