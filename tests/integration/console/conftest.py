"""One house for all tests that look at pages over HTTP: it costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from dashboards.door import form_token
from tests.ui.house import House, opened


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway without a past."""
    with opened(tmp_path_factory.mktemp("house"), days=0) as found:
        yield found


def post(house: House, role: str, path: str, /, **fields: str) -> httpx.Response:
    """Send a form as the page would."""
    fields["csrf"] = form_token(house.tokens[role])
    with house.client(role) as client:
        return client.post(path, data=fields, headers={"origin": house.url})
