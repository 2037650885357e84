"""A model that a backend no longer has, or an API that it never had, takes nothing else of it away."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from gateway.fleet.health import FAILURES
from tests.fakes.backend import DONE, SSE_HEAD, Visit, chunk, event, hand_backend, whole
from tests.fakes.pair import DEAR
from tests.harness import Backend, Stage, configuration, staged

CHEAP: Final = 'cost: {prompt: "0.001", completion: "0.001"}'
MODELS: Final = f"""\
  - id: a/new
    context_length: 40960
    price: {{prompt: "0.10", completion: "0.30"}}
    endpoints:
      - {{backend: first, model: new, {CHEAP}}}
  - id: a/old
    context_length: 40960
    price: {{prompt: "0.10", completion: "0.30"}}
    endpoints:
      - {{backend: first, model: old, {CHEAP}}}
      - {{backend: second, model: old, {DEAR}}}
"""
WORDS: Final = {
    "openai": ("404 Not Found", {"error": {"message": "The model `old` does not exist", "code": "model_not_found"}}),
    "groq": (
        "400 Bad Request",
        {
            "error": {
                "message": "The model `old` has been decommissioned and is no longer supported.",
                "type": "invalid_request_error",
                "code": "model_decommissioned",
            }
        },
    ),
    "openrouter": ("400 Bad Request", {"error": {"message": "a/old is not a valid model ID", "code": 400}}),
    "openrouter without endpoints": (
        "404 Not Found",
        {"error": {"message": "No endpoints found for a/old.", "code": 404}},
    ),
    "gone": ("410 Gone", {"detail": "The model 'old' has reached its end of life and is no longer available."}),
}


class Api:
    """An API that answers for every model but ``old``, of which it says ``words``."""

    def __init__(self, words: str) -> None:
        self.status, self.document = WORDS[words]
        self.old = 0

    async def __call__(self, visit: Visit) -> None:
        """Answer one request."""
        if visit.document.get("model") == "old":
            self.old += 1
            await visit.answer(self.document, self.status)
        elif visit.document.get("stream"):
            await visit.send(SSE_HEAD)
            await visit.events(event(chunk("hello")), event(chunk(finish="stop")), DONE, last=True)
        else:
            await visit.answer(whole())


async def well(visit: Visit) -> None:
    """Answer anything."""
    await visit.answer(whole())


async def asked(stage: Stage, model: str) -> int:
    """Ask for an answer of ``model``; return the status."""
    return (await stage.chat(model=model)).status_code


@pytest.mark.parametrize("words", WORDS)
async def test_a_retired_model_is_had_from_others_and_takes_no_other_model_with_it(words: str, tmp_path: Path) -> None:
    """Five times it is asked in vain, then others are asked first; callers notice nothing."""
    api = Api(words)
    async with hand_backend(api) as first, hand_backend(well) as second:
        backends = [Backend("first", first.url, "openai"), Backend("second", second.url, "openai", provider="two")]
        config = configuration(backends, models=MODELS, more="routing: {default: cheapest}")
        async with staged(tmp_path, config) as stage:
            assert [await asked(stage, "a/old") for _ in range(FAILURES + 3)] == [200] * (FAILURES + 3)
            assert api.old == FAILURES
            assert len(second.visits) == FAILURES + 3
            assert await asked(stage, "a/new") == 200
            load = stage.gateway.registry.fleet.replicas["first"].load
            assert (load.failures, load.ejected_until) == (0, 0.0)


async def test_a_model_that_only_this_backend_has_is_asked_for_again(tmp_path: Path) -> None:
    """Its callers are told that it is not their fault, and once it is back they are answered."""
    api = Api("openrouter")
    async with (
        hand_backend(api) as only,
        staged(tmp_path, configuration([Backend("only", only.url, "openai", "old")])) as stage,
    ):
        answers = [await stage.chat() for _ in range(FAILURES + 2)]
        assert {answer.status_code for answer in answers} == {502}
        assert api.old == FAILURES + 2
        load = stage.gateway.registry.fleet.replicas["only"].load
        assert load.gaps is not None
        api.status, api.document = "200 OK", whole()
        assert (await stage.chat()).status_code == 200
        assert not load.gaps
        assert load.hindered_until == 0.0


async def test_a_teams_own_key_says_nothing_of_what_others_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key may not use every model."""
    monkeypatch.setenv("WEIR_SECRET", "a secret for the keys that teams bring along")
    api = Api("openai")
    async with (
        hand_backend(api) as only,
        staged(tmp_path, configuration([Backend("only", only.url, "openai", "old")])) as stage,
    ):
        body = {"provider": "own", "key": "sk-teams-own-key-0123456789", "is_byok_only": True}
        assert (await stage.http.post(f"{stage.url}/api/v1/byok", json=body, headers=stage.admin)).status_code == 201
        for _ in range(FAILURES):
            assert (await stage.chat()).status_code == 502
        assert stage.gateway.registry.fleet.replicas["only"].load.gaps is None
