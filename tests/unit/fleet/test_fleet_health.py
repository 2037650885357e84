"""The breaker, by a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.build import build
from gateway.fleet.health import BASE, COOL_OFF, FAILURES, FORGIVEN, LONGEST, Health
from gateway.fleet.snapshot import Replica
from gateway.types.call import Operation
from tests.fakes.fleet import MODEL, backend, endpoint, fleet, model, price_id, snapshot

NOW = 1_000.0


def watched(count: int) -> tuple[Health, list[Replica]]:
    """Return the breaker of a fleet of ``count`` replicas of one model."""
    made = fleet(*(backend(f"gpu-{number}") for number in range(count)))
    health = Health()
    health.watch(made)
    return health, list(made.replicas.values())


def fail(health: Health, replica: Replica, now: float, times: int = FAILURES) -> None:
    """Let ``replica`` fail ``times`` requests in a row."""
    for _ in range(times):
        health.failed(replica, now)


def test_failures_in_a_row_eject() -> None:
    """The fifth failure in a row takes a replica out, the fourth does not."""
    health, (replica, *_) = watched(4)
    fail(health, replica, NOW, FAILURES - 1)
    assert replica.load.ejected_until == 0
    health.failed(replica, NOW)
    assert replica.load.ejected_until == NOW + BASE


def test_a_success_starts_the_count_anew() -> None:
    """Only failures in a row count."""
    health, (replica, *_) = watched(4)
    for _ in range(3):
        fail(health, replica, NOW, FAILURES - 1)
        health.succeeded(replica, NOW)
    assert replica.load.ejected_until == 0


def test_each_ejection_in_a_row_is_longer_up_to_a_bound() -> None:
    """30, 60, 90 … seconds, never more than 300."""
    health, (replica, *_) = watched(4)
    now, lengths = NOW, []
    for _ in range(12):
        fail(health, replica, now)
        lengths.append(replica.load.ejected_until - now)
        now = replica.load.ejected_until
    assert lengths == [min(BASE * number, LONGEST) for number in range(1, 13)]


def test_failures_of_requests_that_were_still_out_there_say_nothing_new() -> None:
    """Requests sent before the ejection fail after it without making it longer."""
    health, (replica, *_) = watched(4)
    fail(health, replica, NOW)
    fail(health, replica, NOW + 10, 50)
    assert replica.load.ejected_until == NOW + BASE
    assert replica.load.failures == 0


def test_good_behaviour_makes_ejections_good() -> None:
    """Ten seconds of successes after the return take one ejection back; time that passed counts whole."""
    health, (replica, *_) = watched(4)
    now = NOW
    for _ in range(3):
        fail(health, replica, now)
        now = replica.load.ejected_until
    assert replica.load.ejections == 3
    health.succeeded(replica, now + FORGIVEN / 2)
    assert replica.load.ejections == 3
    health.succeeded(replica, now + FORGIVEN)
    assert replica.load.ejections == 2
    health.succeeded(replica, now + FORGIVEN + 1)
    assert replica.load.ejections == 2
    health.succeeded(replica, now + 10 * FORGIVEN)
    assert replica.load.ejections == 0
    fail(health, replica, now + 10 * FORGIVEN)
    assert replica.load.ejected_until == now + 10 * FORGIVEN + BASE


@pytest.mark.parametrize(("count", "out"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (8, 4)])
def test_at_most_half_of_a_models_replicas_are_out_at_once(count: int, out: int) -> None:
    """When all fail, half of them stay in; a lone replica may be out."""
    health, replicas = watched(count)
    for replica in replicas:
        fail(health, replica, NOW, 3 * FAILURES)
    assert sum(replica.load.ejected_until > NOW for replica in replicas) == out


def test_a_replica_that_was_spared_goes_when_another_returns() -> None:
    """The bound holds back an ejection, it does not forget the failures."""
    health, (one, other) = watched(2)
    fail(health, one, NOW)
    fail(health, other, NOW)
    assert other.load.ejected_until == 0
    health.failed(other, NOW + BASE)
    assert other.load.ejected_until == NOW + 2 * BASE


def test_every_model_of_a_replica_must_be_able_to_spare_it() -> None:
    """A replica of two models stays when the smaller one has another of its replicas out."""
    shared, big, small = backend("shared"), [backend(f"big-{n}") for n in range(6)], backend("small")
    made = build(
        snapshot(
            [shared, *big, small],
            [
                model([endpoint(spec) for spec in (shared, *big)]),
                model([endpoint(spec, "other") for spec in (shared, small)], "other"),
            ],
        ),
        None,
        price_id,
    )
    health = Health()
    health.watch(made)
    fail(health, made.replicas["small"], NOW)
    fail(health, made.replicas["shared"], NOW, 3 * FAILURES)
    assert made.replicas["small"].load.ejected_until > NOW
    assert made.replicas["shared"].load.ejected_until == 0
    assert len(made.models[MODEL].candidates) == 7


def test_a_full_replica_is_spared_for_a_moment_and_not_blamed() -> None:
    """Overload never ejects; without a word from the backend the wait is short and not binding."""
    health, (replica, *_) = watched(4)
    for _ in range(100):
        health.overloaded(replica, NOW, None)
    assert (replica.load.failures, replica.load.ejected_until) == (0, 0)
    assert (replica.load.cooling_until, replica.load.cooling_asked) == (NOW + COOL_OFF, False)


def test_the_wait_a_backend_asks_for_binds() -> None:
    """``Retry-After`` is honoured, up to five minutes, and a later vague refusal does not weaken it."""
    health, (replica, *_) = watched(4)
    health.overloaded(replica, NOW, 20.0)
    assert (replica.load.cooling_until, replica.load.cooling_asked) == (NOW + 20, True)
    health.overloaded(replica, NOW + 1, None)
    assert (replica.load.cooling_until, replica.load.cooling_asked) == (NOW + 20, True)
    health.overloaded(replica, NOW + 1, 5.0)
    assert replica.load.cooling_until == NOW + 20
    health.overloaded(replica, NOW + 1, 86_400.0)
    assert replica.load.cooling_until == NOW + 1 + LONGEST


def test_a_word_from_the_backend_replaces_our_guess() -> None:
    """A binding wait takes the place of a vague one, and a vague one that of a binding one that is over."""
    health, (replica, *_) = watched(4)
    health.overloaded(replica, NOW, None)
    health.overloaded(replica, NOW, 0.5)
    assert (replica.load.cooling_until, replica.load.cooling_asked) == (NOW + 0.5, True)
    health.overloaded(replica, NOW + 1, 0.0)
    assert (replica.load.cooling_until, replica.load.cooling_asked) == (NOW + 1 + COOL_OFF, False)


events = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from(["fail", "fail", "fail", "succeed", "full"]),
        st.floats(0, 20),
        st.none() | st.floats(0, 1_000),
    ),
    max_size=200,
)


@given(events)
def test_whatever_happens_half_stays_in(history: list[tuple[int, str, float, float | None]]) -> None:
    """Under any history at most half are ejected, no ejection is longer than the longest, and counts stay sane."""
    health, replicas = watched(5)
    now = NOW
    for index, what, passed, retry_after in history:
        now += passed
        replica = replicas[index]
        if what == "fail":
            health.failed(replica, now)
        elif what == "succeed":
            health.succeeded(replica, now)
        else:
            health.overloaded(replica, now, retry_after)
        assert sum(one.load.ejected_until > now for one in replicas) <= 2
        for one in replicas:
            assert one.load.ejected_until <= now + LONGEST
            assert one.load.cooling_until <= now + LONGEST
            assert one.load.ejections >= 0


def test_what_a_replica_says_it_has_not_got_is_believed_longer_each_time_and_until_it_answers() -> None:
    """One model and one operation of it; nothing else that it serves, and its own health, are touched."""
    made = fleet(backend("api"))
    (candidate,), health = made.models[MODEL].candidates, Health()
    load, name, now, lengths = candidate.load, candidate.upstream_model, NOW, []
    for _ in range(FAILURES - 1):
        health.lacked(candidate, Operation.CHAT, now)
    assert not load.lacking(name, Operation.CHAT, now)
    for _ in range(12):
        health.lacked(candidate, Operation.CHAT, now)
        assert load.lacking(name, Operation.CHAT, now)
        health.lacked(candidate, Operation.CHAT, now)  # of a request that was on its way
        lengths.append(load.hindered_until - now)
        assert not load.lacking(name, Operation.EMBEDDINGS, now)
        assert not load.lacking("other", Operation.CHAT, now)
        now = load.hindered_until
        assert not load.lacking(name, Operation.CHAT, now)
    assert lengths == [min(BASE * number, LONGEST) for number in range(1, 13)]
    assert (load.failures, load.ejected_until, health.ejected) == (0, 0.0, {})
    health.had(candidate, Operation.EMBEDDINGS)
    assert load.gaps is not None
    health.had(candidate, Operation.CHAT)
    assert not load.gaps
    assert load.hindered_until == 0.0


def test_another_key_may_have_what_the_one_before_had_not() -> None:
    """APIs say the same of a model that is gone and of one that a key may not use."""
    made = fleet(backend("api"))
    (candidate,), health = made.models[MODEL].candidates, Health()
    for _ in range(FAILURES):
        health.lacked(candidate, Operation.CHAT, NOW)
    candidate.load.acquit()
    assert not candidate.load.lacking(candidate.upstream_model, Operation.CHAT, NOW)
    assert candidate.load.hindered_until == 0.0
