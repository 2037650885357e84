"""Requests in OpenAI's Responses, read as strictly as OpenAI does where a translator could go wrong, and the answers.

Nothing is stored here: ids of responses and items that would have to be looked up are refused, and so is reasoning that
does not come back sealed. A request comes to the chat request that asks for the same, so that equal questions get equal
answers. With the tool ``web_search`` the answer searches first and cites what it found.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from zlib import crc32

import msgspec

from gateway.sim.answers import Answer, Choice
from gateway.sim.faces.face import Document
from gateway.sim.requests import (
    BadRequest,
    ChatRequest,
    Function,
    JsonSchema,
    Message,
    NamedFunction,
    ResponseFormat,
    Tool,
    ToolChoice,
)

SEARCH = "web_search"
ENCRYPTED = "reasoning.encrypted_content"
_ID = re.compile(r"(msg|rs|fc|fco|ws)_[A-Za-z0-9]{1,60}")
_SEAL = "sealed-"
_KINDS = frozenset({"message", "function_call", "function_call_output", "reasoning", "web_search_call"})


class ResponsesRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/responses``."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    include: list[str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    previous_response_id: str | None = None

    @property
    def searches(self) -> bool:
        """Whether the answer begins with a search."""
        return any(tool.get("type") == SEARCH for tool in self.tools or ())

    def chat(self) -> ChatRequest:
        """Return the chat request that asks for the same; raises BadRequest."""
        if self.previous_response_id is not None:
            raise BadRequest(
                f"Previous response with id '{self.previous_response_id}' not found.", "previous_response_id"
            )
        if self.max_output_tokens is not None and self.max_output_tokens < 1:
            raise BadRequest("Invalid 'max_output_tokens': integer below minimum value.", "max_output_tokens")
        messages = [Message("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            messages.append(Message("user", self.input))
        else:
            messages += [_message(item, f"input[{place}]") for place, item in enumerate(self.input)]
        functions = [tool for tool in self.tools or () if tool.get("type") == "function"]
        chosen: Any = self.tool_choice
        if isinstance(chosen, dict):
            chosen = ToolChoice(NamedFunction(str(chosen.get("name")))) if chosen.get("type") == "function" else None
        form = (self.text or {}).get("format") or {}
        bound = None
        if form.get("type") == "json_schema":
            bound = ResponseFormat("json_schema", JsonSchema(form.get("schema"), form.get("name")))
        return ChatRequest(
            model=self.model,
            messages=messages,
            stream=self.stream,
            max_tokens=self.max_output_tokens,
            tools=[Tool(Function(str(tool["name"]), tool.get("parameters"))) for tool in functions] or None,
            tool_choice=chosen,
            response_format=bound,
        )


RESPONSES = msgspec.json.Decoder(ResponsesRequest)


def _message(item: dict[str, Any], place: str) -> Message:
    """Return what an item of the input is in a chat."""
    kind = item.get("type", "message")
    identity = item.get("id")
    if kind not in _KINDS:
        raise BadRequest(f"Invalid value: '{kind}'.", f"{place}.type")
    if identity is not None and not _ID.fullmatch(str(identity)):
        raise BadRequest(f"Invalid '{place}.id': '{identity}'.", f"{place}.id")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, list):
            content = [{**part, "type": "text"} if "text" in part else part for part in content]
        return Message(str(item.get("role")), content)
    if kind == "function_call":
        return Message("assistant", None, [item])
    if kind == "function_call_output":
        return Message("tool", str(item.get("output")))
    if kind == "reasoning" and not str(item.get("encrypted_content") or "").startswith(_SEAL):
        words = f"Item with id '{identity}' not found. Items are not persisted when `store` is set to false."
        raise BadRequest(words, place)
    return Message("assistant", "")


def response(
    answer: Answer,
    asked: ResponsesRequest,
    output: list[Document],
    usage: Document | None = None,
    *,
    done: bool = False,
) -> Document:
    """Return a response object; ``done`` when it has ended."""
    choice = answer.choices[0]
    short = choice.finish == "length"
    return {
        "id": "resp_" + answer.id,
        "object": "response",
        "created_at": answer.created,
        "completed_at": answer.created if done and not short else None,
        "status": ("incomplete" if short else "completed") if done else "in_progress",
        "background": False,
        "billing": {"payer": "developer"},
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if done and short else None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": (asked.reasoning or {}).get("effort"), "summary": None},
        "service_tier": "default",
        "store": asked.store is not False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(asked.text or {})},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_logprobs": 0,
        "top_p": 0.98,
        "truncation": "disabled",
        "usage": None if usage is None else _usage(usage),
    }


def output(answer: Answer, asked: ResponsesRequest) -> list[Document]:
    """Return all items of an answer."""
    choice = answer.choices[0]
    items: list[Document] = []
    if choice.reasoning:
        items.append(reasoning(answer, asked, choice))
    if asked.searches:
        items.append(search(answer))
    if choice.tool is not None:
        items.append(call(answer, choice, choice.content))
    elif choice.content:
        items.append(message(answer, asked, choice.content, choice.finish))
    return items


def reasoning(answer: Answer, asked: ResponsesRequest, choice: Choice) -> Document:
    """Return the item of the thoughts: a summary, and all of them sealed where that is asked for."""
    item: Document = {"type": "reasoning", "id": "rs_" + answer.id}
    item["summary"] = [{"type": "summary_text", "text": choice.thoughts}]
    if ENCRYPTED in (asked.include or ()):
        item["encrypted_content"] = f"{_SEAL}{crc32(choice.thoughts.encode()):08x}"
    return item


def search(answer: Answer, status: str = "completed") -> Document:
    """Return the item of the search."""
    action = {"type": "search", "query": "weirs"}
    return {"type": "web_search_call", "id": "ws_" + answer.id, "status": status, "action": action}


def call(answer: Answer, choice: Choice, arguments: str) -> Document:
    """Return the item of a function call."""
    tool = choice.tool
    assert tool is not None
    head: Document = {"type": "function_call", "id": "fc_" + answer.id, "call_id": tool.id, "name": tool.name}
    return {**head, "arguments": arguments, "status": "completed"}


def message(answer: Answer, asked: ResponsesRequest, text: str, finish: str = "stop") -> Document:
    """Return the item of a message; what was searched for is cited."""
    part: Document = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    if asked.searches:
        part["annotations"] = [citation(text)]
    status = "incomplete" if finish == "length" else "completed"
    return {"type": "message", "id": "msg_" + answer.id, "status": status, "role": "assistant", "content": [part]}


def citation(text: str) -> Document:
    """Return the annotation of a text that was searched for."""
    where = {"url": "https://weirs.example/flow", "title": "Weirs"}
    return {"type": "url_citation", "start_index": 0, "end_index": len(text), **where}


def _usage(usage: Document) -> Document:
    """Return usage of the chat form in that of responses."""
    prompt: Any = usage.get("prompt_tokens_details") or {}
    completion: Any = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": prompt.get("cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": completion.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }
