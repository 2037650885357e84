"""The egress guard, with name services that lie."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from gateway.config.egress import Egress
from gateway.fleet.egress import STALE, TTL, AddressForbidden, EgressGuard, NameUnresolved, system_lookup

PRIVATE = Egress((ip_network("10.0.0.0/8"),))
PUBLIC = "8.8.8.8"
METADATA = "169.254.169.254"


class NameService:
    """Answers with one list of addresses after the other, then with the last one for ever."""

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str) -> Sequence[str]:
        """Answer one look-up."""
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def guard(service: NameService, clock: Clock, rules: Egress = PRIVATE) -> EgressGuard:
    """Return a guard that asks ``service``."""
    return EgressGuard(rules, lookup=service, clock=clock)


async def test_a_public_name_is_pinned_to_its_addresses(clock: Clock) -> None:
    """The caller gets the checked addresses themselves, with the port, once each and in the resolver's order."""
    service = NameService([PUBLIC, "2001:4860:4860::8888", PUBLIC])
    assert await guard(service, clock).resolve("api.example.com", 443) == (
        (PUBLIC, 443),
        ("2001:4860:4860::8888", 443),
    )


async def test_a_name_that_turns_to_the_metadata_service_is_refused(clock: Clock) -> None:
    """DNS rebinding: the second answer is judged like the first, and the first is not used in its place."""
    service = NameService([PUBLIC], [METADATA])
    guarded = guard(service, clock)
    assert await guarded.resolve("evil.example.com", 80) == ((PUBLIC, 80),)
    clock.now += TTL
    for _ in range(2):
        with pytest.raises(AddressForbidden):
            await guarded.resolve("evil.example.com", 80)


async def test_between_look_ups_the_pinned_address_is_used(clock: Clock) -> None:
    """Within a minute nobody is asked again, so a changed name changes nothing."""
    service = NameService([PUBLIC], [METADATA])
    guarded = guard(service, clock)
    for _ in range(3):
        assert await guarded.resolve("evil.example.com", 80) == ((PUBLIC, 80),)
        clock.now += TTL / 4
    assert service.asked == 1


