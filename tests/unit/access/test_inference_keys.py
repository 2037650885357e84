"""Inference keys: what is accepted, what is refused, and what nobody learns."""

from __future__ import annotations

import hmac
import logging
import re
import traceback
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import (
    BAD_KEY,
    LONGEST_KEY,
    Digester,
    KeyRing,
    bearer_token,
    digest,
    key_id_of,
    label,
    new_key_id,
    new_key_text,
)
from gateway.access.management import ManagementKeys
from gateway.types.errors import Forbidden, Unauthorized, WeirError
from gateway.types.keys import KeyLimits, KeyRecord

PEPPER = b"pepper of the tests"
NOW = 1_800_000_000_000_000


def record(text: str, **changes: object) -> KeyRecord:
    """Return the record under which the store would keep ``text``."""
    fields: dict[str, object] = {
        "key_id": key_id_of(text),
        "name": "a key",
        "digest": digest(PEPPER, text.encode()),
        "team": "default",
        "created_at": NOW,
    }
    return KeyRecord(**(fields | changes))  # type: ignore[arg-type]  # fields of the tests' choice


def ring_of(*records: KeyRecord) -> KeyRing:
    """Return a ring that holds ``records``."""
    ring = KeyRing(PEPPER)
    ring.load(records)
    return ring


def bearer(text: str) -> bytes:
    """Return the Authorization header for ``text``."""
    return b"Bearer " + text.encode()


def test_a_made_key_has_the_documented_form_and_is_random() -> None:
    """Keys read sk-weir-, 8 of a-z0-9, a dash and 64 hex digits, and no two are equal."""
    texts = {new_key_text(new_key_id()) for _ in range(200)}
    assert len(texts) == 200
    assert all(re.fullmatch(r"sk-weir-[a-z0-9]{8}-[0-9a-f]{64}", text) for text in texts)


def test_the_holder_of_a_key_is_told_with_team_models_and_limits() -> None:
    """Authentication gives the principal that the key's record describes."""
    text = new_key_text("abcd1234")
    ring = ring_of(record(text, team="research", models=("m/one",), limits=KeyLimits(rpm=3)))
    principal = ring.authenticate(bearer(text), NOW)
    assert (principal.key_id, principal.team, principal.management) == ("abcd1234", "research", False)
    assert principal.limits == KeyLimits(rpm=3)
    assert principal.may_use("m/one")
    assert not principal.may_use("m/two")


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
def test_the_scheme_is_case_insensitive(scheme: bytes) -> None:
    """Any spelling of Bearer works, with more than one space too."""
    text = new_key_text("abcd1234")
    ring = ring_of(record(text))
    assert ring.authenticate(scheme + b"  " + text.encode() + b" ", NOW).key_id == "abcd1234"


def test_the_x_api_key_header_works_when_there_is_no_bearer_token() -> None:
    """x-api-key is accepted; a bearer token goes first; another scheme does not hide x-api-key."""
    text, other = new_key_text("abcd1234"), new_key_text("zzzz9999")
    ring = ring_of(record(text), record(other))
    assert ring.authenticate(None, NOW, x_api_key=text.encode()).key_id == "abcd1234"
    assert ring.authenticate(bearer(other), NOW, x_api_key=text.encode()).key_id == "zzzz9999"
    assert ring.authenticate(b"Basic Zm9v", NOW, x_api_key=text.encode()).key_id == "abcd1234"


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"   ", b"Basic Zm9v", b"sk-weir-x"])
def test_without_a_key_the_message_says_how_to_send_one(header: bytes | None) -> None:
    """A missing key is 401 with the mend."""
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        ring_of().authenticate(header, NOW)


def test_unknown_wrong_and_revoked_keys_cannot_be_told_apart() -> None:
    """One message for all three, so that nobody learns which ids exist."""
    known, revoked = new_key_text("abcd1234"), new_key_text("eeee0000")
    ring = ring_of(record(known), record(revoked))
    ring.apply([record(revoked, revoked_at=NOW)])
    wrong = new_key_text("abcd1234")
    for text in (new_key_text("unknown0"), wrong, revoked, "a-free-form-key-that-nobody-made"):
        with pytest.raises(Unauthorized) as caught:
            ring.authenticate(bearer(text), NOW)
        assert str(caught.value) == BAD_KEY


def test_an_expired_or_disabled_key_is_said_to_be_so_only_to_its_holder() -> None:
    """The state of a key is told after its secret matched, never for a guess with the right id."""
    expired, disabled = new_key_text("abcd1234"), new_key_text("eeee0000")
    ring = ring_of(record(expired, expires_at=NOW), record(disabled, disabled=True))
    with pytest.raises(Unauthorized, match="expired"):
        ring.authenticate(bearer(expired), NOW)
    assert ring.authenticate(bearer(expired), NOW - 1).key_id == "abcd1234"
    with pytest.raises(Unauthorized, match="disabled"):
        ring.authenticate(bearer(disabled), NOW)
    for guess in (new_key_text("abcd1234"), new_key_text("eeee0000")):
        with pytest.raises(Unauthorized) as caught:
            ring.authenticate(bearer(guess), NOW)
        assert str(caught.value) == BAD_KEY


def test_the_previous_secret_works_until_its_overlap_ends() -> None:
    """After a rotation both secrets work, then only the new one."""
    old, new = new_key_text("abcd1234"), new_key_text("abcd1234")
    rotated = record(new, previous_digest=digest(PEPPER, old.encode()), previous_until=NOW + 1000)
    ring = ring_of(rotated)
    assert ring.authenticate(bearer(old), NOW + 999).key_id == "abcd1234"
    assert ring.authenticate(bearer(new), NOW + 5000).key_id == "abcd1234"
    with pytest.raises(Unauthorized):
        ring.authenticate(bearer(old), NOW + 1000)


