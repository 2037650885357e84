"""What is managed and looked up through OpenRouter's client for Python: credits, workspaces, guardrails and others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

import pytest
from openrouter import OpenRouter, errors, operations
from openrouter.types import UnrecognizedStr
from openrouter.utils import BackoffStrategy, RetryConfig

from tests.clients.house import MODEL, RERANKER, SIMULATED, House, cost
from tests.clients.plays import PLAYS, PROMPT
from tests.clients.shows import OPENROUTER as CLIENT
from tests.clients.shows import shows as show
from tests.e2e.processes import eventually

shows: Final = partial(show, CLIENT)


def connect(house: House, key: str) -> OpenRouter:
    """Return a client that does not retry."""
    once = RetryConfig("none", BackoffStrategy(1, 1, 1.0, 1), retry_connection_errors=False)
    return OpenRouter(api_key=key, server_url=house.url + "/api/v1", retry_config=once)


@pytest.fixture(scope="module")
def manager(house: House) -> Iterator[OpenRouter]:
    """A client with the management key."""
    with connect(house, house.admin) as made:
        yield made


def play(name: str) -> Any:
    """Return the messages that ask for a play."""
    return [{"role": "user", "content": f"Play: {name}"}]


@shows("GET /generation/content", "what was asked and answered")
def test_content(house: House) -> None:
    """Of a team whose content is stored, and of no other."""
    with connect(house, house.keeping_key("kept-py")) as client:
        # The choice reaches the worker a moment after it was made, and what is stored the reader.
        asked: list[str] = []

        def look() -> Any:
            asked.append(client.chat.send(model=MODEL, messages=play("reasoning")).id)
            for identity in asked:
                with suppress(errors.NotFoundResponseError):
                    return client.generations.list_generation_content(id=identity).data
            return None

        data = eventually(look)
    assert [message["content"] for message in data.input.messages] == ["Play: reasoning"]
    assert (data.output.completion, data.output.reasoning) == ("Hello.", PLAYS["reasoning"].thought)
    with connect(house, house.key) as client:
        identity = client.chat.send(model=MODEL, messages=play("text")).id
        with pytest.raises(errors.NotFoundResponseError):
            client.generations.list_generation_content(id=identity)


@shows("GET /credits", "spent and left")
def test_credits(house: House, manager: OpenRouter) -> None:
    """What is spent grows by what an answer costs."""

    def spent() -> Decimal:
        return Decimal(str(manager.credits.get_credits().data.total_usage))

    before = spent()
    with connect(house, house.key) as client:
        client.chat.send(model=MODEL, messages=play("text"))
    eventually(lambda: spent() >= before + cost(PLAYS["text"]))
    assert manager.credits.get_credits().data.total_credits >= 0


@shows("POST /workspaces", "make, list, read, change, budget, delete")
def test_workspaces(manager: OpenRouter) -> None:
    """The life of a workspace, which is a team, and of its budget."""
    made = manager.workspaces.create(name="Search", slug="search-py", description="Finds things").data
    assert (made.name, made.slug, made.description) == ("Search", "search-py", "Finds things")
    assert manager.workspaces.get(id=made.id).data.slug == "search-py"
    listed = manager.workspaces.list()
    assert listed is not None
    assert "search-py" in [each.slug for each in listed.result.data]
    changed = manager.workspaces.update(id=made.id, name="Research").data
    assert (changed.id, changed.name) == (made.id, "Research")
    budget = manager.workspaces.set_budget(workspace_ref="search-py", interval="monthly", limit_usd=12.5).data
    assert budget.limit_usd == 12.5
    assert [each.limit_usd for each in manager.workspaces.list_budgets(workspace_ref="search-py").data] == [12.5]
    manager.workspaces.delete_budget(workspace_ref="search-py", interval="monthly")
    assert manager.workspaces.list_budgets(workspace_ref="search-py").data == []
    assert manager.workspaces.delete(id=made.id).DELETED is True
    with pytest.raises(errors.NotFoundResponseError):
        manager.workspaces.get(id=made.id)


@shows("POST /guardrails", "make, assign, obey, delete")
def test_guardrails(house: House, manager: OpenRouter) -> None:
    """A key under a guardrail may use the models it allows, and no other."""
    made = manager.guardrails.create(name="one model", allowed_models=[SIMULATED]).data
    key = manager.api_keys.create(name="guarded")
    manager.guardrails.bulk_assign_keys(id=made.id, key_hashes=[key.data.hash])
    assert made.name == "one model"
    with connect(house, key.key) as client:

        def allowed(model: str) -> bool:
            try:
                client.chat.send(model=model, messages=play("text"), max_tokens=4)
            except (errors.ForbiddenResponseError, errors.NotFoundResponseError):
                return False
            return True

        eventually(lambda: not allowed(MODEL))
        assert allowed(SIMULATED)
        assert manager.guardrails.delete(id=made.id).DELETED is True
        eventually(lambda: allowed(MODEL))


@shows("GET /presets", "make from a request, list, read, use")
def test_presets(house: House, manager: OpenRouter) -> None:
    """What a preset says holds for requests that name it."""
    with connect(house, house.key) as client:
        told: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Play: text"}]
        made = client.presets.create_presets_chat_completions(
            slug="brief-py", model=MODEL, messages=told, temperature=0.25
        ).data
        assert made.slug == "brief-py"
        assert "brief-py" in [each.slug for each in client.presets.list().result.data]
        found = client.presets.get(slug="brief-py").data
        assert found.slug == "brief-py"

        def used() -> bool:
            client.chat.send(model=f"{MODEL}@preset/brief-py", messages=play("text"))
            sent = house.engine.last
            return sent.get("temperature") == 0.25 and sent["messages"][0]["content"] == "Be brief."

        eventually(used)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client knows OpenRouter's providers only
@shows("POST /byok", "make, list, change, delete")
def test_byok(manager: OpenRouter) -> None:
    """A team's own key for a provider: what is shown of it is a label, never the key."""
    secret = "sk-of-the-team-0123456789abcdef"
    made = manager.byok.create(provider=UnrecognizedStr("script"), key=secret, name="ours").data
    assert secret not in str(made)
    listed = manager.byok.list()
    assert listed is not None
    assert made.id in [each.id for each in listed.result.data]
    assert manager.byok.update(id=made.id, disabled=True).data.disabled is True
    assert manager.byok.delete(id=made.id).DELETED is True
    with pytest.raises(errors.NotFoundResponseError):
        manager.byok.get(id=made.id)


