"""What an engine says of an error reaches callers with its meaning and without keys and addresses."""

from __future__ import annotations

import json

import pytest

from gateway.engines.catalogue import ENGINES
from gateway.upstream.openai import error_event, failure_of


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("out of memory at 10.0.0.7:8000", "out of memory at [address]"),
        ("see http://10.1.2.3:8000/v1/x?y=1 now", "see [address] now"),
        ("dial tcp gpu-a.internal:80: refused", "dial tcp [address]: refused"),
        ("no route to vllm.prod.svc.cluster.local or [fd00::1]:80", "no route to [address] or [address]"),
        ("key sk-abcdefghijkl is over its quota", "key [redacted] is over its quota"),
        ("at most 4096 tokens; vLLM 0.11.2; https://example.org/docs", None),
    ],
)
def test_addresses_and_keys_are_left_out(said: str, told: str | None) -> None:
    """As an error answer, as an error event, and as a plain string."""
    expected = said if told is None else told
    for document in ({"error": {"message": said}}, {"error": said}, {"message": said, "object": "error"}):
        assert failure_of(ENGINES["vllm"], 500, [], json.dumps(document).encode()).message == expected
        assert error_event(ENGINES["vllm"], document).message == expected


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        (
            [
                {"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user'", "input": "my secret"},
                {"msg": "Field required", "type": "missing"},
            ],
            "body.messages.0.role: Input should be 'user'; Field required",
        ),
        ({"loc": ["body", "n"], "msg": "too many", "input": "my secret"}, "body.n: too many"),
        (["no", {"input": "my secret"}, None, 7], "no; 7"),
        ({"input": "my secret"}, "the backend refused the request"),
        ([["my secret"]], "the backend refused the request"),
        ([{"msg": str(number)} for number in range(9)], "0; 1; 2; 3; 4; 5; 6; 7"),
    ],
)
def test_a_list_of_complaints_is_told_without_what_it_quotes(detail: object, told: str) -> None:
    """Servers made with FastAPI say what is wrong with a request, where, and quote it: a caller's words stay theirs."""
    failure = failure_of(ENGINES["vllm"], 422, [], json.dumps({"detail": detail}).encode())
    assert (failure.message, failure.status) == (told, 422)


@pytest.mark.parametrize("status", [401, 403])
def test_words_about_our_key_stay_here(status: int) -> None:
    """A caller can do nothing about the key of a backend, and the backend quotes it."""
    body = json.dumps({"error": {"message": "Incorrect API key provided: sk-ab***yz of org Acme"}}).encode()
    failure = failure_of(ENGINES["openai"], status, [], body)
    assert (failure.message, failure.status) == ("the backend refused the gateway", status)