@pytest.mark.parametrize(
    "text",
    [
        "correct horse battery",
        "sk-weir-abcd1234-tooshort",
        "sk-weir-ABCD1234-" + "a" * 64,
        "schlüssel-für-alle",
    ],
)
def test_a_key_chosen_by_the_operator_is_accepted_as_it_is(text: str) -> None:
    """Any text works as a key; its id is eight of a-z0-9, stable, and not part of the text."""
    key_id = key_id_of(text)
    assert re.fullmatch(r"[a-z0-9]{8}", key_id)
    assert key_id == key_id_of(text)
    assert key_id not in text
    assert ring_of(record(text)).authenticate(bearer(text), NOW).key_id == key_id


def test_a_management_key_on_an_inference_path_is_forbidden() -> None:
    """403 with a reason, not 401: the key is good, but not for this."""
    ring = KeyRing(PEPPER)
    ManagementKeys(PEPPER, digest(PEPPER, b"m" * 40), ring)
    with pytest.raises(Forbidden, match="management keys cannot run inference"):
        ring.authenticate(b"Bearer " + b"m" * 40, NOW)
    with pytest.raises(Unauthorized):
        ring.authenticate(b"Bearer " + b"n" * 40, NOW)


def test_an_absurdly_long_token_is_simply_wrong() -> None:
    """A token longer than any key is refused like every wrong one."""
    with pytest.raises(Unauthorized) as caught:
        ring_of().authenticate(b"Bearer " + b"x" * (LONGEST_KEY + 1), NOW)
    assert str(caught.value) == BAD_KEY


def test_loading_replaces_everything() -> None:
    """What is not in a load is not accepted any more."""
    first, second = new_key_text("abcd1234"), new_key_text("eeee0000")
    ring = ring_of(record(first))
    ring.load([record(second)])
    assert len(ring) == 1
    with pytest.raises(Unauthorized):
        ring.authenticate(bearer(first), NOW)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_fast_digest_is_the_stored_one(pepper: bytes, secret: bytes) -> None:
    """The hot path computes HMAC-SHA-256, for peppers and keys of any length."""
    expected = hmac.digest(pepper, secret, "sha256")
    assert Digester(pepper).digest(secret) == expected == digest(pepper, secret)


def test_a_label_names_the_key_and_holds_nothing_of_its_secret() -> None:
    """The masked form has the public id only."""
    text = new_key_text("abcd1234")
    assert label("abcd1234") == "sk-weir-abcd1234-..."
    assert text[17:] not in label("abcd1234")


def test_no_key_shows_up_in_errors_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Refusing a key neither logs nor echoes it, in the message, the repr or the metadata."""
    caplog.set_level(logging.DEBUG)
    text = new_key_text("abcd1234")
    for ring in (ring_of(), ring_of(record(text, disabled=True)), ring_of(record(text, expires_at=1))):
        with pytest.raises(Unauthorized) as caught:
            ring.authenticate(bearer(text), NOW)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(ring)
        assert text[17:] not in shown + str(caught.value.metadata)
    assert text[17:] not in caplog.text


@given(st.one_of(st.none(), st.binary(max_size=700)), st.one_of(st.none(), st.binary(max_size=700)))
def test_any_header_is_either_refused_as_unauthorized_or_forbidden(
    authorization: bytes | None, api_key: bytes | None
) -> None:
    """No bytes in the headers raise anything else."""
    ring = ring_of(record(new_key_text("abcd1234")))
    ManagementKeys(PEPPER, None, ring)
    with pytest.raises(WeirError) as caught:
        ring.authenticate(authorization, NOW, x_api_key=api_key)
    assert caught.value.code in (401, 403)


@given(st.text(min_size=1, max_size=100))
def test_every_text_without_outer_space_can_be_a_key(text: str) -> None:
    """Store and ring derive the same id from the same text, whatever it is."""
    token = text.encode("utf-8", "ignore")
    if token != token.strip() or not token:
        return
    chosen = token.decode()
    assert ring_of(record(chosen)).authenticate(b"Bearer " + token, NOW).key_id == key_id_of(chosen)
    assert bearer_token(b"Bearer " + token) == token


def test_a_principal_is_renewed_only_while_nothing_about_its_key_has_changed() -> None:
    """What was authenticated once holds until the key changes, expires, or has two texts that are both in force."""
    text = new_key_text("abcd1234")
    record = KeyRecord("abcd1234", "n", digest(PEPPER, text.encode()), "t", created_at=0, expires_at=100)
    ring = KeyRing(PEPPER)
    ring.load([record])
    principal = ring.authenticate(f"Bearer {text}".encode(), 50)
    assert ring.still(principal, 99)
    assert not ring.still(principal, 100)
    ring.apply([record])
    assert not ring.still(principal, 50)

    for changes in ({"revoked_at": 60}, {"disabled": True}, {"previous_digest": b"p" * 32, "previous_until": 90}):
        ring.load([record])
        principal = ring.authenticate(f"Bearer {text}".encode(), 50)
        ring.apply([msgspec.structs.replace(record, **changes)])
        assert not ring.still(principal, 61)
        with suppress(Unauthorized):
            assert not ring.still(ring.authenticate(f"Bearer {text}".encode(), 61), 61)
