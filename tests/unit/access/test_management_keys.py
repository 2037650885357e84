"""Management keys: the operator's key, local tokens, and how they stay apart from inference keys."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import BAD_KEY, KeyRing, digest, new_key_text
from gateway.access.management import (
    ADMIN_DIGEST_FILE,
    LOCAL_TOKEN_SECONDS,
    ManagementKeys,
    mint_local_token,
    obtain_admin_digest,
)
from gateway.types.errors import Forbidden, Unauthorized
from gateway.types.keys import KeyRecord

PEPPER = b"pepper of the tests"
ADMIN = "an operator's key of forty characters ..."
NOW = 1_800_000_000
NOW_US = NOW * 1_000_000


def keys(inference: KeyRing | None = None) -> ManagementKeys:
    """Return the checker with the tests' operator key."""
    return ManagementKeys(PEPPER, digest(PEPPER, ADMIN.encode()), inference)


def test_the_operators_key_is_accepted_in_either_header() -> None:
    """The management principal has no team and no key id."""
    for found in (
        keys().authenticate(b"Bearer " + ADMIN.encode(), NOW_US),
        keys().authenticate(None, NOW_US, x_api_key=ADMIN.encode()),
    ):
        assert found.management
        assert (found.key_id, found.team) == ("", "")


def test_wrong_and_missing_keys_are_unauthorized() -> None:
    """401 for both, with the one message for a wrong key."""
    with pytest.raises(Unauthorized, match="no API key"):
        keys().authenticate(None, NOW_US)
    with pytest.raises(Unauthorized) as caught:
        keys().authenticate(b"Bearer " + ADMIN[:-1].encode(), NOW_US)
    assert str(caught.value) == BAD_KEY


def test_without_an_operator_key_nothing_but_a_local_token_works() -> None:
    """No key configured does not mean that an empty or any key is accepted."""
    closed = ManagementKeys(PEPPER)
    for guess in (b"", b"None", b"\x00" * 32, ADMIN.encode()):
        with pytest.raises(Unauthorized):
            closed.authenticate(b"Bearer " + guess, NOW_US)
    assert closed.authenticate(b"Bearer " + mint_local_token(PEPPER, NOW).encode(), NOW_US).management


def test_an_inference_key_on_a_management_path_is_forbidden() -> None:
    """403 for a good inference key, 401 for a guess that only looks like one."""
    text = new_key_text("abcd1234")
    ring = KeyRing(PEPPER)
    ring.load(
        [
            KeyRecord(
                key_id="abcd1234",
                name="k",
                digest=digest(PEPPER, text.encode()),
                team="default",
                created_at=0,
            )
        ]
    )
    management = keys(ring)
    with pytest.raises(Forbidden, match="inference keys cannot manage"):
        management.authenticate(b"Bearer " + text.encode(), NOW_US)
    with pytest.raises(Unauthorized):
        management.authenticate(b"Bearer " + new_key_text("abcd1234").encode(), NOW_US)


def test_a_local_token_lives_for_a_minute_and_no_longer() -> None:
    """It works from when it is made until its expiry, and one that expires later than a minute is refused."""
    token = b"Bearer " + mint_local_token(PEPPER, NOW).encode()
    last = (NOW + LOCAL_TOKEN_SECONDS) * 1_000_000
    assert keys().authenticate(token, NOW_US).management
    assert keys().authenticate(token, last - 1).management
    for moment in (last, last + 1, NOW_US - 1_000_000):
        with pytest.raises(Unauthorized):
            keys().authenticate(token, moment)


@given(st.integers(min_value=0, max_value=200), st.sampled_from("0123456789abcdefx-"))
def test_a_changed_local_token_is_refused(position: int, letter: str) -> None:
    """Changing any character of a token makes it worthless."""
    token = mint_local_token(PEPPER, NOW)
    at = position % len(token)
    changed = token[:at] + letter + token[at + 1 :]
    management = keys()
    assert management.accepts(changed.encode(), NOW_US) == (changed == token)


def test_a_local_token_of_another_secret_is_refused() -> None:
    """Only the owner of the gateway's secret can mint."""
    assert not keys().accepts(mint_local_token(b"another", NOW).encode(), NOW_US)


def test_the_first_start_makes_a_key_shows_it_once_and_keeps_its_digest(tmp_path: Path) -> None:
    """Later starts get the same digest and never the key, whose text is nowhere on disk."""
    first, key = obtain_admin_digest(tmp_path, PEPPER, None)
    assert key is not None
    assert len(key) >= 32
    assert obtain_admin_digest(tmp_path, PEPPER, None) == (first, None)
    assert ManagementKeys(PEPPER, first).accepts(key.encode(), NOW_US)
    kept = tmp_path / ADMIN_DIGEST_FILE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [ADMIN_DIGEST_FILE]
    assert key not in kept.read_text()


def test_a_given_operator_key_goes_before_the_kept_one(tmp_path: Path) -> None:
    """With WEIR_ADMIN_KEY nothing is made or kept."""
    assert obtain_admin_digest(tmp_path, PEPPER, ADMIN) == (digest(PEPPER, ADMIN.encode()), None)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_digest_that_others_may_write_or_that_is_damaged_is_refused(tmp_path: Path) -> None:
    """Whoever can write the file could make themselves the operator; the error says what to do."""
    obtain_admin_digest(tmp_path, PEPPER, None)
    kept = tmp_path / ADMIN_DIGEST_FILE
    kept.chmod(0o620)
    with pytest.raises(ValueError, match="chmod 600"):
        obtain_admin_digest(tmp_path, PEPPER, None)
    kept.chmod(0o600)
    for damage in ("", "00", "z" * 64):
        kept.write_text(damage)
        with pytest.raises(ValueError, match="delete it"):
            obtain_admin_digest(tmp_path, PEPPER, None)