@pytest.mark.parametrize(
    "forbidden",
    [
        METADATA,
        f"::ffff:{METADATA}",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
async def test_an_address_that_is_never_a_backends_refuses_the_whole_name(clock: Clock, forbidden: str) -> None:
    """One such address among good ones is an attack, even when everything is allowed."""
    everything = Egress((ip_network("0.0.0.0/0"), ip_network("::/0")))
    for answer in ([PUBLIC, forbidden], [forbidden, PUBLIC], [forbidden]):
        with pytest.raises(AddressForbidden):
            await guard(NameService(answer), clock, everything).resolve("x.example.com", 80)


async def test_private_addresses_need_to_be_allowed(clock: Clock) -> None:
    """Only networks of ``egress.allow`` pass; of several addresses those that pass are used."""
    service = NameService(["192.168.1.1", "10.1.2.3", "127.0.0.1", "::1"])
    assert await guard(service, clock).resolve("gpu.internal", 8000) == (("10.1.2.3", 8000),)
    with pytest.raises(AddressForbidden) as caught:
        await guard(NameService(["192.168.1.1"]), clock).resolve("gpu.internal", 8000)
    assert "192.168.1.1" in caught.value.detail
    assert "192.168.1.1" not in caught.value.message


async def test_literal_addresses_are_judged_without_the_name_service(clock: Clock) -> None:
    """An address in the URL passes the same rules and asks nobody."""
    service = NameService([PUBLIC])
    guarded = guard(service, clock)
    assert await guarded.resolve("10.0.0.11", 8000) == (("10.0.0.11", 8000),)
    for host in ("127.0.0.1", "::1", METADATA, "192.168.0.1"):
        with pytest.raises(AddressForbidden):
            await guarded.resolve(host, 80)
    assert service.asked == 0


@pytest.mark.parametrize("host", ["metadata.google.internal", "localhost", "x.localhost", "metadata"])
async def test_special_names_are_refused_whatever_they_resolve_to(clock: Clock, host: str) -> None:
    """Names of metadata services and of this very host are judged by themselves."""
    service = NameService([PUBLIC])
    with pytest.raises(AddressForbidden):
        await guard(service, clock).resolve(host, 80)
    assert service.asked == 0


async def test_a_failing_name_service_leaves_checked_addresses_good_for_a_while(clock: Clock) -> None:
    """Traffic survives an outage of the name service, but not without end."""
    service = NameService([PUBLIC], OSError("no answer"))
    guarded = guard(service, clock)
    await guarded.resolve("api.example.com", 443)
    clock.now += TTL
    assert await guarded.resolve("api.example.com", 443) == ((PUBLIC, 443),)
    clock.now += STALE
    with pytest.raises(NameUnresolved):
        await guarded.resolve("api.example.com", 443)


@pytest.mark.parametrize("late", [["9.9.9.9"], [METADATA]])
async def test_a_silent_name_service_holds_nobody_up_for_long(
    clock: Clock, late: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked addresses are used meanwhile, well within any limit to connect; what is said in the end counts."""
    monkeypatch.setattr("gateway.fleet.egress.PATIENCE", 0.01)
    speaks, asked = asyncio.Event(), 0

    async def service(host: str) -> Sequence[str]:
        nonlocal asked
        asked += 1
        if asked == 1:
            return [PUBLIC]
        await speaks.wait()
        return late

    guarded = EgressGuard(PRIVATE, lookup=service, clock=clock)
    await guarded.resolve("api.example.com", 443)
    clock.now += TTL
    async with asyncio.timeout(20):
        for _ in range(2):
            assert await guarded.resolve("api.example.com", 443) == ((PUBLIC, 443),)
    speaks.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert asked == 2
    if METADATA in late:
        with pytest.raises(AddressForbidden):
            await guarded.resolve("api.example.com", 443)
    else:
        assert await guarded.resolve("api.example.com", 443) == (("9.9.9.9", 443),)
        assert asked == 2


async def test_what_other_rules_let_pass_is_not_used_meanwhile(clock: Clock) -> None:
    """The rules change during a look-up that then fails: the addresses of before are nobody's to use."""
    service = NameService(["10.1.2.3"], OSError("no answer"))
    guarded = guard(service, clock)
    await guarded.resolve("gpu.internal", 80)
    clock.now += TTL
    service.answers[:] = [["10.1.2.3"], OSError("no answer")]
    pending = asyncio.create_task(guarded.resolve("gpu.internal", 80))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    guarded.configure(Egress())
    with pytest.raises(NameUnresolved):
        await pending


@pytest.mark.parametrize("answer", [OSError("unknown"), UnicodeError("label too long"), []])
async def test_a_name_without_addresses(clock: Clock, answer: Sequence[str] | Exception) -> None:
    """A name nobody knows is an error of its own."""
    with pytest.raises(NameUnresolved):
        await guard(NameService(answer), clock).resolve("nowhere.example.com", 80)


async def test_nonsense_from_the_name_service_is_no_address(clock: Clock) -> None:
    """Only addresses are addresses."""
    with pytest.raises(AddressForbidden):
        await guard(NameService(["not-an-address"]), clock).resolve("x.example.com", 80)


async def test_many_callers_share_one_look_up(clock: Clock) -> None:
    """A burst of connects asks once, and one caller that leaves does not take the answer from the others."""
    service = NameService([PUBLIC])
    guarded = guard(service, clock)
    tasks = [asyncio.create_task(guarded.resolve("api.example.com", 443)) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [((PUBLIC, 443),)] * 9
    assert service.asked == 1


async def test_new_rules_judge_everything_anew(clock: Clock) -> None:
    """What passed the old rules does not pass the new ones unseen, not even a look-up that is under way."""
    service = NameService(["10.1.2.3"])
    guarded = guard(service, clock)
    await guarded.resolve("gpu.internal", 80)
    guarded.configure(Egress())
    with pytest.raises(AddressForbidden):
        await guarded.resolve("gpu.internal", 80)

    guarded.configure(PRIVATE)
    pending = asyncio.create_task(guarded.resolve("other.internal", 80))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    guarded.configure(Egress())
    with pytest.raises(AddressForbidden):
        await pending


async def test_equal_rules_forget_nothing(clock: Clock) -> None:
    """A reload that leaves the egress rules as they were does not resolve every name again."""
    service = NameService([PUBLIC])
    guarded = guard(service, clock)
    await guarded.resolve("api.example.com", 443)
    guarded.configure(Egress((ip_network("10.0.0.0/8"),)))
    await guarded.resolve("api.example.com", 443)
    assert service.asked == 1


async def test_the_systems_resolver_gives_plain_addresses() -> None:
    """The real look-up returns texts of addresses."""
    assert {"127.0.0.1", "::1"} & set(await system_lookup("localhost"))
