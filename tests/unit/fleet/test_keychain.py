"""Several keys of one backend: turns by weight, rest after refusals, a quota each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from gateway.config.snapshot import BackendLimits, KeySpec, Secret
from gateway.fleet.capacity import Quota
from gateway.fleet.keychain import LONGEST_S, KeyedQuota, UpstreamKey, keyed
from gateway.types.failure import Cause, Failure


def chain(*specs: KeySpec, workers: int = 1) -> KeyedQuota:
    """Return the quota of a backend with these keys."""
    found = keyed(Quota(), specs, workers)
    assert isinstance(found, KeyedQuota)
    return found


def spec(name: str, weight: int = 1, **limits: int) -> KeySpec:
    """Return a key."""
    return KeySpec(name, Secret(f"sk-{name}"), weight, BackendLimits(**limits))


def refused(status: int, retry_after: float | None = None) -> Failure:
    """Return a refusal of the key."""
    return Failure(Cause.OVERLOADED if status == 429 else Cause.ERROR, "no", status, retry_after)


def test_keys_take_turns_by_weight_and_not_in_runs() -> None:
    """Over a round each key serves exactly its share, and the heaviest never three times in a row."""
    quota = chain(spec("a", 3), spec("b", 2), spec("c"))
    turns = [quota.take(0, 0.0).name for _ in range(60)]
    assert Counter(turns) == {"a": 30, "b": 20, "c": 10}
    assert "aaa" not in "".join(turns)


@pytest.mark.parametrize(("status", "base"), [(429, 1.0), (401, 30.0), (402, 30.0), (403, 30.0)])
def test_a_refused_key_rests_and_longer_each_time(status: int, base: float) -> None:
    """The rest doubles with every refusal in a row, up to a limit, and one answer forgets them."""
    key = UpstreamKey("a", Secret("x"))
    rests = []
    for _ in range(12):
        assert key.ended(refused(status), 100.0)
        rests.append(key.resting_until - 100.0)
    assert rests[:3] == [base, 2 * base, 4 * base]
    assert rests[-1] <= LONGEST_S
    key.ended(None, 100.0)
    assert key.refusals == 0
    assert key.used == {"ok": 1, "refused": 12, "failed": 0}


def test_an_api_says_how_long_a_key_rests() -> None:
    """``Retry-After`` is obeyed."""
    key = UpstreamKey("a", Secret("x"))
    key.ended(refused(429, 17.0), 100.0)
    assert key.resting_until == 117.0


def test_other_failures_are_not_the_keys() -> None:
    """An outage of the API, and a request refused for its own fault, put no key to rest."""
    key = UpstreamKey("a", Secret("x"))
    assert not key.ended(Failure(Cause.ERROR, "no", 500), 1.0)
    assert not key.ended(Failure(Cause.REFUSED, "no", 403), 1.0)
    assert not key.resting_until


def test_others_go_on_while_one_rests_and_then_the_backend_is_full() -> None:
    """With one key at rest the others serve; with all at rest nothing does until the first is back."""
    quota = chain(spec("a"), spec("b"))
    quota.keys[0].ended(refused(401), 0.0)
    assert {quota.take(0, 1.0).name for _ in range(5)} == {"b"}
    assert quota.refusal(10, 1.0) == ""
    assert quota.used(1.0) < 1.0
    quota.keys[1].ended(refused(429, 5.0), 1.0)
    assert "key a rests" in quota.refusal(10, 1.0)
    assert "key b rests" in quota.refusal(10, 1.0)
    assert quota.used(1.0) == 1.0
    assert not quota.able(0, 1.0)
    assert quota.wait(1.0) == 5.0
    assert quota.take(0, 1.0).name == "b"
    assert quota.refusal(10, 6.5) == ""


def test_each_key_has_its_own_quota_shared_by_the_workers() -> None:
    """Two workers have half of a key's requests each; one key used up leaves the other."""
    quota = chain(spec("a", rpm=4), spec("b"), workers=2)
    for _ in range(2):
        assert not quota.keys[0].refusal(1, 0.0)
        quota.keys[0].quota.sent(1, 0.0)
    assert quota.keys[0].refusal(1, 0.0)
    assert {quota.take(1, 0.0).name for _ in range(4)} == {"b"}


