"""Signing in through an identity provider: OpenID Connect, authorization code with PKCE, state and nonce.

What the way there must remember is in a cookie that scripts cannot read, for ten minutes: it binds the way back to the
browser that began. The id token's signature, issuer, audience, time and nonce are checked; whatever is wrong with what
the provider says is ``Forbidden`` with a sentence, and the details are in the log. The libraries are imported when
somebody comes this way.
"""

from __future__ import annotations

import time
from secrets import token_urlsafe
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import msgspec
from starlette.responses import Response

from dashboards import door
from dashboards.views.front import enter
from dashboards.visit import Page, Visit
from gateway.config.snapshot import OidcSpec
from gateway.console.question import SIGN_IN_IDENTITY, Identity
from gateway.console.roles import Grant, Role
from gateway.telemetry import logs
from gateway.types.errors import Forbidden, NotFound, Unavailable

START: Final = "/console/oidc/start"
BACK: Final = "/console/oidc/back"
COOKIE: Final = "weir_oidc"
LIFE_S: Final = 600
FRESH_S: Final = 3_600.0
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
"""Signatures that are taken: none with a shared secret, none without."""
_log: Final = logs.logger(__name__)


class Memory(msgspec.Struct, array_like=True, frozen=True):
    """What the way there must remember."""

    state: str
    nonce: str
    verifier: str
    next: str
    until: int


def _spec(visit: Visit) -> OidcSpec:
    spec = visit.site.config().console.oidc
    if spec is None:
        raise NotFound("there is no single sign-on here")
    return spec


def _here(visit: Visit, spec: OidcSpec) -> str:
    """Return the URL that the provider sends people back to."""
    root = spec.url or f"{'https' if door.secure(visit.request) else 'http'}://{visit.request.headers.get('host', '')}"
    return root + BACK


async def _metadata(visit: Visit, spec: OidcSpec) -> dict[str, Any]:
    """Return what the provider says of itself, and its keys under ``jwks``; asked for once an hour."""
    known: tuple[float, dict[str, Any]] | None = visit.site.shelf.get(f"oidc {spec.issuer}")
    if known is not None and time.monotonic() - known[0] < FRESH_S:
        return known[1]
    try:
        async with httpx.AsyncClient(timeout=10.0) as client:
            answer = await client.get(f"{spec.issuer}/.well-known/openid-configuration")
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            keys = await client.get(found["jwks_uri"])
            keys.raise_for_status()
            found["jwks"] = keys.json()
    except (httpx.HTTPError, KeyError, ValueError) as error:
        _log.warning("the identity provider cannot be asked", reason=f"{type(error).__name__}: {error}")
        raise Unavailable("the identity provider cannot be reached now") from None
    if found.get("issuer", "").rstrip("/") != spec.issuer:
        raise Forbidden("the identity provider calls itself something else than `console.oidc.issuer`")
    visit.site.shelf[f"oidc {spec.issuer}"] = (time.monotonic(), found)
    return found


async def start(visit: Visit) -> Response:
    """Send the browser to the provider."""
    spec = _spec(visit)
    found = await _metadata(visit, spec)
    from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415 - few gateways need it

    memory = Memory(
        token_urlsafe(24),
        token_urlsafe(24),
        token_urlsafe(48),
        door.local_path(visit.asked("next", "/console")),
        int(time.time()) + LIFE_S,
    )
    query = {
        "response_type": "code",
        "client_id": spec.client_id,
        "redirect_uri": _here(visit, spec),
        "scope": spec.scopes,
        "state": memory.state,
        "nonce": memory.nonce,
        "code_challenge": create_s256_code_challenge(memory.verifier),
        "code_challenge_method": "S256",
    }
    target = found["authorization_endpoint"]
    response = Response(
        status_code=303, headers={"location": f"{target}{'&' if '?' in target else '?'}{urlencode(query)}"}
    )
    door.keep(response, visit.request, COOKIE, msgspec.json.encode(memory).hex(), LIFE_S)
    return response


async def back(visit: Visit) -> Response:
    """Take the browser back from the provider and sign its person in."""
    spec = _spec(visit)
    try:
        memory = msgspec.json.decode(bytes.fromhex(visit.request.cookies.get(COOKIE, "")), type=Memory)
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise Forbidden("this sign-in did not begin in this browser: begin anew") from None
    query = visit.request.query_params
    if query.get("state") != memory.state or memory.until < time.time():
        raise Forbidden("this sign-in is too old or not yours: begin anew")
    if "code" not in query:
        raise Forbidden("the identity provider did not let you in")
    claims = await _claims(visit, spec, memory, query["code"])
    login = str(claims.get(spec.login_claim) or "")
    if not login or (spec.login_claim == "email" and claims.get("email_verified") is False):
        raise Forbidden("the identity provider gives no verified login")
    identity = Identity(
        subject=f"{spec.issuer} {claims['sub']}",
        login=login,
        name=str(claims.get("name") or login),
        grants=(Grant(Role(spec.role), spec.team if spec.role == "viewer" else ""),),
        create=spec.create,
        address=visit.address,
        agent=visit.request.headers.get("user-agent", ""),
    )
    response = enter(visit, await visit.site.books.ask(SIGN_IN_IDENTITY, (identity,)), memory.next)
    response.delete_cookie(COOKIE, path="/")
    return response


async def _claims(visit: Visit, spec: OidcSpec, memory: Memory, code: str) -> dict[str, Any]:
    """Return the claims of the id token that ``code`` is good for. Raises ``Forbidden`` and ``Unavailable``."""
    found = await _metadata(visit, spec)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": _here(visit, spec),
        "client_id": spec.client_id,
        "code_verifier": memory.verifier,
    }
    if spec.client_secret is not None:
        form["client_secret"] = spec.client_secret.reveal()
    try:
        async with httpx.AsyncClient(timeout=10.0) as client:
            answer = await client.post(found["token_endpoint"], data=form)
        token = answer.json()["id_token"]
    except httpx.HTTPError:
        raise Unavailable("the identity provider cannot be reached now") from None
    except (KeyError, TypeError, ValueError):
        _log.warning("the identity provider gave no id token", status=answer.status_code)
        raise Forbidden("the identity provider did not confirm the sign-in") from None
    return judged(token, found, spec, memory.nonce)


def judged(token: str, found: dict[str, Any], spec: OidcSpec, nonce: str) -> dict[str, Any]:
    """Return the claims of ``token`` if it is what the provider made for this sign-in. Raises ``Forbidden``."""
    from joserfc import jwk, jwt  # noqa: PLC0415 - few gateways need it
    from joserfc.errors import JoseError  # noqa: PLC0415 - as above

    rules = jwt.JWTClaimsRegistry(
        leeway=60,
        iss={"essential": True, "value": found["issuer"]},
        aud={"essential": True, "value": spec.client_id},
        exp={"essential": True},
        sub={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        claims = jwt.decode(token, jwk.KeySet.import_key_set(found["jwks"]), algorithms=ALGORITHMS).claims
        rules.validate(claims)
    except (JoseError, ValueError, KeyError) as error:
        _log.warning("an id token was refused", reason=f"{type(error).__name__}: {error}")
        raise Forbidden("the identity provider's answer cannot be trusted") from None
    return dict(claims)


PAGES: Final = (Page(START, start, None), Page(BACK, back, None))
