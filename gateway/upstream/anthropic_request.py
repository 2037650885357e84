"""A chat request said in Anthropic's messages.

``DROPPED`` names what a chat request can say and messages cannot; it is left out, as an engine's field rules do. What
would change the meaning if it were left out (a part of a message) is refused with ``BadRequest`` naming it. Nothing
else is raised, and the request that is read is never changed.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from gateway.types.errors import BadRequest
from gateway.types.messages import EFFORTS, LEAST_BUDGET, REASONING_FORMAT, input_of

DROPPED: Final[Mapping[str, str]] = {
    "frequency_penalty": "there is no such sampling",
    "presence_penalty": "there is no such sampling",
    "repetition_penalty": "there is no such sampling",
    "min_p": "there is no such sampling",
    "top_a": "there is no such sampling",
    "logit_bias": "there is no such sampling",
    "seed": "there is no such sampling",
    "prediction": "there is no such member",
    "metadata": "only `user` has a place, as `metadata.user_id`",
    "store": "nothing is kept",
    "functions": "the older form of `tools`",
    "function_call": "the older form of `tool_choice`",
    "web_search_options": "there is no such member",
    "response_format.json_object": "only a schema can be asked for; `json_schema` becomes `output_config.format`",
    "service_tier.flex": "there is no such tier",
    "image_url.detail": "images have no detail",
    "name": "messages have no name of their speaker",
    "temperature above 1": "1 is the most there is, and it is what is sent",
    "temperature, top_k and top_p below 0.95 with reasoning": "thinking allows none of them",
    "top_p beside temperature": "models since Opus 4.1 refuse the two together, and temperature is the more usual one",
    "reasoning with a forced tool": "thinking allows no forced tool, so the tool goes first",
    "reasoning behind tool calls whose thoughts are missing": "they would be refused, so nothing is thought",
    "reasoning behind the beginning of an answer": "an answer that is gone on with allows no thinking",
    "reasoning of other providers": "thoughts without Anthropic's signature would be refused",
    "the place of a system message among others": "all of them stand before the first turn",
}
"""What is left out, and why. Dots lead into a member."""

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?(;base64)?,", re.ASCII)
_UNSOUND_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_VERBOSITY: Final = frozenset({"low", "medium", "high", "xhigh", "max"})

Block = dict[str, Any]


def messages_body(chat: Mapping[str, Any], *, model: str, max_tokens: int, stream: bool) -> dict[str, Any]:
    """Return what says the ``chat`` request in messages.

    Args:
        chat: the caller's body, whose messages have roles and whose tools are objects.
        model: the model's name on that API.
        max_tokens: the length limit, which this API cannot do without.
        stream: whether it shall stream.

    Raises:
        BadRequest: a part of a message cannot be said.
    """
    system, turns = _turns(chat["messages"])
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": turns}
    if system:
        body["system"] = system if len(system) > 1 or "cache_control" in system[0] else system[0]["text"]
    if stream:
        body["stream"] = True
    _say_tools(body, chat)
    output = {}
    form = chat.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = form.get("json_schema")
        if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
            output["format"] = {"type": "json_schema", "schema": schema["schema"]}
    if isinstance(chat.get("verbosity"), str) and chat["verbosity"] in _VERBOSITY:
        output["effort"] = chat["verbosity"]
    if output:
        body["output_config"] = output
    stop = chat.get("stop")
    stops = [text for text in ([stop] if isinstance(stop, str) else stop or ()) if isinstance(text, str)]
    if any(text.strip() for text in stops):
        body["stop_sequences"] = [text for text in stops if text.strip()]
    if isinstance(chat.get("user"), str) and chat["user"]:
        body["metadata"] = {"user_id": chat["user"]}
    if isinstance(chat.get("cache_control"), dict):
        body["cache_control"] = chat["cache_control"]
    tier = chat.get("service_tier")
    if tier in ("auto", "priority"):
        body["service_tier"] = "auto"
    elif tier in ("default", "standard"):
        body["service_tier"] = "standard_only"
    _say_sampling(body, chat)
    return body


def budgeted(body: dict[str, Any]) -> None:
    """Bring a thinking budget under the length limit of ``body``, in place; one that is too small goes."""
    thinking, most = body.get("thinking"), body["max_tokens"] - 1
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(budget, int) or budget <= most:
        return
    if most < LEAST_BUDGET:
        del body["thinking"]
    else:
        body["thinking"] = {**thinking, "budget_tokens": most} if isinstance(thinking, dict) else thinking


def _say_sampling(body: dict[str, Any], chat: Mapping[str, Any]) -> None:
    """Set thinking, and sampling as far as it allows any."""
    thinking = _thinking(chat, body["max_tokens"])
    thinks = thinking is not None and thinking["type"] != "disabled"
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    if thinks and (forced or _thoughtless(body["messages"])):
        thinking, thinks = None, False
    if thinking is not None:
        body["thinking"] = thinking
    temperature, top_p, top_k = chat.get("temperature"), chat.get("top_p"), chat.get("top_k")
    if isinstance(top_p, int | float) and (not thinks or top_p >= 0.95):
        body["top_p"] = top_p
    if thinks:
        return
    if isinstance(temperature, int | float):
        body["temperature"] = min(temperature, 1)
        body.pop("top_p", None)
    if isinstance(top_k, int) and top_k > 0:
        body["top_k"] = top_k


def _thinking(chat: Mapping[str, Any], max_tokens: int) -> dict[str, Any] | None:
    """Return how much is to be thought, or None when nothing is said of it or there is no room for it."""
    wish = chat.get("reasoning")
    wish = wish if isinstance(wish, dict) else {}
    effort = wish.get("effort") or chat.get("reasoning_effort")
    if effort == "none" or wish.get("enabled") is False:
        return {"type": "disabled"}
    budget = wish.get("max_tokens")
    if type(budget) is not int or budget < 1:
        if effort is None and wish.get("enabled") is not True:
            return None
        budget = int(max_tokens * EFFORTS.get(effort if isinstance(effort, str) else "medium", 0.5))
    budget = min(max(budget, LEAST_BUDGET), max_tokens - 1)
    return {"type": "enabled", "budget_tokens": budget} if budget >= LEAST_BUDGET else None


def _thoughtless(turns: list[dict[str, Any]]) -> bool:
    """Whether the last turns are a tool's use and its results, without the thoughts that led to it."""
    if len(turns) < 2 or turns[-1]["content"][0].get("type") != "tool_result":
        return turns[-1]["role"] == "assistant" if turns else False
    first = turns[-2]["content"][0].get("type")
    return first not in ("thinking", "redacted_thinking")


