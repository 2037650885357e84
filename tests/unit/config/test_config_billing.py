"""The section `billing`: secrets only as references, and sinks whose keys go together."""

from __future__ import annotations

import pytest

from tests.unit.config.example import ENVIRON, Loader, Refuser

NAME = next(iter(ENVIRON))
SINKS = f"""
billing:
  issuer: Example Ltd
  close_after_hours: 48
  sinks:
    - {{name: archive, kind: folder, path: /srv/bills, exports: [usage], format: parquet}}
    - {{name: bucket, kind: s3, bucket: b, access_key: "${{{NAME}}}", secret_key: "${{{NAME}}}"}}
    - {{name: hook, kind: webhook, url: https://example.org/hook, secret: "${{{NAME}}}"}}
    - {{name: stripe, kind: stripe, api_key: "${{{NAME}}}", customers: {{search: cus_1}}}}
"""


def test_sinks_are_read_with_their_secrets(accept: Loader, example: str) -> None:
    """Secrets come from where the references lead, and no text of the snapshot shows them."""
    billing = accept(example + SINKS).billing
    assert (billing.issuer, billing.close_after_s) == ("Example Ltd", 172_800.0)
    archive, bucket, hook, stripe = billing.sinks
    assert (archive.path, archive.exports, archive.format) == ("/srv/bills", ("usage",), "parquet")
    for secret in (bucket.access_key, bucket.secret_key, hook.secret, stripe.api_key):
        assert secret is not None
        assert secret.reveal() == ENVIRON[NAME]
    assert ENVIRON[NAME] not in repr(billing)
    assert stripe.customers == {"search": "cus_1"}
    assert accept(example).billing.sinks == ()


@pytest.mark.parametrize(
    ("sink", "complaint"),
    [
        ("{name: a, kind: folder}", "needs path"),
        ("{name: a, kind: s3, bucket: b}", "needs access_key"),
        ("{name: a, kind: webhook, url: https://x.org}", "needs secret"),
        ("{name: a, kind: stripe, customers: {search: c}}", "needs api_key"),
        ("{name: a, kind: folder, path: /x, bucket: b}", "means nothing for a sink of kind folder"),
        (f'{{name: a, kind: webhook, url: ftp://x, secret: "${{{NAME}}}"}}', "is not an http or https URL"),
        ("{name: a, kind: webhook, url: https://x.org, secret: plain}", "secrets never stand in this file"),
        ('{name: a, kind: webhook, url: https://x.org, secret: "${NOT_SET_ANYWHERE}"}', "is not set"),
        ("{name: a, kind: mail}", "kind"),
        ("{name: a, kind: folder, path: /x}, {name: A, kind: folder, path: /y}", "is already taken"),
    ],
    ids=lambda value: value[:24],
)
def test_a_sink_that_cannot_work_is_refused(refuse: Refuser, example: str, sink: str, complaint: str) -> None:
    """The file says which key is wrong and what would do."""
    problems = refuse(example + f"billing: {{sinks: [{sink}]}}\n")
    assert any(complaint in problem for problem in problems), problems
