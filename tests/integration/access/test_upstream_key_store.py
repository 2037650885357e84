"""Teams' own keys in the database: sealed, checked against the configuration, told to whoever follows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from gateway.access.own_keys import OwnKeys
from gateway.access.principal import Principal
from gateway.access.upstream_keys import MOST, UpstreamKeyStore
from gateway.config.load import load
from gateway.config.snapshot import ConfigSnapshot
from gateway.db.cipher import Cipher
from gateway.keeper.process import serving
from gateway.keeper.service import Keeper
from gateway.types.errors import BadRequest, NotFound
from gateway.types.upstream_keys import KNOWN_UPSTREAM_KEYS, KnownKeys, NewUpstreamKey, SealedKey, UpstreamKeyPatch
from tests.fakes.ledgers import furnish

PEPPER = b"the pepper of the tests"
SECRET = "sk-theirs-0123456789abcdef"
CONFIG = """
backends:
  - {name: gpu, kind: vllm, url: http://10.0.0.1, provider: own}
  - {name: api, kind: openai, url: https://api.example, provider: acme}
models:
  - {id: m, context_length: 100, price: {prompt: "1", completion: "1"}, endpoints: [{backend: api}]}
egress: {allow: ["10.0.0.0/8"]}
"""


@pytest.fixture
def snapshot(tmp_path: Path) -> ConfigSnapshot:
    """Return a configuration with one external API."""
    path = tmp_path / "weir.yaml"
    path.write_text(CONFIG)
    return load(path, presets={"balanced"})


@pytest_asyncio.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """Run a keeper with a ledger of its own."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'weir.db'}"
    furnish(tmp_path)
    async with serving(tmp_path, url, PEPPER) as opened:
        await opened.ensure_team("default", "Default")
        yield opened


@pytest.fixture
def store(keeper: Keeper, snapshot: ConfigSnapshot) -> UpstreamKeyStore:
    """Return a store that knows the configuration."""
    database = keeper._database
    assert database is not None
    return UpstreamKeyStore(database, Cipher(PEPPER), lambda: snapshot)


@pytest.mark.parametrize(
    ("new", "param"),
    [
        (NewUpstreamKey("default", "nobody", SECRET), "provider"),
        (NewUpstreamKey("default", "own", SECRET), "provider"),
        (NewUpstreamKey("default", "acme", "with blank"), "key"),
        (NewUpstreamKey("default", "acme", ""), "key"),
        (NewUpstreamKey("default", "acme", SECRET, models=("x",)), "models"),
        (NewUpstreamKey("default", "acme", SECRET, name="a\nb"), "name"),
        (NewUpstreamKey("default", "acme", SECRET, fallback=True, only=True), "is_byok_only"),
    ],
)
async def test_what_cannot_be_is_refused(store: UpstreamKeyStore, new: NewUpstreamKey, param: str) -> None:
    """Providers that are no external API, unknown models, keys no header carries: each names its field."""
    with pytest.raises(BadRequest) as caught:
        await store.add(new)
    assert caught.value.param == param
    assert await store.all(None, None) == ()


async def test_a_key_is_sealed_for_its_team_and_opened_only_with_the_secret(
    store: UpstreamKeyStore, keeper: Keeper
) -> None:
    """Followers get what they have not heard of, sealed; another secret, or another team, opens nothing."""
    with pytest.raises(NotFound):
        await store.add(NewUpstreamKey("nobody", "acme", SECRET))
    made = await store.add(NewUpstreamKey("default", "acme", SECRET, models=("m",)))
    assert made.label == "sk-t…cdef"
    known = await keeper.ask(KNOWN_UPSTREAM_KEYS, (-1,))
    assert known is not None
    assert await keeper.ask(KNOWN_UPSTREAM_KEYS, (known.revision,)) is None
    [sealed] = known.keys
    assert SECRET.encode() not in sealed.sealed
    principal = Principal("k", "default")
    own = OwnKeys(PEPPER)
    own.learn(known)
    assert own.providers(principal) == {"acme"}
    assert not OwnKeys(PEPPER).providers(principal)
    other = OwnKeys(b"another secret")
    other.learn(known)
    assert not other.active
    own.learn(KnownKeys(9, (SealedKey(msgspec.structs.replace(made, team="thieves"), sealed.sealed),)))
    assert not own.active


async def test_changes_reach_followers_and_a_resting_key_does_not(store: UpstreamKeyStore, keeper: Keeper) -> None:
    """A disabled or revoked key is not told; the order is the one of the keys."""
    first = await store.add(NewUpstreamKey("default", "acme", SECRET))
    second = await store.add(NewUpstreamKey("default", "acme", SECRET + "2"))
    await store.update(second.key_id, UpstreamKeyPatch(order=0))
    await store.update(first.key_id, UpstreamKeyPatch(order=5))
    known = await keeper.ask(KNOWN_UPSTREAM_KEYS, (-1,))
    assert known is not None
    assert [each.key.key_id for each in known.keys] == [second.key_id, first.key_id]
    await store.update(second.key_id, UpstreamKeyPatch(disabled=True))
    await store.revoke(first.key_id)
    later = await keeper.ask(KNOWN_UPSTREAM_KEYS, (known.revision,))
    assert later is not None
    assert later.keys == ()
    assert later.revision > known.revision
    with pytest.raises(NotFound):
        await store.get(first.key_id)


async def test_a_team_has_so_many_keys(store: UpstreamKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the next one is refused."""
    monkeypatch.setattr("gateway.access.upstream_keys.MOST", 2)
    assert MOST > 2
    for _ in range(2):
        await store.add(NewUpstreamKey("default", "acme", SECRET))
    with pytest.raises(BadRequest):
        await store.add(NewUpstreamKey("default", "acme", SECRET))
