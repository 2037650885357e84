"""Who may see what of a board.

A public board is shown whole to any key, and to callers without one when the owner says so. A team board shows a team
its own part. A private board is the owner's. Nobody but the owner is ever shown another team or its keys, so the board
of teams has no public form. Raises ``Unauthorized`` without a key, ``Forbidden`` with one that is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.access.principal import Principal
from gateway.config.snapshot import BoardsSpec
from gateway.leaderboard.question import By, Visit
from gateway.types.errors import Forbidden, Unauthorized


@dataclass(frozen=True, slots=True)
class View:
    """What a caller is shown.

    Attributes:
        team: only this team's usage; ``""`` for all.
        owner: whether it is the owner who looks: costs and apps that nobody approved are shown too.
        approved: whether apps that nobody approved are not named.
    """

    team: str
    owner: bool
    approved: bool


def view_of(caller: Principal | None, by: By, boards: BoardsSpec, team: str = "") -> View:
    """Return what ``caller`` is shown of the board ``by``.

    Args:
        caller: who asks, or None without a key.
        by: the board.
        boards: the owner's rules.
        team: the team that the caller asks for, ``""`` for as much as there is.
    """
    if caller is not None and caller.management:
        return View(team, owner=True, approved=False)
    visibility = getattr(boards, by)
    if caller is None:
        if visibility == "public" and boards.keyless and not team:
            return View("", owner=False, approved=True)
        raise Unauthorized("this board needs a key: send `Authorization: Bearer <key>`")
    if visibility == "private":
        raise Forbidden(f"the board by {by} is shown to the owner of the gateway alone")
    if team and team != caller.team:
        raise Forbidden("a key is shown its own team alone")
    scope = caller.team if team or visibility == "team" else ""
    # A team may know what its own requests called themselves.
    return View(scope, owner=False, approved=not scope)


def visit_of(caller: Principal | None, address: str, boards: BoardsSpec) -> Visit | None:
    """Return how a caller is counted; None for the owner, who is not."""
    if caller is None:
        who = f"address {address}"
        return Visit(who, who, boards.per_minute, boards.per_day)
    if caller.management:
        return None
    return Visit(f"key {caller.key_id}", f"team {caller.team}", boards.per_minute, boards.per_day)
