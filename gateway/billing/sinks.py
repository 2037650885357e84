"""Sinks: where exports and notices go. Each takes an item at least once and knows it again by its id.

``Refused`` says that a sink will never take an item as it is; every other failure is ``Away`` and is tried again. No
message holds a secret. A file goes to the same name each time it is delivered, so a second delivery changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from gateway.billing.period import days_of
from gateway.config.snapshot import Secret, SinkSpec

TIMEOUT_S: Final = 30.0
REPLAY_WINDOW_S: Final = 300
"""How old a signature may be that a receiver of a webhook takes."""
STRIPE: Final = "https://api.stripe.com"
STRIPE_PAST_US: Final = 35 * 86_400 * 1_000_000
"""Stripe takes no event that is older."""


class Away(Exception):
    """The sink did not take it now."""


class Refused(Exception):
    """The sink will not take it, however often it is tried."""


def signature(secret: Secret, timestamp: int, body: bytes) -> str:
    """Return the signature of a webhook: ``t=<Unix seconds>,v1=<HMAC-SHA-256 of "<t>.<body>">``."""
    made = hmac.digest(secret.reveal().encode(), b"%d." % timestamp + body, "sha256").hex()
    return f"t={timestamp},v1={made}"


def put_in_folder(spec: SinkSpec, name: str, draft: Path) -> None:
    """Put a file into a folder, whole or not at all.

    Raises:
        Away: it cannot be written.
    """
    assert spec.path is not None
    target = Path(spec.path) / name
    beside = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(draft, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        raise Away(f"the folder cannot be written: {error.strerror}") from error


async def put_in_bucket(spec: SinkSpec, name: str, draft: Path) -> None:
    """Put a file into an S3 bucket, in parts when it is large.

    Raises:
        Away: the store did not take it.
    """
    # Heavy, and only for who has such a sink.
    import obstore  # noqa: PLC0415 - see above
    from obstore.exceptions import BaseError  # noqa: PLC0415 - see above
    from obstore.store import S3Store  # noqa: PLC0415 - see above

    assert spec.access_key is not None
    assert spec.secret_key is not None
    options: dict[str, Any] = {}
    if spec.url is not None:
        options["endpoint"] = spec.url
    try:
        store = S3Store(
            spec.bucket,
            region=spec.region,
            access_key_id=spec.access_key.reveal(),
            secret_access_key=spec.secret_key.reveal(),
            virtual_hosted_style_request=not spec.path_style,
            client_options={"allow_http": True, "timeout": timedelta(seconds=TIMEOUT_S)},
            retry_config={"max_retries": 0},
            **options,
        )
        await obstore.put_async(store, spec.prefix + name, draft)
    except BaseError as error:
        raise Away(_plain(str(error), spec)) from error


async def post_webhook(spec: SinkSpec, item: str, document: Mapping[str, Any], now_us: int) -> None:
    """Post a notice.

    Raises:
        Away: there was no answer of 2xx.
    """
    assert spec.url is not None
    assert spec.secret is not None
    body = msgspec.json.encode({"id": item, **document}, order="deterministic")
    headers = {
        "content-type": "application/json",
        "weir-delivery": item,
        "weir-signature": signature(spec.secret, now_us // 1_000_000, body),
    }
    status, _ = await _post(spec, spec.url, headers, body)
    if not 200 <= status < 300:
        raise Away(f"answered {status}")


async def report_to_stripe(spec: SinkSpec, item: str, document: Mapping[str, Any], now_us: int) -> None:
    """Report a team's total as a meter event.

    The value is a whole number: tokens, or millionths of a USD rounded half to even. The event's time is the end of the
    period. ``identifier`` is the item, by which Stripe knows a second delivery for at least a day; later ones are
    prevented by the outbox, which forgets nothing that was taken.

    Raises:
        Away: Stripe did not answer, was busy, or does not know the key.
        Refused: Stripe will not take the event.
    """
    assert spec.api_key is not None
    at_us = (days_of(str(document["period"]))[1] + 1) * 86_400_000_000 - 1_000_000
    if now_us - at_us > STRIPE_PAST_US:
        raise Refused("the period ended more than 35 days ago, which Stripe does not take")
    form = {
        "event_name": spec.event,
        "identifier": item,
        "timestamp": str(at_us // 1_000_000),
        "payload[stripe_customer_id]": str(document["customer"]),
        "payload[value]": str(document["value"]),
    }

    headers = {
        "authorization": f"Bearer {spec.api_key.reveal()}",
        "content-type": "application/x-www-form-urlencoded",
        "idempotency-key": item,
    }
    root = (spec.url or STRIPE).rstrip("/")
    status, said = await _post(spec, f"{root}/v1/billing/meter_events", headers, urlencode(form).encode())
    if status == 400 and b"already" in said and b"identifier" in said:
        return
    if status in {400, 402, 404, 422}:
        raise Refused(f"answered {status}: {_plain(said.decode('utf-8', 'replace'), spec)}")
    if not 200 <= status < 300:
        raise Away(f"answered {status}")


async def _post(spec: SinkSpec, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    # A keeper needs no HTTP client otherwise.
    import httpx  # noqa: PLC0415 - see above

    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            answer = await client.post(url, headers=dict(headers), content=body)
            return answer.status_code, answer.content[:4_096]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Away(_plain(f"{type(error).__name__}: {error}", spec)) from error


def micro_usd(nano: int) -> int:
    """Return nano-USD in millionths of a USD, rounded half to even."""
    micro, rest = divmod(nano, 1_000)
    return micro + (rest > 500 or (rest == 500 and micro & 1))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(text: str, spec: SinkSpec) -> str:
    """Return a message in one line, without secrets."""
    for secret in (spec.access_key, spec.secret_key, spec.secret, spec.api_key):
        if secret is not None:
            text = text.replace(secret.reveal(), "…")
    return " ".join(text.split())[:300]
