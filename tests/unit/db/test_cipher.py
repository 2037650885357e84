"""Records are sealed so that only the same secret, and only for the same place, opens them."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from gateway.db.cipher import Cipher, Unsealable

PEPPER = b"p" * 32


@given(st.binary(max_size=400), st.binary(max_size=60))
def test_what_was_sealed_opens(plain: bytes, context: bytes) -> None:
    """Any bytes come back whole, and do not stand in what is stored."""
    sealed = Cipher(PEPPER).seal(plain, context)
    assert Cipher(PEPPER).open(sealed, context) == plain
    assert len(plain) < 8 or plain not in sealed


def test_two_seals_of_one_text_differ() -> None:
    """Nobody sees from the stored bytes that two records say the same."""
    cipher = Cipher(PEPPER)
    assert cipher.seal(b"same", b"c") != cipher.seal(b"same", b"c")


@pytest.mark.parametrize("secret", [b"q" * 32, b"p" * 31])
def test_another_secret_opens_nothing(secret: bytes) -> None:
    """A record of another secret is refused."""
    with pytest.raises(Unsealable):
        Cipher(secret).open(Cipher(PEPPER).seal(b"text", b"c"), b"c")


def test_a_record_stays_in_its_place() -> None:
    """A record moved to another id or tenant is refused."""
    with pytest.raises(Unsealable):
        Cipher(PEPPER).open(Cipher(PEPPER).seal(b"text", b"response:1"), b"response:2")


@given(st.data())
def test_damage_is_noticed(data: st.DataObject) -> None:
    """A record with any one bit turned, or cut anywhere, is refused."""
    sealed = Cipher(PEPPER).seal(b"the text of a caller", b"c")
    place = data.draw(st.integers(0, len(sealed) - 1))
    turned = sealed[:place] + bytes([sealed[place] ^ (1 << data.draw(st.integers(0, 7)))]) + sealed[place + 1 :]
    for bad in (turned, sealed[:place]):
        with pytest.raises(Unsealable):
            Cipher(PEPPER).open(bad, b"c")


def test_keys_are_derived_as_the_standard_says() -> None:
    """The key of a record is HKDF-SHA-256 (RFC 5869) as another implementation computes it."""
    salt = b"s" * 16
    root = hmac.digest(b"weir sealing v1", PEPPER, "sha256")
    info = b"weir record v1" + salt
    assert Cipher(PEPPER)._key(salt) == HKDFExpand(SHA256(), 32, info).derive(root)
    assert Cipher(PEPPER)._key(salt) == HKDF(SHA256(), 32, b"weir sealing v1", info).derive(PEPPER)


def test_no_secret_is_refused() -> None:
    """An empty secret would be a key that everybody knows."""
    with pytest.raises(ValueError, match="secret"):
        Cipher(b"")
