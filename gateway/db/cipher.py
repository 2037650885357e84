"""Encryption of what callers wrote and of the keys of teams, at rest: AES-256-GCM under keys made of the secret.

``WEIR_SECRET`` (the pepper) gives one root (HKDF-Extract, RFC 5869) and each sealing a key of its own (HKDF-Expand over
a random salt), so that no number of records wears a key out. The context, such as ``b"response:" + id``, is
authenticated with it: what was sealed for one place cannot be put into another. Whoever changes the secret can no
longer open what was sealed under the old one.

A sealed record is ``version (1) | salt (16) | nonce (12) | ciphertext and tag``.
"""

from __future__ import annotations

import hmac
import os
from typing import Final

VERSION: Final = b"\x01"
_SALT: Final = 16
_NONCE: Final = 12
_HEAD: Final = 1 + _SALT + _NONCE
_TAG: Final = 16
_ROOT: Final = b"weir sealing v1"
_KEY: Final = b"weir record v1"


class Unsealable(ValueError):
    """What was to be opened is damaged, of another place, of another secret, or of a version that is not known."""


class Cipher:
    """Seals and opens records under one secret.

    Args:
        pepper: the gateway's secret; not empty.
    """

    __slots__ = ("_root",)

    def __init__(self, pepper: bytes) -> None:
        if not pepper:
            raise ValueError("there is no encryption without a secret")
        self._root = hmac.digest(_ROOT, pepper, "sha256")

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Return ``plain`` encrypted for the place ``context``."""
        # It brings OpenSSL, which a process that seals nothing does without.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - loaded with the first record

        salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
        return VERSION + salt + nonce + AESGCM(self._key(salt)).encrypt(nonce, plain, VERSION + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return what was sealed for ``context``. Raises ``Unsealable``."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - loaded with the first record
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

        if len(sealed) < _HEAD + _TAG or sealed[:1] != VERSION:
            raise Unsealable("this is no sealed record of a known version")
        salt, nonce = sealed[1 : 1 + _SALT], sealed[1 + _SALT : _HEAD]
        try:
            return AESGCM(self._key(salt)).decrypt(nonce, sealed[_HEAD:], VERSION + context)
        except InvalidTag:
            raise Unsealable("the record is damaged, of another place, or of another secret") from None

    def _key(self, salt: bytes) -> bytes:
        """Return the 32 bytes of key that belong to ``salt``: one block of HKDF-Expand."""
        return hmac.digest(self._root, _KEY + salt + b"\x01", "sha256")