def test_what_is_known_of_a_key_outlives_a_reload() -> None:
    """A key that stays rests on under its new name; a backend that has one key again has a plain quota."""
    quota = chain(spec("a"), spec("b"))
    quota.keys[0].ended(refused(401), 0.0)
    renamed = keyed(quota, [KeySpec("z", Secret("sk-a"), 2), spec("c")], 1)
    assert isinstance(renamed, KeyedQuota)
    assert [(key.name, bool(key.resting_until)) for key in renamed.keys] == [("z", True), ("c", False)]
    assert type(keyed(renamed, (), 1)) is Quota


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((spec("a"), spec("b")), (spec("b"), spec("c"))),
        ((), (spec("a"), spec("b"))),
        ((spec("a"), spec("b")), ()),
    ],
)
def test_what_a_backend_was_sent_outlives_a_reload(before: Sequence[KeySpec], after: Sequence[KeySpec]) -> None:
    """Requests and tokens of the last minute, and what is in flight, count under whatever keys come."""
    quota = keyed(Quota(), before, 1)
    quota.limit(2, 100, 2)
    for _ in range(2):
        quota.sent(40, 0.0)
    now = keyed(quota, after, 1)
    for limits, words in (
        ((2, None, None), "2 requests in the last minute"),
        ((None, 100, None), "80 tokens in the last minute"),
        ((None, None, 2), "2 requests in flight"),
    ):
        now.limit(*limits)
        assert words in now.refusal(30, 59.0)
    now.ended()
    assert not now.refusal(30, 59.0)
    now.limit(2, 100, None)
    assert not now.refusal(30, 60.0)


def test_what_an_api_said_of_one_key_holds_for_no_other() -> None:
    """A second key is added because the first is used up: the backend is not full with it, whoever still answers."""
    quota = Quota()
    quota.said("requests", 0, 60.0)
    assert quota.refusal(1, 1.0)
    more = keyed(quota, (spec("a"), spec("b")), 1)
    assert not more.refusal(1, 1.0)
    more.heard([(b"x-ratelimit-remaining-requests", b"0"), (b"x-ratelimit-reset-requests", b"60s")], 1.0)
    assert not more.refusal(1, 2.0)


@pytest.mark.parametrize("meanwhile", [(), (spec("b"), spec("c"))])
def test_a_key_that_comes_back_is_known(meanwhile: Sequence[KeySpec]) -> None:
    """A reload that takes it away and another that undoes it: what runs on it counts, and it rests on."""
    first, second = spec("a", concurrent=1), spec("b")
    quota = chain(first, second)
    key = quota.keys[0]
    key.quota.sent(1, 0.0)
    key.ended(refused(401), 0.0)
    for specs in (meanwhile, meanwhile, (first, second)):
        quota = keyed(quota, specs, 1)  # type: ignore[assignment] # the last one is keyed
    assert quota.keys[0] is key
    assert "rests" in quota.keys[0].refusal(1, 1.0)
    assert "in flight" in quota.keys[0].refusal(1, LONGEST_S)


def test_keys_that_are_gone_for_good_are_forgotten() -> None:
    """However often keys are exchanged, only those are remembered that something still runs on."""
    quota = chain(spec("a"), spec("b"))
    for number in range(50):
        quota = keyed(quota, (spec(f"c{number}"), spec(f"d{number}")), 1)  # type: ignore[assignment] # as above
    assert not quota.former


@pytest.mark.parametrize(
    ("running", "most"), [((0, 0), 4.0), ((1, 0), 3.0), ((0, 2), 2.0), ((1, 2), 3.0), ((1, 3), 1.0)]
)
def test_what_a_request_takes_of_several_keys_is_a_share_of_what_they_have_left(
    running: tuple[int, int], most: float
) -> None:
    """One request at once with the one and three with the other: from the least used one's share on as many as fit."""
    quota = chain(spec("a", concurrent=1), spec("b", concurrent=3))
    for key, count in zip(quota.keys, running, strict=True):
        for _ in range(count):
            key.quota.sent(1, 0.0)
    assert quota.most(0.0) == pytest.approx(most)
