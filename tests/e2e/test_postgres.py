"""Two gateways over one PostgreSQL server, as real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.processes import AUTHORIZED, WeirProcess, eventually
from tests.fakes.postgres import PostgresServer, query
from tests.harness import NO_TLS, chat_body

PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """A database without tables, reached with a password."""
    url = postgres_server.create_empty()
    yield url.replace("postgresql+asyncpg://weir@", f"postgresql://weir:{PASSWORD}@")
    postgres_server.drop(url)


def ask(gateway: WeirProcess, key: str | None = None) -> int:
    """Ask for an answer and return the status."""
    headers = AUTHORIZED if key is None else {"authorization": f"Bearer {key}"}
    body = chat_body() | {"max_tokens": 5}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30.0, verify=NO_TLS)
    return answer.status_code


def test_two_hosts_share_one_server(serve: Serve, postgres_server: PostgresServer, database: str) -> None:
    """One ledger, one set of keys; a server that goes away for a while costs nothing; a password is never shown."""
    answered = 0

    def asked(gateway: WeirProcess, key: str | None = None) -> int:
        nonlocal answered
        status = ask(gateway, key)
        answered += status == 200
        return status

    secret = "the-secret-that-both-hosts-share"
    hosts = [serve(WEIR_DATABASE_URL=database, WEIR_SECRET=secret) for _ in range(2)]
    for host in hosts:
        host.ready()
    here, there = hosts
    assert [asked(host) for host in hosts] == [200, 200]

    made = json.loads(here.weir("keys", "create", "--name", "shared", "--json").stdout)
    eventually(lambda: asked(there, made["key"]) == 200)
    assert here.weir("keys", "revoke", made["key"]).returncode == 0
    eventually(lambda: asked(there, made["key"]) == 401)

    postgres_server.stop(crash=True)
    try:
        assert [asked(host) for host in hosts] == [200, 200]
        refused = here.weir("keys", "create", "--name", "late")
        assert refused.returncode != 0
        assert PASSWORD not in refused.stdout + refused.stderr
    finally:
        postgres_server.start()
    eventually(lambda: query(database, "SELECT COUNT(*) FROM ledger") == [(answered,)])
    for host in hosts:
        report = host.audit()
        assert set(report) == {"ok", "journal", "ledger", "rollups", "mismatches"}
        assert report["ledger"]["requests"] == report["rollups"]["day_requests"] == answered

    query(database, "UPDATE usage_day SET requests = requests + 1")
    done = there.weir("meter", "audit", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert [host.stop() for host in hosts] == [0, 0]
    assert not any(PASSWORD in host.output for host in hosts)


def test_a_host_starts_while_the_server_is_away(serve: Serve, postgres_server: PostgresServer) -> None:
    """It answers with the keys it knew, keeps what it metered, and ships it when the server is back."""
    url = postgres_server.create_empty()
    host = serve(WEIR_DATABASE_URL=url)
    host.ready()
    assert ask(host) == 200
    assert host.stop() == 0
    postgres_server.stop(crash=True)
    try:
        host = serve(host.home, workers=2, WEIR_DATABASE_URL=url)
        host.ready()
        assert [ask(host) for _ in range(3)] == [200] * 3
        refused = host.weir("keys", "create", "--name", "late")
        assert (refused.returncode, "away" in refused.stderr) == (1, True), refused
    finally:
        postgres_server.start()
    eventually(lambda: query(url, "SELECT COUNT(*) FROM ledger") == [(4,)])
    assert host.audit()["ok"]
    assert host.stop() == 0
    postgres_server.drop(url)
