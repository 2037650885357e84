"""The arithmetic of escrow: hosts that lend, reserve, lose and die in any order never charge more than the limit."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from gateway.access.escrow import Escrow, Pool, PoolKey, Share
from gateway.access.leases import Wish, slice_of, slices_of, wish_of

KEY: PoolKey = ("bud-1", 0)
TEAM: PoolKey = ("bud-2", 0)
MODEL: PoolKey = ("bud-3", 0)
LIMITS = {KEY: 30, TEAM: 40, MODEL: 20}
SHARES: dict[str, tuple[Share, ...]] = {
    "a": ((KEY, ""), (TEAM, ""), (MODEL, "a")),
    "b": ((KEY, ""), (TEAM, "")),
    "c": ((TEAM, ""),),
}


@dataclass
class Request:
    """A request under way, as its worker knows it."""

    host: int
    hold: int
    model: str
    amount: int


@dataclass
class Host:
    """A host: its escrow in memory, its journal on disk, and what survives the death of its keeper."""

    escrow: Escrow = field(default_factory=Escrow)
    journal: list[tuple[str, int]] = field(default_factory=list)
    running: dict[int, Request] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)
    epochs: list[dict[PoolKey, int]] = field(default_factory=list)


class Hosts(RuleBasedStateMachine):
    """Two hosts over one database that holds leases and what the ledger says was spent."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.hosts = [Host(), Host()]
        self.leases: dict[tuple[int, PoolKey], int] = {}
        self.spent = dict.fromkeys(LIMITS, 0)
        self.charged = dict.fromkeys(LIMITS, 0)
        self.last = 0

    @rule(
        target=requests,
        host=st.integers(0, 1),
        model=st.sampled_from("abc"),
        amount=st.integers(1, 16),
        least=st.integers(1, 16),
    )
    def asked(self, host: int, model: str, amount: int, least: int) -> object:
        """A request begins, if there is enough for it."""
        return self.admit(host, model, amount, min(least, amount)) or multiple()

    def admit(self, host: int, model: str, amount: int, least: int) -> Request | None:
        """Ask for a request that would do with ``least``; lease what is missing first, all pools or none."""
        escrow, shares = self.hosts[host].escrow, SHARES[model]
        if escrow.free(shares) < amount:
            self._lend(host, shares, amount, least)
        self.last += 1
        amount = min(amount, escrow.free(shares))
        if amount < least:
            assert any(escrow.pool(key).free + self._left(host, key) < least for key, _ in shares)
            return None
        assert escrow.reserve(self.last, "worker", shares, amount, 0.0)
        request = Request(host, self.last, model, amount)
        self.hosts[host].running[self.last] = request
        return request

    @rule(request=consumes(requests), part=st.integers(0, 4), told=st.sampled_from([True, True, False]))
    def finished(self, request: Request, part: int, told: bool) -> None:
        """A request ends."""
        self.finish(request, part, told)

    def finish(self, request: Request, part: int, told: bool) -> None:
        """End a request: its charge goes to the journal, then its keeper is told, unless that gets lost."""
        host = self.hosts[request.host]
        if host.running.pop(request.hold, None) is None:
            return
        charge = request.amount * part // 4
        host.journal.append((request.model, charge))
        for key, _ in SHARES[request.model]:
            self.charged[key] += charge
        if told:
            host.escrow.settle(request.hold, ((request.model, charge),))
            host.doubtful.discard(request.hold)
        # Else the worker was killed in between: the keeper sees its connection end.

    @rule(host=st.integers(0, 1), model=st.sampled_from("abc"), amount=st.integers(1, 16), shipped=st.booleans())
    def serve(self, host: int, model: str, amount: int, shipped: bool) -> None:
        """A request from its beginning to its end, all of what it may cost charged."""
        request = self.admit(host, model, amount, amount)
        if isinstance(request, Request):
            self.finish(request, 4, True)
        if shipped:
            self.ship(host)

    @rule(host=st.integers(0, 1))
    def lose_workers(self, host: int) -> None:
        """The connections of a host's workers end; their requests go on, or end, and nobody says what they cost."""
        self.hosts[host].escrow.lose("worker")
        self.hosts[host].doubtful |= set(self.hosts[host].running)

    @rule(host=st.integers(0, 1))
    def kill_keeper(self, host: int) -> None:
        """A new keeper knows the leases and nothing else."""
        found = self.hosts[host]
        found.escrow, found.epochs = Escrow(), []
        for (owner, key), amount in self.leases.items():
            if owner == host:
                found.escrow.pool(key).stale = amount
        found.doubtful |= set(found.running)

    @rule(host=st.integers(0, 1))
    def ship(self, host: int) -> None:
        """Ship the journal and confirm what was charged before; when nothing doubtful runs, free what is stale."""
        found = self.hosts[host]
        charges = dict(found.escrow.epoch())
        # Without a worker that lost touch, what is not settled runs: its end is told after this round.
        clean = not found.doubtful
        stale = {key: pool.stale for key, pool in found.escrow.pools.items()}
        for model, charge in found.journal:
            for key, _ in SHARES[model]:
                self.spent[key] += charge
        found.journal.clear()
        found.escrow.confirm(charges)
        if clean:
            found.escrow.clear(stale)
        self._write(host)

    @rule(host=st.integers(0, 1), most=st.integers(0, 40))
    def give_back(self, host: int, most: int) -> None:
        """Give back what is free."""
        for key in list(self.hosts[host].escrow.pools):
            self.hosts[host].escrow.give_back(key, most)
        self._write(host)

    @rule(host=st.integers(0, 1))
    def end_doubtful(self, host: int) -> None:
        """Workers that lost touch come to their end."""
        found = self.hosts[host]
        for hold in list(found.doubtful):
            request = found.running.pop(hold, None)
            if request is not None:
                charge = request.amount
                found.journal.append((request.model, charge))
                for key, _ in SHARES[request.model]:
                    self.charged[key] += charge
        # What they held went when they lost touch; what their workers began since then runs on.
        found.doubtful.clear()

    def _left(self, host: int, key: PoolKey) -> int:
        others = sum(value for (owner, its), value in self.leases.items() if its == key and owner != host)
        return LIMITS[key] - self.spent[key] - others - self.hosts[host].escrow.pool(key).lease

    def _lend(self, host: int, shares: tuple[Share, ...], amount: int, least: int) -> None:
        escrow = self.hosts[host].escrow
        wishes = {key: wish_of(escrow.pool(key), amount, least) for key, _ in shares}
        for key, some in slices_of({key: self._left(host, key) for key in wishes}, wishes).items():
            self.leases[host, key] = escrow.pool(key).lease + some
            escrow.grant(key, some)

    def _write(self, host: int) -> None:
        for key, pool in self.hosts[host].escrow.pools.items():
            self.leases[host, key] = pool.lease

    @invariant()
    def nothing_is_overshot(self) -> None:
        """What was charged, and what requests under way may still be charged, is within every limit."""
        for key, limit in LIMITS.items():
            held = sum(
                request.amount
                for host in self.hosts
                for request in host.running.values()
                if key in {name for name, _ in SHARES[request.model]}
            )
            assert self.charged[key] + held <= limit

    @invariant()
    def pools_are_sound(self) -> None:
        """No pool is reserved beyond its lease, and no lease in the database is smaller than the host counts on."""
        for number, host in enumerate(self.hosts):
            for key, pool in host.escrow.pools.items():
                assert min(pool.free, pool.held, pool.charged, pool.stale) >= 0
                assert self.leases.get((number, key), 0) >= pool.lease

    def teardown(self) -> None:
        """After draining nothing stays reserved, and the ledger has every charge."""
        for number, host in enumerate(self.hosts):
            for hold, request in list(host.running.items()):
                host.escrow.settle(hold, ())
                host.running.pop(hold)
                assert request.host == number
            host.escrow.lose("worker")
            host.doubtful.clear()
            self.ship(number)
            self.ship(number)
            self.give_back(number, 10**9)
        assert not any(self.leases.values())
        assert self.spent == self.charged


