"""Management keys: the operator's key, keys with a role, and short-lived tokens for commands on the same host.

The operator's key is kept as a digest and compared in constant time. A local token proves knowledge of the
gateway's secret, which only the owner of the state folder can read, and lives at most a minute. Failures are
``Unauthorized``, and ``Forbidden`` for an inference key; nothing here logs or echoes a key.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Final

from gateway.access.keys import BAD_KEY, LONGEST_KEY, KeyRing, bearer_token, digest
from gateway.access.principal import Principal
from gateway.types.errors import Forbidden, Unauthorized

LOCAL_TOKEN_SECONDS: Final = 60
ADMIN_DIGEST_FILE: Final = "admin.digest"

_LOCAL: Final = re.compile(rb"weir-local-([0-9]{1,12})-([0-9a-f]{64})")
# NUL keeps this apart from every key text, so no chosen key's digest can serve as a token.
_LOCAL_CONTEXT: Final = b"\x00weir local operator\x00"


class RoleForbidden(Forbidden):
    """A management key has a role that may not do what is asked."""


_OPERATOR: Final = Principal(key_id="", team="", management=True)


def mint_local_token(pepper: bytes, now: float) -> str:
    """Return a management token for hosts with ``pepper``, good for a minute from ``now`` (Unix seconds)."""
    expiry = int(now) + LOCAL_TOKEN_SECONDS
    return f"weir-local-{expiry}-{_local_proof(pepper, expiry).hex()}"


def _local_proof(pepper: bytes, expiry: int) -> bytes:
    return hmac.digest(pepper, _LOCAL_CONTEXT + str(expiry).encode("ascii"), "sha256")


class ManagementKeys:
    """Checks management keys.

    Args:
        pepper: the gateway's secret.
        admin_digest: digest of the operator's key under ``pepper``, or None when there is none.
        inference: the ring of inference keys, so that each kind of key is told apart on the other's paths.
    """

    __slots__ = ("_admin_digest", "_inference", "_pepper", "_roles")

    def __init__(self, pepper: bytes, admin_digest: bytes | None = None, inference: KeyRing | None = None) -> None:
        self._pepper = pepper
        self._admin_digest = admin_digest
        self._inference = inference
        self._roles: Mapping[bytes, tuple[str, str]] = {}
        if inference is not None:
            inference.refuse_management(self.accepts)

    def learn(self, roles: Mapping[bytes, tuple[str, str]]) -> None:
        """Go by the keys with a role from now on: name and role by digest."""
        self._roles = roles

    def accepts(self, token: bytes, now_us: int) -> bool:
        """Return whether ``token`` is a management key of any kind at ``now_us`` (microseconds since 1970)."""
        return self.operates(token, now_us) or self._named(token) is not None

    def called(self, authorization: bytes | None, x_api_key: bytes | None = None) -> str:
        """Return what the audit log calls the management key that was presented."""
        if self._roles:
            with contextlib.suppress(Unauthorized):
                named = self._named(bearer_token(authorization, x_api_key))
                if named is not None:
                    return f"management key {named[0]}"
        return "management key"

    def _named(self, token: bytes) -> tuple[str, str] | None:
        """Return name and role of a key that has one."""
        if not self._roles or len(token) > LONGEST_KEY:
            return None
        return self._roles.get(digest(self._pepper, token))

    def operates(self, token: bytes, now_us: int) -> bool:
        """Return whether ``token`` is the operator's key, which may everything, or a local token."""
        if len(token) > LONGEST_KEY:
            return False
        known = self._admin_digest
        admin = known is not None and hmac.compare_digest(digest(self._pepper, token), known)
        return admin or self._is_local(token, now_us)

    def authenticate(
        self,
        authorization: bytes | None,
        now_us: int,
        *,
        x_api_key: bytes | None = None,
        allows: Callable[[str], bool] | None = None,
    ) -> Principal:
        """Return the management principal; arguments as of ``KeyRing.authenticate``.

        Args:
            authorization: see there.
            now_us: see there.
            x_api_key: see there.
            allows: whether a role may do what is asked; without it no key with a role may.

        Raises:
            Unauthorized: no key or a wrong one.
            RoleForbidden: a key whose role may not.
            Forbidden: an inference key.
        """
        token = bearer_token(authorization, x_api_key)
        if self.operates(token, now_us):
            return _OPERATOR
        named = self._named(token)
        if named is not None:
            if allows is None or not allows(named[1]):
                raise RoleForbidden(f"this management key has the role {named[1]}, which may not do that")
            return replace(_OPERATOR, role=named[1])
        if self._inference is not None and self._inference.recognises(token, now_us):
            raise Forbidden("inference keys cannot manage the gateway; use the management key")
        raise Unauthorized(BAD_KEY)

    def _is_local(self, token: bytes, now_us: int) -> bool:
        match = _LOCAL.fullmatch(token)
        if match is None:
            return False
        expiry = int(match[1])
        proven = hmac.compare_digest(_local_proof(self._pepper, expiry).hex().encode("ascii"), match[2])
        now = now_us / 1_000_000
        return proven and now < expiry <= now + LOCAL_TOKEN_SECONDS


def obtain_admin_digest(home: Path, pepper: bytes, admin_key: str | None) -> tuple[bytes, str | None]:
    """Return the digest of the operator's key, and the key itself when it was made just now.

    With ``admin_key`` it is that key's digest. Without, it is the one kept in ``home``; on the first start
    a key is made, only its digest is kept (mode 0600), and the caller shows the key once.

    Raises:
        OSError: ``home`` cannot be read or written.
        ValueError: the kept file is not a digest, or others may write it.
    """
    if admin_key is not None:
        return digest(pepper, admin_key.encode()), None
    path = home / ADMIN_DIGEST_FILE
    with contextlib.suppress(FileNotFoundError):
        return _kept_digest(path), None
    key = f"weir-admin-{token_hex(32)}"
    made = digest(pepper, key.encode("ascii"))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{made.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return _kept_digest(path), None
    finally:
        draft.unlink()
    return made, key


def _kept_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o022:
            raise ValueError(f"{path} may be written by others; `chmod 600 {path}`, or delete it for a new key")
        text = file.read(1024).decode("ascii", "replace").strip()
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise ValueError(f"{path} holds no key digest; delete it to get a new management key at the next start")
    return bytes.fromhex(text)
