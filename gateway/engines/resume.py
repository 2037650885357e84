"""Going on with an answer that another replica began: which requests allow it, and the body that asks for it.

Pure. What an engine can is in its description (``gateway.engines.kind.Resume``); what a request allows is decided
here, by its fields alone. The caller's own dictionary is never changed.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.engines.kind import Engine
from gateway.types.call import WHOLE, Call, Need, Operation

CONSTRAINTS: Final = (
    "ebnf",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guideline",
    "json_schema",
    "regex",
    "structural_tag",
    "structured_outputs",
)
"""Fields that bind an answer to a grammar, whose state at the break is not known."""
_DETAILS: Final = ("logprobs", "top_logprobs", "n_probs", "return_token_ids", "prompt_logprobs")
"""Fields that ask for something about each token, which a continuation would number anew."""
_SPEECH: Final = ("audio", "modalities")
BEGUN: Final = {"continue_final_message": True, "add_generation_prompt": False}
"""Fields that ask to go on with the assistant message at the end of a chat."""
_FREE: Final = (None, "auto", "none")


def hindrance(call: Call) -> str:
    """Return in a word why an answer to ``call`` cannot be gone on with elsewhere, ``""`` when it can."""
    body = call.body
    if call.choices != 1 or call.operation in WHOLE:
        return "choices"
    if call.needs & Need.LOGPROBS or any(body.get(name) for name in _DETAILS):
        return "logprobs"
    wanted = body.get("response_format")
    if any(body.get(name) for name in CONSTRAINTS) or (wanted and wanted != {"type": "text"}):
        return "structure"
    if call.operation is Operation.COMPLETIONS:
        return "prompt" if body.get("echo") or body.get("suffix") or _prompt(body) is None else ""
    if body.get("tool_choice") not in _FREE or body.get("function_call") not in _FREE:
        return "tools"
    return "speech" if any(body.get(name) for name in _SPEECH) else ""


def can_resume(engine: Engine, began: Engine, call: Call) -> bool:
    """Whether ``engine`` can go on with an answer to ``call`` that ``began`` began."""
    resume = engine.resume
    if resume is None or began.resume is None or call.operation not in engine.paths:
        return False
    if call.operation is Operation.COMPLETIONS:
        return True
    if not resume.chat:
        return False
    # A chat that ends with an assistant message means different things to different engines.
    last = call.body["messages"][-1]
    return last.get("role") != "assistant" or (engine.kind == began.kind and isinstance(last.get("content"), str))


def resumed_body(engine: Engine, call: Call, text: str, reasoning: str) -> dict[str, Any]:
    """Return the body that asks ``engine`` to go on behind ``text``, which the caller of ``call`` has been sent.

    Args:
        engine: who goes on; it must be able to.
        call: what the caller asked for.
        text: the answer's text so far, not empty.
        reasoning: the reasoning before it, or ``""``.
    """
    body, resume = dict(call.body), engine.resume
    assert resume is not None
    if call.operation is Operation.COMPLETIONS:
        body["prompt"] = (_prompt(body) or "") + text
        return body
    messages = list(body["messages"])
    begun = messages[-1] if resume.always or body.get("continue_final_message") else {}
    if begun.get("role") == "assistant":
        messages[-1] = {**begun, "content": begun["content"] + text}
    else:
        message = {"role": "assistant", "content": text}
        if reasoning and resume.reasoning:
            message[resume.reasoning] = reasoning
        messages.append(message)
    body["messages"] = messages
    body |= resume.fields
    if resume.template_arguments:
        given = body.get("chat_template_kwargs")
        body["chat_template_kwargs"] = {**(given if isinstance(given, dict) else {}), **resume.template_arguments}
    return body


def unbegun(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Return ``body`` without the fields that ask to go on with its last message, where nobody knows them.

    An external API refuses what it does not know, and goes on with such a message unasked or not at all.
    """
    if "continue_final_message" not in body or (engine.resume is not None and engine.resume.fields):
        return body
    return {name: value for name, value in body.items() if name not in BEGUN}


def _prompt(body: dict[str, Any]) -> str | None:
    """Return the one prompt of a text completion, or None when it is not one text."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return prompt if isinstance(prompt, str) else None