def _say_tools(body: dict[str, Any], chat: Mapping[str, Any]) -> None:
    tools = chat.get("tools")
    if not tools:
        return
    body["tools"] = [_tool(tool, place) for place, tool in enumerate(tools)]
    wish, choice = chat.get("tool_choice"), None
    if isinstance(wish, str):
        choice = {"type": _CHOICES.get(wish, "auto")}
    elif isinstance(wish, dict):
        function = wish.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if wish.get("type") != "function" or not isinstance(name, str):
            raise _unsayable("tool_choice", f"a choice of type {wish.get('type')!r}")
        choice = {"type": "tool", "name": name}
    if chat.get("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True  # type: ignore[assignment] # a member of another type
    if choice is not None:
        body["tool_choice"] = choice


def _tool(tool: Mapping[str, Any], place: int) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, dict):
        raise _unsayable(f"tools[{place}]", f"a tool of type {tool.get('type')!r}")
    said: dict[str, Any] = {"name": function.get("name")}
    if isinstance(function.get("description"), str):
        said["description"] = function["description"]
    schema = function.get("parameters")
    said["input_schema"] = schema if isinstance(schema, dict) and schema else {"type": "object", "properties": {}}
    if function.get("strict") is True:
        said["strict"] = True
    marked = tool.get("cache_control") or function.get("cache_control")
    if isinstance(marked, dict):
        said["cache_control"] = marked
    return said


