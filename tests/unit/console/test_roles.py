"""The table of roles and permissions, and what follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console.attempts import PER_LOGIN, WINDOW_S, Attempts
from gateway.console.roles import (
    GLOBAL_ROLES,
    PERMISSIONS,
    TEAM_ROLES,
    WHOLE,
    Grant,
    Permission,
    Reach,
    Role,
    fits,
    reach,
)
from gateway.types.errors import RateLimited

GRANTS = st.lists(
    st.one_of(
        st.builds(Grant, st.sampled_from(GLOBAL_ROLES)),
        st.builds(Grant, st.sampled_from(TEAM_ROLES), st.sampled_from(["a", "b"])),
    ),
    max_size=4,
)


def test_every_permission_has_a_row() -> None:
    """A permission that nobody thought of would be everybody's or nobody's."""
    assert set(PERMISSIONS) == set(Permission)
    assert all(Role.OWNER in roles for roles in PERMISSIONS.values())


@given(GRANTS, st.sampled_from(Permission))
def test_a_permission_reaches_what_a_grant_gives_and_no_more(grants: list[Grant], permission: Permission) -> None:
    """Everything only by a role everywhere; a team only by a role in it; nothing from nothing."""
    found = reach(grants, permission)
    held = [grant for grant in grants if grant.role in PERMISSIONS[permission]]
    assert found.everything == any(not grant.team for grant in held)
    for team in ("a", "b", "c"):
        in_team = any(grant.team == team for grant in held) and permission not in WHOLE
        assert found.covers(team) == (found.everything or in_team)
    assert found.covers("") == found.everything
    assert bool(found) == (found.everything or bool(found.teams))


def test_a_team_admin_has_nothing_that_belongs_to_no_team() -> None:
    """The fleet, prices, users and costs are not a team's."""
    grants = [Grant(Role.TEAM_ADMIN, "a")]
    for permission in WHOLE:
        assert reach(grants, permission) == Reach(False, frozenset())


def test_roles_are_given_where_they_mean_something() -> None:
    """No owner of a team, no team admin of everything."""
    assert [role for role in Role if fits(Grant(role))] == list(GLOBAL_ROLES)
    assert [role for role in Role if fits(Grant(role, "a"))] == list(TEAM_ROLES)


def test_guessing_is_stopped_and_forgotten_after_a_quarter_of_an_hour() -> None:
    """Failures of a login from an address count for a while; a success clears them; another login goes on."""
    attempts = Attempts()
    for _ in range(PER_LOGIN):
        attempts.admit("ada", "10.0.0.1", 100.0)
        attempts.failed("ada", "10.0.0.1", 100.0)
    with pytest.raises(RateLimited) as caught:
        attempts.admit("ada", "10.0.0.1", 101.0)
    assert caught.value.retry_after == pytest.approx(WINDOW_S - 1)
    attempts.admit("bob", "10.0.0.1", 101.0)
    attempts.admit("ada", "10.0.0.2", 101.0)
    attempts.admit("ada", "10.0.0.1", 100.0 + WINDOW_S)
    attempts.failed("eve", "10.0.0.3", 100.0)
    attempts.succeeded("eve", "10.0.0.3")
    attempts.admit("eve", "10.0.0.3", 100.0)


def test_an_address_that_tries_many_logins_is_stopped() -> None:
    """Trying one password at many logins is guessing too."""
    attempts = Attempts()
    for number in range(40):
        attempts.failed(f"user{number}", "10.0.0.1", 5.0)
    with pytest.raises(RateLimited):
        attempts.admit("anybody", "10.0.0.1", 6.0)
