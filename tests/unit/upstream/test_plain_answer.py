"""Whole answers that are read by declared types: the short way gives what the long way gives, or leaves it to it."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.types.call import Operation
from gateway.upstream.openai import decode, is_error, mend_answer
from gateway.upstream.plain_answer import plain_answer

ODD = st.sampled_from([None, 1, 1.5, True, "s", "", [], ["x"], {}, {"a": None}, 2**70]).map(copy.deepcopy)
"""Copied, since what stands in an answer is changed there, and the next example must not draw what this one left."""


def vllm() -> dict[str, Any]:
    """Return an answer as vLLM gives it, nulls and all."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "one two",
        "refusal": None,
        "annotations": None,
        "audio": None,
    }
    message |= {"function_call": None, "tool_calls": [], "reasoning_content": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    usage = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1763700000, "model": "m"}
    answer |= {"choices": [choice], "service_tier": None, "system_fingerprint": None, "usage": usage}
    return answer | {"prompt_logprobs": None, "kv_transfer_params": None}


def long_way(payload: bytes) -> dict[str, Any] | None:
    """Return the canonical form as ``mend_answer`` makes it, or None when there is none."""
    answer = decode(payload)
    if answer is None or is_error(answer) or not mend_answer(answer, Operation.CHAT):
        return None
    return answer


def test_what_vllm_answers_is_plain() -> None:
    """The usual answer is read by its types, and is what the long way makes of it, in the same order."""
    payload = json.dumps(vllm()).encode()
    assert json.dumps(plain_answer(payload)) == json.dumps(long_way(payload))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_short_way_gives_what_the_long_way_gives(data: st.DataObject) -> None:
    """Whatever an engine leaves out, adds or says otherwise: what counts as plain has the same canonical form."""
    answer = vllm()
    choice = answer["choices"][0]
    if data.draw(st.booleans()):
        answer["choices"].append(json.loads(json.dumps(choice)) | {"index": data.draw(st.sampled_from([1, None]))})
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.sampled_from([answer, choice, choice["message"]]))
        name = data.draw(st.sampled_from([*place, "error", "extra", "reasoning", "matched_stop", "token_ids"]))
        if data.draw(st.booleans()):
            place[name] = data.draw(ODD)
        elif name in place and place[name] is not choice["message"] and name != "choices":
            del place[name]
        if not isinstance(answer.get("choices"), list) or not isinstance(choice.get("message"), dict):
            break
    payload = json.dumps(answer).encode()
    plain = plain_answer(payload)
    assert plain is None or plain == long_way(payload)


def test_what_is_not_plain_is_left_to_the_long_way() -> None:
    """Tool calls, probabilities, unknown members, errors and what is no answer at all."""
    tool = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said: list[dict[str, Any]] = [
        {**vllm(), "extra": 1},
        {**vllm(), "error": {"message": "no"}},
        {**vllm(), "choices": []},
    ]
    said += [vllm(), vllm()]
    said[3]["choices"][0]["message"]["tool_calls"] = [tool]
    said[4]["choices"][0]["logprobs"] = {"content": []}
    for answer in said:
        assert plain_answer(json.dumps(answer).encode()) is None
    for payload in (b"", b"[]", b"{", b"\xff", b"[" * 100_000):
        assert plain_answer(payload) is None