@pytest.mark.usefixtures("whole_day")
@shows("POST /analytics/query", "tokens and cost by model")
def test_analytics(house: House, manager: OpenRouter) -> None:
    """One row for one model. The client throws the values of rows away, so they are looked at without it."""
    with connect(house, house.key) as client:
        client.chat.send(model=MODEL, messages=play("text"))
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def rows(model: str) -> int:
        only: operations.FilterTypedDict = {"field": "model", "operator": "eq", "value": model}
        found = manager.analytics.query_analytics(
            metrics=["request_count", "tokens_total", "total_usage"],
            dimensions=["model"],
            filters=[only],
            time_range={"start": start, "end": datetime.now(UTC)},
        )
        return int(found.data.metadata.row_count)

    eventually(lambda: rows(MODEL) == 1)
    assert rows("no/such") == 0
    asked = {"metrics": ["tokens_total", "total_usage"], "dimensions": ["model"]}
    (row,) = [row for row in house.manage("POST", "/analytics/query", asked)["data"]["data"] if row["model"] == MODEL]
    assert int(row["tokens_total"]) >= PROMPT + 9
    assert Decimal(str(row["total_usage"])) >= cost(PLAYS["text"])
    known = manager.analytics.get_analytics_meta().data
    assert {"request_count", "tokens_total", "total_usage"} <= {each.name for each in known.metrics}


@shows("POST /rerank", "documents by relevance")
def test_rerank(house: House) -> None:
    """Documents come back in the engine's order, with its scores."""
    with connect(house, house.key) as client:
        answer = client.rerank.rerank(model=RERANKER, query="rain", documents=["sun", "rain"], top_n=2)
    assert [(each.index, each.relevance_score) for each in answer.results] == [(1, 0.75), (0, 0.25)]
    assert answer.model == RERANKER