TestHosts = Hosts.TestCase
TestHosts.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_charge_counts_for_the_budgets_of_its_model_only() -> None:
    """Of the models that may answer, the budget of the one that did is charged; the others get everything back."""
    escrow = Escrow()
    shares: tuple[Share, ...] = ((KEY, ""), (MODEL, "a"), (TEAM, "b"))
    for key, _ in shares:
        escrow.grant(key, 100)
    assert escrow.reserve(1, "w", shares, 80, 0.0)
    assert not escrow.reserve(2, "w", shares, 30, 0.0)
    assert escrow.settle(1, (("a", 50),))
    assert [escrow.pools[key].free for key, _ in shares] == [50, 50, 100]


def test_a_settlement_is_idempotent_and_nobody_elses() -> None:
    """Settling twice, or by another owner, changes nothing; no more is charged than was reserved."""
    escrow = Escrow()
    escrow.grant(KEY, 100)
    assert escrow.reserve(1, "w", ((KEY, ""),), 60, 0.0)
    assert not escrow.settle(1, (("m", 10),), "another")
    assert escrow.settle(1, (("m", 1_000),), "w")
    assert not escrow.settle(1, (("m", 10),), "w")
    pool = escrow.pools[KEY]
    assert (pool.charged, pool.held, pool.free) == (60, 0, 40)


def test_slices_shrink_towards_the_limit() -> None:
    """A slice is an eighth of what is left while there is plenty, what is needed near the end, and never too much."""
    assert slice_of(8_000, Wish(0, 10, 10)) == 1_000
    assert slice_of(40, Wish(0, 10, 10)) == 10
    assert slice_of(7, Wish(0, 10, 10)) == 0
    assert slice_of(7, Wish(0, 10, 5)) == 7
    assert slice_of(-3, Wish(0, 10, 0)) == 0
    assert slice_of(100, Wish(0, 0, 0)) == 0


def test_who_can_do_with_what_is_leased_keeps_nobody_from_lending() -> None:
    """All wishes are granted what will do, or none: one that asks for more than there is and can do without is."""
    tight, wide = Pool(), Pool()
    tight.granted = 90
    wishes = {KEY: wish_of(tight, 500, 50), TEAM: wish_of(wide, 500, 50)}
    assert slices_of({KEY: 0, TEAM: 1_000}, wishes) == {KEY: 0, TEAM: 500}
    assert slices_of({KEY: 7, TEAM: 60}, wishes) == {KEY: 7, TEAM: 60}
    assert slices_of({KEY: 7, TEAM: 49}, wishes) == {KEY: 0, TEAM: 0}
    wishes[KEY] = wish_of(tight, 500, 91)
    assert slices_of({KEY: 0, TEAM: 1_000}, wishes) == {KEY: 0, TEAM: 0}
    assert slices_of({KEY: 1, TEAM: 1_000}, wishes) == {KEY: 1, TEAM: 500}