def _turns(messages: list[dict[str, Any]]) -> tuple[list[Block], list[dict[str, Any]]]:
    """Return the system's blocks, and the turns: alternating, each with the blocks of all its messages."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        role, path = message["role"], f"messages[{place}]"
        if role in ("system", "developer"):
            system += _blocks(message, path)
            continue
        if role == "assistant":
            blocks = _assistant(message, path)
        elif role in ("tool", "function"):
            role, blocks = "user", [_result(message, path)]
        else:
            role, blocks = "user", _blocks(message, path)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns and system:
        return [], [{"role": "user", "content": system}]  # a prompt that is nothing but a system message
    if turns and turns[-1]["role"] == "assistant":
        _trim(turns[-1]["content"])
    return system, turns


def _trim(blocks: list[Block]) -> None:
    """Take blanks off the end of a turn that the answer goes on with: they are refused there."""
    last = blocks[-1]
    if last.get("type") == "text":
        text = last["text"].rstrip()
        if text:
            blocks[-1] = {**last, "text": text}
        elif len(blocks) > 1:
            blocks.pop()


def _assistant(message: Mapping[str, Any], path: str) -> list[Block]:
    details = message.get("reasoning_details")
    blocks = thoughts_of(details) if isinstance(details, list) else []
    blocks += _blocks(message, path)
    if not message.get("content") and isinstance(message.get("refusal"), str) and message["refusal"]:
        blocks.append({"type": "text", "text": message["refusal"]})
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function")
        if not isinstance(function, dict):
            raise _unsayable(f"{path}.tool_calls[{number}]", f"a call of type {call.get('type')!r}")
        block = {
            "type": "tool_use",
            "id": tool_id(call.get("id")),
            "name": function.get("name"),
            "input": arguments(function.get("arguments")),
        }
        if isinstance(call.get("cache_control"), dict):
            block["cache_control"] = call["cache_control"]
        blocks.append(block)
    return blocks


def _result(message: Mapping[str, Any], path: str) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": tool_id(message.get("tool_call_id"))}
    content = message.get("content")
    if isinstance(content, str):
        block["content"] = content
    elif content:
        block["content"] = _blocks(message, path)
    if isinstance(message.get("cache_control"), dict):
        block["cache_control"] = message["cache_control"]
    return block


def thoughts_of(details: list[Any]) -> list[Block]:
    """Return the thinking of reasoning details, put together from the pieces they may have been streamed in."""
    blocks: list[Block] = []
    text: list[str] = []
    index: object = None
    for piece in details:
        if not isinstance(piece, dict) or piece.get("format") not in (REASONING_FORMAT, None):
            continue
        if piece.get("type") == "reasoning.encrypted" and piece.get("format") and isinstance(piece.get("data"), str):
            blocks.append({"type": "redacted_thinking", "data": piece["data"]})
        elif piece.get("type") == "reasoning.text":
            if text and piece.get("index") != index:
                text = []  # a thought that was never signed
            index = piece.get("index")
            if isinstance(piece.get("text"), str):
                text.append(piece["text"])
            if isinstance(piece.get("signature"), str) and piece["signature"]:
                blocks.append({"type": "thinking", "thinking": "".join(text), "signature": piece["signature"]})
                text = []
    return blocks


def _blocks(message: Mapping[str, Any], path: str) -> list[Block]:
    """Return the blocks of a message's content; text that is empty is none."""
    content = message.get("content")
    if isinstance(content, str):
        if not content:
            return []
        block: Block = {"type": "text", "text": content}
        if isinstance(message.get("cache_control"), dict):
            block["cache_control"] = message["cache_control"]
        return [block]
    blocks = []
    for number, part in enumerate(content or ()):
        said = _part(part, f"{path}.content[{number}]")
        if said is None:
            continue
        if isinstance(part.get("cache_control"), dict):
            said["cache_control"] = part["cache_control"]
        blocks.append(said)
    return blocks


def _part(part: Mapping[str, Any], path: str) -> Block | None:
    """Return the block that says a part, or None for empty text."""
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text", "refusal"):
        text = part.get("text") or part.get("refusal")
        return {"type": "text", "text": text} if isinstance(text, str) and text else None
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if not isinstance(url, str):
            raise BadRequest(f"{path}.image_url.url: expected a string", param=f"{path}.image_url.url")
        return {"type": "image", "source": _source(url, f"{path}.image_url.url")}
    if kind == "file":
        return _document(part, path)
    raise _unsayable(path, f"a part of type {kind!r}")


def _document(part: Mapping[str, Any], path: str) -> Block:
    file = part.get("file")
    file = file if isinstance(file, dict) else {}
    data = file.get("file_data")
    if not isinstance(data, str):
        raise _unsayable(f"{path}.file", "a file that is not in the request itself, as file_data")
    source = _source(data, f"{path}.file.file_data")
    if source.get("media_type") == "text/plain":
        try:
            text = b64decode(source["data"], validate=True).decode()
        except ValueError:
            raise BadRequest(f"{path}.file.file_data: this is no text in base64", param=f"{path}.file") from None
        source = {"type": "text", "media_type": "text/plain", "data": text}
    block: Block = {"type": "document", "source": source}
    if isinstance(file.get("filename"), str) and file["filename"]:
        block["title"] = file["filename"]
    return block


def _source(url: str, path: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head = _DATA_URL.match(url)
    if head is None or not (head[1] and head[2]):
        raise BadRequest(f"{path}: a data URL must name its media type and be base64", param=path)
    return {"type": "base64", "media_type": head[1], "data": url[head.end() :]}


def tool_id(identity: object) -> str:
    """Return the id of a tool call with the letters that are allowed here; equal ids stay equal."""
    return _UNSOUND_ID.sub("_", identity) if isinstance(identity, str) else ""


def arguments(text: object) -> dict[str, Any]:
    """Return a tool call's arguments as the object they are; what is none is kept under ``INVALID_JSON``."""
    if isinstance(text, dict):
        return text
    return input_of(text) if isinstance(text, str) else {}


def _unsayable(path: str, what: str) -> BadRequest:
    return BadRequest(f"{path}: {what} cannot be said to this model's provider (Anthropic's messages)", param=path)
