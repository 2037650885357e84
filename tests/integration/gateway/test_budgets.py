"""Hard budgets through the whole gateway: concurrent clients, two hosts, engines simulated and real; never overshot."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sim import SimConfig, SimFleet
from gateway.types.budgets import BUDGETS, SET_BUDGET, Budget, BudgetState, NewBudget, Scope, Window
from gateway.types.keys import LimitBook, NewKey
from tests.engine.llama_server import LlamaServer
from tests.fakes.backend import HandBackend, Visit, hand_backend
from tests.harness import Backend, Stage, chat_body, configuration, over, staged

NANO = 1_000_000_000

pytestmark = pytest.mark.usefixtures("whole_day")


async def set_budget(stage: Stage, limit: int, scope: Scope | None = None, window: Window = Window.DAILY) -> Budget:
    """Set a hard budget, of the team ``default`` unless another is named."""
    return await stage.keeper.ask(SET_BUDGET, (NewBudget(scope or Scope(team="default"), window, limit),))


async def drained(stage: Stage, seconds: float = 20.0) -> BudgetState:
    """Return the one budget once nothing of it is reserved any more."""
    async with asyncio.timeout(seconds):
        while True:
            [state] = await stage.keeper.ask(BUDGETS, (None, None))
            if not state.reserved:
                return state
            await asyncio.sleep(0.2)


def refused(answer: httpx.Response) -> dict[str, Any]:
    """Return the metadata of a refusal for want of money."""
    assert answer.status_code == 402, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (402, "insufficient_quota")
    assert error["metadata"]["error_type"] == "payment_required"
    return dict(error["metadata"])


LENGTHS: list[dict[str, Any]] = [
    {"max_tokens": 40},
    {"max_completion_tokens": 25, "n": 2},
    {"n_predict": 30},
    {"max_new_tokens": 10, "n": 3},
    {"max_output_tokens": 64, "stream": True},
    {},
]


async def spend_all(
    stages: list[Stage], clients: int, seconds: float, lengths: list[dict[str, Any]]
) -> tuple[int, int]:
    """Let clients ask all hosts until every one was told that nothing is left; return answers and refusals."""
    answered = turned_away = 0

    async def client(number: int) -> None:
        nonlocal answered, turned_away
        for turn, more in enumerate(cycle(lengths[number % len(lengths) :] + lengths[: number % len(lengths)])):
            answer = await stages[(number + turn) % len(stages)].chat(**more)
            if answer.status_code == 200:
                answered += 1
                continue
            turned_away += 1
            metadata = refused(answer)
            if "retry-after" not in answer.headers:
                assert metadata["reason"] == "limit"
                return
            assert metadata["reason"] == "in_flight"
            await asyncio.sleep(0.3)

    async with asyncio.timeout(seconds):
        await asyncio.gather(*(client(number) for number in range(clients)))
    return answered, turned_away


async def test_many_clients_on_two_hosts_stay_within_one_budget(tmp_path: Path, postgres_url: str) -> None:
    """Two hosts over one PostgreSQL: whatever lengths clients ask for, what is charged stays within the limit."""
    limit = 3_000_000
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(
            SimFleet([SimConfig("vllm", name="gpu-a"), SimConfig("sglang", name="b")])
        )
        config = configuration(over(*fleet))
        hosts = [
            await stack.enter_async_context(staged(tmp_path / name, config, WEIR_DATABASE_URL=postgres_url))
            for name in ("one", "two")
        ]
        await set_budget(hosts[0], limit)
        await hosts[1].keeper.treasury.reload()
        answered, turned_away = await spend_all(hosts, 8, 100.0, LENGTHS[:5])
        state = await drained(hosts[0])
        assert answered
        assert turned_away >= 8
        assert limit * 9 // 10 < state.spent <= limit
        for host in hosts:
            assert not host.keeper.treasury.escrow.running
        async with asyncio.timeout(20):
            while await hosts[0].keeper.treasury.store.leases():  # what nobody uses goes back after some seconds
                await asyncio.sleep(0.2)
        report = await hosts[0].keeper.audit()
        assert report.ok, report.mismatches


@pytest.mark.real_engine
async def test_a_real_engine_stays_within_the_budget(tmp_path: Path, slow_server: LlamaServer) -> None:
    """llama.cpp, which never ends by itself: aliases of the length and several choices; afterwards nothing is held."""
    backend = Backend("a", slow_server.url, kind="llamacpp", model="tiny-qwen3")
    models = (
        "  - {id: qwen/qwen3-32b, context_length: 2048, capabilities: {tools: true}, "
        'endpoints: [{backend: a, model: tiny-qwen3}], price: {prompt: "0.10", completion: "0.30"}}'
    )
    limit = 300_000
    async with staged(tmp_path, configuration([backend], models=models)) as stage:
        await set_budget(stage, limit)
        lengths = [{"max_completion_tokens": 30}, {"n_predict": 20}, {"max_tokens": 15, "n": 2}, {"max_new_tokens": 40}]
        answered, _ = await spend_all([stage], 4, 100.0, lengths)
        state = await drained(stage)
        assert answered
        assert limit // 2 < state.spent <= limit
        report = await stage.keeper.audit()
        assert report.ok, report.mismatches


async def test_a_refusal_says_what_is_left_and_when_it_resets(tmp_path: Path) -> None:
    """402 names budget, limit, rest, reset and the length that would still fit, and asking for that length works."""
    async with (
        SimFleet([SimConfig("sglang", name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        budget = await set_budget(stage, 200_000, Scope(team="default", model="qwen/qwen3-32b"), Window.MONTHLY)
        metadata = refused(await stage.chat(max_tokens=5_000))
        assert metadata["budget"] == budget.budget_id
        assert metadata["scope"] == {"key": None, "team": "default", "model": "qwen/qwen3-32b"}
        assert (metadata["limit_usd"], metadata["remaining_usd"], metadata["reason"]) == (0.0002, 0.0002, "limit")
        assert metadata["needed_usd"] > 0.0015
        assert metadata["resets_at"].endswith("-01T00:00:00Z")
        fits = metadata["affordable_tokens"]
        assert 0 < fits < 5_000
        assert refused(await stage.chat(max_tokens=fits + 1))["affordable_tokens"] == fits
        assert (await stage.chat(max_tokens=fits)).status_code == 200
        other = await stage.new_key()
        assert (await stage.http.get(f"{stage.url}/v1/models", headers=stage.headers)).status_code == 200
        assert other.record.team == "default"


@pytest.mark.parametrize("kinds", [("vllm",), ("vllm", "tgi"), ("sglang",), ("vllm", "openai")])
async def test_near_the_limit_a_prompt_is_as_long_as_its_engines_count(tmp_path: Path, kinds: tuple[Any, ...]) -> None:
    """A prompt that fits by its tokens and not by its bytes is let through where every endpoint counts exactly."""
    text = "The river is high and the weir holds. " * 200
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "max_tokens": 20}
    exact = "sglang" not in kinds and "openai" not in kinds
    async with (
        SimFleet([SimConfig(kind, name=kind) for kind in kinds]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        # At 0.10 USD per million: enough for some 4,000 tokens of prompt, half of its bytes.
        limit = len(text) * 50
        await set_budget(stage, limit)
        answer = await stage.chat(**chat)
        assert answer.status_code == (200 if exact else 402), answer.text
        if exact:
            tokens = answer.json()["usage"]["prompt_tokens"]
            assert len(text) // 8 < tokens < len(text) // 2
            state = await drained(stage)
            assert tokens * 100 < state.spent <= limit
        assert refused(await stage.chat(**(chat | {"max_tokens": 5_000})))["reason"] == "limit"


async def test_a_request_without_a_length_is_cut_to_what_is_left(tmp_path: Path) -> None:
    """It gets as many tokens as the budget has money for, the engine is told so, and so is the caller."""
    async with (
        SimFleet([SimConfig("vllm", name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        await set_budget(stage, 2_000_000)
        answer = await stage.chat()
        assert answer.status_code == 200
        cut = int(answer.headers["x-weir-max-tokens"])
        assert 1_024 <= cut < 40_960
        [entry] = [entry for sim in fleet for entry in sim.books]
        assert entry.completion_tokens <= cut
        assert "x-weir-max-tokens" not in (await stage.chat(max_tokens=5)).headers


async def test_a_request_without_a_length_leases_what_only_one_budget_lacks(tmp_path: Path) -> None:
    """The key has leased enough for a shorter answer and can lend no more; the team's lease is in use, half unlent."""
    gate = asyncio.Event()

    async def script(visit: Visit) -> None:
        if visit.document.get("n"):
            await gate.wait()
        choice = {"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
        choices = [choice | {"index": index} for index in range(visit.document.get("n", 1))]
        usage = {"prompt_tokens": 10, "completion_tokens": 1_000, "total_tokens": 1_010}
        await visit.answer({"id": "x", "object": "chat.completion", "model": "m", "choices": choices, "usage": usage})

    async with (
        hand_backend(script) as backend,
        staged(tmp_path, configuration([Backend("a", backend.url)])) as stage,
    ):
        issued = await stage.new_key()
        key = await set_budget(stage, 10_000_000, Scope(key_id=issued.record.key_id))
        team = await set_budget(stage, 55_000_000)

        async def ask(**more: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {issued.key}"}
            return await stage.http.post(f"{stage.url}/v1/chat/completions", json=chat_body() | more, headers=headers)

        assert (await ask()).status_code == 200
        large = asyncio.create_task(stage.chat(max_tokens=40_000, n=2))
        free = {team.budget_id: 1}
        async with asyncio.timeout(20):
            while free[team.budget_id]:
                await asyncio.sleep(0.02)
                free = {name: pool.free for (name, _), pool in stage.keeper.treasury.escrow.pools.items()}
        assert 9_000_000 < free[key.budget_id] < 10_000_000
        answer = await ask()
        assert answer.status_code == 200, answer.text
        assert 1_024 <= int(answer.headers["x-weir-max-tokens"]) < 40_960
        gate.set()
        assert (await large).status_code == 200


@pytest.fixture
def greedy() -> Any:
    """A backend that counts far more tokens than the prompt has bytes."""

    async def script(visit: Visit) -> None:
        await visit.answer(
            {
                "id": "x",
                "object": "chat.completion",
                "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "!"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9_999, "completion_tokens": 5, "total_tokens": 10_004},
            }
        )

    return script


async def test_nobody_is_charged_more_than_was_reserved(tmp_path: Path, greedy: Any) -> None:
    """What an engine counts beyond all bounds is the owner's loss: the charge is what was reserved, and it shows."""
    async with hand_backend(greedy) as backend:
        assert isinstance(backend, HandBackend)
        config = configuration([Backend("a", backend.url, kind="openai", model="m")])
        async with staged(tmp_path, config) as stage:
            await set_budget(stage, 10_000_000)
            answer = await stage.chat(max_tokens=10)
            assert answer.status_code == 200, answer.text
            cost = answer.json()["usage"]["cost"]
            state = await drained(stage)
            assert round(cost * NANO) == state.spent < 100_000
            [record] = await stage.settled()
            assert record.attempts[0].charge_nano == state.spent
            metrics = (await stage.http.get(f"{stage.url}/metrics", headers=stage.admin)).text
            [line] = [each for each in metrics.splitlines() if each.startswith("weir_budget_excess_usd_total")]
            assert float(line.split()[-1]) > 0.0009
            assert (await stage.keeper.audit()).ok


async def test_what_concerns_no_budget_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of other teams, keys and models, and all requests under soft budgets, pass without a question."""
    async with (
        SimFleet([SimConfig("vllm", name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        asked: list[tuple[Any, ...]] = []
        books: LimitBook = stage.gateway.desk.purse._books
        real = books.admit

        async def admit(*arguments: Any) -> Any:
            asked.append(arguments)
            return await real(*arguments)

        monkeypatch.setattr(books, "admit", admit)
        await stage.keeper.create_team("others", "Others")
        await set_budget(stage, 1, Scope(team="others"))
        await set_budget(stage, 1, Scope(team="default", model="another/model"))
        await stage.keeper.ask(SET_BUDGET, (NewBudget(Scope(team="default"), Window.DAILY, 1, hard=False),))
        assert (await stage.chat()).status_code == 200
        assert not asked
        await set_budget(stage, NANO, Scope(model="qwen/qwen3-32b"))
        assert (await stage.chat()).status_code == 200
        assert len(asked) == 1


async def test_a_caller_who_leaves_gives_back_the_rest(tmp_path: Path) -> None:
    """A stream that is dropped is charged for what was produced; what was reserved beyond comes free."""
    config = SimConfig("vllm", name="gpu-a")
    async with SimFleet([config]) as fleet, staged(tmp_path, configuration(over(*fleet))) as stage:
        await set_budget(stage, NANO)
        body = chat_body() | {"stream": True, "max_tokens": 2_000}
        async with stage.http.stream(
            "POST", f"{stage.url}/v1/chat/completions", json=body, headers=stage.headers
        ) as response:
            assert response.status_code == 200
            async for _ in response.aiter_lines():
                break
        state = await drained(stage)
        assert 0 < state.spent < NANO


async def test_keys_have_spending_limits_as_openrouter_has_them(tmp_path: Path) -> None:
    """``limit`` and ``limit_reset`` make, change and remove a hard budget of the key, and ``GET /key`` shows it."""
    async with (
        SimFleet([SimConfig("vllm", name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        keys = f"{stage.url}/api/v1/keys"
        new = {"name": "n", "limit": 0.1, "limit_reset": "weekly"}
        made = (await stage.http.post(keys, json=new, headers=stage.admin)).json()
        assert (made["data"]["limit"], made["data"]["limit_reset"]) == (0.1, "weekly")
        headers = {"authorization": f"Bearer {made['key']}"}
        answer = await stage.http.post(
            f"{stage.url}/api/v1/chat/completions", json=chat_body() | {"max_tokens": 20}, headers=headers
        )
        cost = json.loads(answer.text)["usage"]["cost"]
        own = (await stage.http.get(f"{stage.url}/api/v1/key", headers=headers)).json()["data"]
        assert own["limit"] == 0.1
        assert own["limit_remaining"] == pytest.approx(0.1 - cost)
        assert own["usage"] == own["usage_weekly"] == cost
        assert own["effective_budget"]["scope"] == "key_limit"
        assert own["budgets"][0]["spend_usd"] == cost
        path = f"{keys}/{made['data']['hash']}"
        changed = await stage.http.patch(path, json={"limit": 0.000001}, headers=stage.admin)
        data = changed.json()["data"]
        assert (data["limit"], data["limit_reset"], data["limit_remaining"]) == (0.000001, "weekly", 0)
        again = await stage.http.post(f"{stage.url}/v1/chat/completions", json=chat_body(), headers=headers)
        assert refused(again)["scope"]["key"] == made["data"]["weir"]["key_id"]
        gone = await stage.http.patch(path, json={"limit": None}, headers=stage.admin)
        assert gone.json()["data"]["limit"] is None
        lost = await stage.http.patch(path, json={"limit_reset": "daily"}, headers=stage.admin)
        assert lost.status_code == 400
        free = await stage.http.post(f"{stage.url}/v1/chat/completions", json=chat_body(), headers=headers)
        assert free.status_code == 200
        manager = (await stage.http.get(f"{stage.url}/api/v1/key", headers=stage.admin)).json()["data"]
        assert manager["is_management_key"]
        assert (own["workspace_id"], manager["workspace_id"]) == ("default", None)


async def test_the_limit_of_a_key_is_one_budget_whoever_sets_it(tmp_path: Path) -> None:
    """Set as a budget it is the field, set as the field it is the budget; a soft one is no limit, and none is none."""
    async with (
        SimFleet([SimConfig("vllm", name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        keys, budgets = f"{stage.url}/api/v1/keys", f"{stage.url}/api/v1/budgets"
        made = (await stage.http.post(keys, json={"name": "n", "limit": 5}, headers=stage.admin)).json()
        path, key_id = f"{keys}/{made['data']['hash']}", made["data"]["weir"]["key_id"]
        own = {"authorization": f"Bearer {made['key']}"}

        async def limits() -> tuple[object, object]:
            shown = (await stage.http.get(path, headers=stage.admin)).json()["data"]
            return shown["limit"], (await stage.http.get(f"{stage.url}/api/v1/key", headers=own)).json()["data"][
                "limit"
            ]

        body = {"key": key_id, "window": "total", "limit_usd": "2", "alerts": [90]}
        told = (await stage.http.post(budgets, json=body, headers=stage.admin)).json()["data"]
        assert (await limits(), told["source"]) == ((2, 2), "key")
        assert (await stage.http.patch(path, json={"limit": 3}, headers=stage.admin)).json()["data"]["limit"] == 3
        (told,) = (await stage.http.get(budgets, params={"key": key_id}, headers=stage.admin)).json()["data"]
        assert (told["limit_usd"], told["alerts"]) == ("3", [90])
        await stage.http.post(budgets, json=body | {"window": "daily"}, headers=stage.admin)
        assert await limits() == (3, 3), "a budget of another window stands beside it"
        await stage.http.post(budgets, json=body | {"hard": False}, headers=stage.admin)
        assert await limits() == (None, None)
        await stage.http.patch(path, json={"limit": 4}, headers=stage.admin)
        assert await limits() == (4, 4)
        await stage.http.delete(f"{budgets}/{told['id']}", headers=stage.admin)
        assert await limits() == (None, None)


async def test_budgets_of_revoked_keys_are_listed_where_they_are_asked_for(tmp_path: Path) -> None:
    """They limit nothing any more: the usual list leaves them out, the key's own and that of revoked keys mark them."""
    async with (
        SimFleet([SimConfig("vllm", name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        url = f"{stage.url}/api/v1/budgets"
        keys = [(await stage.keeper.create_key(NewKey(name, "default"))).record.key_id for name in ("a", "b")]
        for key in keys:
            await stage.http.post(url, json={"key": key, "window": "daily", "limit_usd": "1"}, headers=stage.admin)

        async def listed(**query: str) -> list[tuple[str, bool]]:
            found = (await stage.http.get(url, params=query, headers=stage.admin)).json()["data"]
            return [(each["key"], each["revoked"]) for each in found]

        assert sorted(await listed()) == sorted((key, False) for key in keys)
        assert await listed(revoked="true") == []
        await stage.keeper.revoke_key(keys[0])
        assert await listed() == [(keys[1], False)]
        assert await listed(key=keys[0]) == await listed(revoked="true") == [(keys[0], True)]
        assert await listed(revoked="true", key=keys[1]) == await listed(revoked="true", team="default") == []


async def test_budgets_are_managed_over_http(tmp_path: Path) -> None:
    """Set, list, replace and delete, with the amounts as exact text; nothing for those without a management key."""
    async with (
        SimFleet([SimConfig("vllm", name="gpu-a")]) as fleet,
        staged(tmp_path, configuration(over(*fleet))) as stage,
    ):
        url = f"{stage.url}/api/v1/budgets"
        body = {"team": "default", "window": "total", "limit_usd": "0.30", "alerts": [90]}
        made = (await stage.http.post(url, json=body, headers=stage.admin)).json()["data"]
        assert (made["limit_usd"], made["remaining_usd"], made["resets_at"], made["hard"]) == ("0.3", "0.3", None, True)
        again = await stage.http.post(url, json=body | {"limit_usd": "0.25", "hard": False}, headers=stage.admin)
        assert again.json()["data"]["id"] == made["id"]
        listed = (await stage.http.get(url, params={"team": "default"}, headers=stage.admin)).json()["data"]
        assert [(each["limit_usd"], each["hard"], each["alerts"]) for each in listed] == [("0.25", False, [90])]
        assert (await stage.http.get(f"{url}/leases", headers=stage.admin)).json() == {"data": []}
        for wrong in ({"limit_usd": "1e3"}, {"window": "hourly"}, {"team": None}, {"team": "absent"}, {"alerts": [0]}):
            answer = await stage.http.post(url, json=body | wrong, headers=stage.admin)
            assert answer.status_code == 400, wrong
        assert (await stage.http.get(url, headers=stage.headers)).status_code == 403
        assert (await stage.http.delete(f"{url}/{made['id']}", headers=stage.admin)).json() == {"deleted": True}
        assert (await stage.http.delete(f"{url}/{made['id']}", headers=stage.admin)).status_code == 404
