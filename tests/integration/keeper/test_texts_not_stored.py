"""Text with the one character that PostgreSQL does not store is a bad request of whoever sent it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.keeper.service import Keeper
from gateway.leaderboard.question import DAYS, Days
from gateway.types.budgets import DELETE_BUDGET
from gateway.types.errors import BadRequest
from gateway.types.keys import NewKey
from tests.fakes.ledgers import furnish


async def test_a_text_that_cannot_be_stored_is_a_bad_request(tmp_path: Path, postgres_url: str) -> None:
    """It was an internal error, in what is read as in what is written; what comes next is as ever."""
    furnish(tmp_path)
    keeper = Keeper(tmp_path, postgres_url, b"pepper")
    await keeper.start()
    try:
        with pytest.raises(BadRequest, match=r"U\+0000"):
            await keeper.ask(DELETE_BUDGET, ("x\0y",))
        with pytest.raises(BadRequest, match=r"U\+0000"):
            await keeper.create_key(NewKey(name="x", team="default", creator="x\0y"))
        with pytest.raises(BadRequest, match=r"U\+0000"):
            await keeper.ask(DAYS, (Days(20_000, 20_001, "x\0y"),))
        assert (await keeper.create_key(NewKey(name="x", team="default"))).record.name == "x"
    finally:
        await keeper.stop()
