"""Going on with an answer begun elsewhere: what is asked of each engine, and which requests allow it."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from gateway.config.snapshot import EXTERNAL
from gateway.edge import openai_chat, openai_completions
from gateway.engines.body import upstream_body
from gateway.engines.catalogue import ENGINES
from gateway.engines.resume import CONSTRAINTS, can_resume, hindrance, resumed_body
from gateway.types.call import Call, Operation

USER = {"role": "user", "content": "Tell me about weirs."}
CHATS = ["vllm", "sglang", "llamacpp"]
OWN = [*CHATS, "tgi"]


def chat(**more: Any) -> Call:
    """Return a chat request for a stream."""
    return openai_chat.read({"model": "m", "messages": [USER], "stream": True, **more}, openrouter=False)


def completion(prompt: Any = "Once", **more: Any) -> Call:
    """Return a text completion for a stream."""
    return openai_completions.read({"model": "m", "prompt": prompt, "stream": True, **more}, openrouter=False)


@pytest.mark.parametrize("kind", ENGINES)
def test_what_each_kind_can_do(kind: str) -> None:
    """Own engines go on with text completions, most with chats, an external API with neither."""
    engine = ENGINES[kind]
    assert can_resume(engine, engine, completion()) == (kind in OWN)
    assert can_resume(engine, engine, chat()) == (kind in CHATS)
    assert engine.external == (kind in EXTERNAL)
    for other in OWN:
        assert not can_resume(ENGINES["openai"], ENGINES[other], completion())
        assert not can_resume(ENGINES[other], ENGINES["openai"], completion())


@pytest.mark.parametrize("kind", CHATS)
def test_the_fields_that_ask_for_it_reach_the_engine(kind: str) -> None:
    """What resumes a chat is on the list of what may pass, and the caller's own body is not changed."""
    engine, call = ENGINES[kind], chat(chat_template_kwargs={"tone": "dry"})
    before = copy.deepcopy(call.body)
    resumed = resumed_body(engine, call, "Weirs ", "Hm.")
    assert call.body == before
    sent = upstream_body(engine, Operation.CHAT, resumed, upstream_model="m", max_tokens=5, stream=True)
    message = {"role": "assistant", "content": "Weirs "}
    if kind == "vllm":
        message["reasoning_content"] = "Hm."
    assert sent["messages"] == [USER, message]
    assert engine.resume is not None
    assert {name: sent[name] for name in engine.resume.fields} == dict(engine.resume.fields)
    assert sent["chat_template_kwargs"] == {"tone": "dry", **engine.resume.template_arguments}


def test_a_message_the_caller_began_is_made_longer() -> None:
    """A caller who asked to go on with a message of its own gets its rest, and so does the next engine."""
    begun = {"role": "assistant", "content": "Once"}
    call = chat(messages=[USER, begun], continue_final_message=True)
    assert resumed_body(ENGINES["vllm"], call, " upon", "")["messages"] == [
        USER,
        {"role": "assistant", "content": "Once upon"},
    ]
    assert begun["content"] == "Once"
    unasked = chat(messages=[USER, begun])
    assert resumed_body(ENGINES["vllm"], unasked, "Twice", "")["messages"][1:] == [
        begun,
        {"role": "assistant", "content": "Twice"},
    ]
    assert resumed_body(ENGINES["llamacpp"], unasked, " upon", "")["messages"][1]["content"] == "Once upon"
    # The same body means two things to two kinds, so one does not go on for the other.
    assert can_resume(ENGINES["vllm"], ENGINES["vllm"], unasked)
    assert not can_resume(ENGINES["vllm"], ENGINES["llamacpp"], unasked)
    parts = chat(messages=[USER, {"role": "assistant", "content": [{"type": "text", "text": "Once"}]}])
    assert not can_resume(ENGINES["vllm"], ENGINES["vllm"], parts)


def test_a_prompt_is_made_longer() -> None:
    """Alone or as the only one of a list."""
    for prompt in ("Once", ["Once"]):
        assert resumed_body(ENGINES["tgi"], completion(prompt), " upon\n", "")["prompt"] == "Once upon\n"


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (chat(), ""),
        (chat(response_format={"type": "text"}, tools=[{"type": "function"}], tool_choice="auto"), ""),
        (chat(n=2), "choices"),
        (chat(logprobs=True), "logprobs"),
        (chat(top_logprobs=2), "logprobs"),
        (chat(n_probs=2), "logprobs"),
        (chat(response_format={"type": "json_object"}), "structure"),
        (chat(tool_choice="required"), "tools"),
        (chat(tool_choice={"type": "function", "function": {"name": "f"}}), "tools"),
        (chat(function_call={"name": "f"}), "tools"),
        (chat(modalities=["text", "audio"]), "speech"),
        (completion(), ""),
        (completion(["a", "b"]), "choices"),
        (completion(["a"]), ""),
        (completion([1, 2, 3]), "prompt"),
        (completion(echo=True), "prompt"),
        (completion(suffix="."), "prompt"),
        (completion(logprobs=1), "logprobs"),
        (msgspec.structs.replace(chat(), operation=Operation.EMBEDDINGS), "choices"),
    ],
)
def test_what_a_request_allows(call: Call, word: str) -> None:
    """The hindrance is named, for the reader of the code more than for the caller."""
    assert hindrance(call) == word


@pytest.mark.parametrize("field", CONSTRAINTS)
def test_a_grammar_is_a_hindrance(field: str) -> None:
    """Its state at the break is not known to anybody else."""
    assert hindrance(chat(**{field: {"a": 1}})) == "structure"
    assert hindrance(completion(**{field: {"a": 1}})) == "structure"


def test_every_constraint_an_engine_takes_is_known() -> None:
    """A field of that family that is new on a pass-list must be put on the list of hindrances as well."""
    family = ("guided", "grammar", "ebnf", "regex", "schema", "structur", "guideline")
    taken = {name for engine in ENGINES.values() for fields in engine.fields.values() for name in fields}
    found = {name for name in taken if any(word in name for word in family)}
    assert found <= {*CONSTRAINTS, "guided_whitespace_pattern"}
