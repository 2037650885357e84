"""Who sees what of a board, and how often."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.access.principal import Principal
from gateway.config.schema import BoardsSection
from gateway.config.snapshot import BoardsSpec
from gateway.leaderboard.question import Visit
from gateway.leaderboard.rate import VisitBook
from gateway.leaderboard.view import View, view_of, visit_of
from gateway.types.errors import Forbidden, RateLimited, Unauthorized

OWNER = Principal("", "", management=True)
SEARCH = Principal("key00001", "search")
BOARDS = BoardsSpec(model="public", app="team", endpoint="private", team="team", keyless=True)


def test_the_owner_sees_everything() -> None:
    """With the management key every board is whole, or of any team."""
    assert view_of(OWNER, "endpoint", BOARDS) == View("", owner=True, approved=False)
    assert view_of(OWNER, "team", BOARDS, "other") == View("other", owner=True, approved=False)


def test_a_key_sees_public_boards_whole_and_its_own_team() -> None:
    """A team's key sees all of a public board, its own part of a team board, and nothing of a private one."""
    assert view_of(SEARCH, "model", BOARDS) == View("", owner=False, approved=True)
    assert view_of(SEARCH, "model", BOARDS, "search") == View("search", owner=False, approved=False)
    assert view_of(SEARCH, "app", BOARDS) == View("search", owner=False, approved=False)
    assert view_of(SEARCH, "team", BOARDS) == View("search", owner=False, approved=False)
    for by, team in (("endpoint", ""), ("endpoint", "search"), ("model", "other"), ("app", "other")):
        with pytest.raises(Forbidden):
            view_of(SEARCH, by, BOARDS, team)  # type: ignore[arg-type]


def test_without_a_key_only_public_boards_that_need_none() -> None:
    """Nobody sees a team without a key, nor a public board unless the owner says so."""
    assert view_of(None, "model", BOARDS) == View("", owner=False, approved=True)
    for by, team, boards in (("model", "search", BOARDS), ("app", "", BOARDS), ("model", "", BoardsSpec())):
        with pytest.raises(Unauthorized):
            view_of(None, by, boards, team)  # type: ignore[arg-type]


def test_keys_are_counted_by_key_and_team() -> None:
    """Callers without a key are counted by address, the owner not at all."""
    assert visit_of(OWNER, "::1", BOARDS) is None
    assert visit_of(SEARCH, "::1", BOARDS) == Visit("key key00001", "team search", 30, 500)
    assert visit_of(None, "::1", BOARDS) == Visit("address ::1", "address ::1", 30, 500)


def test_so_many_a_minute_and_a_day() -> None:
    """Who asks too often is told when there is room again, and may go on then."""
    book = VisitBook()
    visit = Visit("key a", "team t", 3, 5)
    start = 86_400.0 * 100
    for second in range(3):
        book.take(visit, start + second)
    with pytest.raises(RateLimited) as caught:
        book.take(visit, start + 10)
    assert caught.value.retry_after == 50
    book.take(visit, start + 60.5)
    book.take(Visit("key b", "team t", 3, 5), start + 61)
    with pytest.raises(RateLimited) as caught:
        book.take(Visit("key c", "team t", 3, 5), start + 70)
    assert caught.value.retry_after == 86_400 - 70
    book.take(Visit("key c", "team u", 3, 5), start + 70)
    book.take(visit, start + 86_400)


def test_the_board_of_teams_has_no_public_form() -> None:
    """The configuration refuses what would show one team to another."""
    assert BoardsSection().values() == BoardsSpec()
    with pytest.raises(ValidationError):
        BoardsSection(team="public")  # type: ignore[arg-type]
