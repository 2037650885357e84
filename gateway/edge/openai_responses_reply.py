"""Answers in OpenAI's Responses form, in JSON and as its events, made of canonical chunks and answers.

The response object has every member that the official clients of OpenAI and OpenRouter need. A stream begins with
``response.created`` and ends with ``response.completed`` or ``response.incomplete``, which leaves only when the answer
is metered on disk; one that breaks ends with ``error`` and ``response.failed``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.edge.errors import error_lines, error_object
from gateway.edge.exchange import Exchange
from gateway.edge.openai_responses import ResponsesCall
from gateway.edge.openai_responses_events import ResponseEvents
from gateway.edge.openai_responses_output import Output
from gateway.edge.reply import DialectReply
from gateway.types import ids
from gateway.types.call import Call
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.dialect import NATIVE
from gateway.types.errors import BadRequest, WeirError
from gateway.types.money import usd_json
from gateway.types.reply import Bill
from gateway.types.responses import ENCRYPTED

PREFIX: Final = "resp_"
_encode: Final = msgspec.json.Encoder().encode
_JSON: Final = b"content-type: application/json\r\n"
_STREAM: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
_CUT_SHORT: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of answers that are not complete, as ``incomplete_details`` calls them."""
_ERROR_CODES: Final[Mapping[str, str]] = {
    "rate_limit_exceeded": "rate_limit_exceeded",
    "provider_overloaded": "rate_limit_exceeded",
    "invalid_request": "invalid_prompt",
    "context_length_exceeded": "invalid_prompt",
    "content_policy_violation": "invalid_prompt",
    "token_limit_exceeded": "invalid_prompt",
}
"""Kinds of errors as a response's ``error.code`` calls them; the others are ``server_error``."""


_BEGINNINGS: Final = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
"""Events of an API that speaks Responses itself in whose place are ours."""
_OURS: Final = frozenset(
    {
        "background",
        "billing",
        "created_at",
        "id",
        "instructions",
        "max_output_tokens",
        "metadata",
        "model",
        "object",
        "output",
        "previous_response_id",
        "prompt_cache_key",
        "provider",
        "safety_identifier",
        "store",
        "usage",
        "user",
    }
)
"""Members of its response that are not passed on."""


def response_id(request_id: bytes) -> str:
    """Return the id of the response to a request."""
    return PREFIX + request_id.hex()


class ResponsesReply(DialectReply[ResponsesCall]):
    """See ``gateway.types.reply.Reply``.

    Attributes:
        call: what is answered.
    """

    __slots__ = ("_created", "_events", "_finish", "_frame", "_native", "_output")
    comfort = b": waiting\n\n"

    def __init__(self, exchange: Exchange, call: ResponsesCall) -> None:
        super().__init__(exchange, call)
        self._created = 0
        self._finish = "stop"
        self._native: dict[str, Any] | None = None
        self._frame: dict[str, Any] = {}
        encrypted = ENCRYPTED in (call.asked.include or ())
        self._events = ResponseEvents(wanted=call.stream)
        self._output = Output(exchange.request_id.hex(), self._events, encrypted=encrypted)

    def begin(self, model: str, provider: str) -> None:
        """See ``Reply``."""
        self._start(model, provider)
        self.open()
        for kind in ("response.created", "response.in_progress"):
            self._events.add(kind, response=self._document("in_progress", []))
        self._exchange.write(self._events.take())

    def open(self) -> None:
        """Start the stream, if it has not been started yet to tell the caller to wait."""
        if not self._exchange.begun:
            self._exchange.open(_STREAM + self._headers())

    def send(self, chunks: list[Chunk]) -> None:
        """See ``Reply``."""
        self._feed(chunks)
        data = self._events.take()
        if data:
            self._exchange.write(data)

    def say(self, chunk: TextChunk) -> None:
        """See ``Reply``."""
        self.send([chunk])

    def finish(self, chunks: Sequence[Chunk], bill: Bill) -> None:
        """See ``Reply``."""
        self._feed(chunks)
        response = self._ended(self._finish, bill)
        self._events.add(f"response.{response['status']}", response=response)
        self._exchange.close(self._events.take())
        self._keep(response)

    def answer(self, answer: dict[str, Any], model: str, provider: str, bill: Bill) -> None:
        """See ``Reply``."""
        self._start(model, provider)
        choice = answer["choices"][0]
        if self._tool_calls is not None:
            self._tool_calls.take(choice)
        self._native = answer.get(NATIVE)
        if self._native is None:
            self._output.delta(choice["message"], choice.get("logprobs"))
        response = self._ended(choice["finish_reason"], bill)
        self._exchange.respond(200, _JSON + self._headers(), _encode(response))
        self._keep(response)

    def fail(self, error: WeirError) -> None:
        """See ``Reply``."""
        error = named(error, self.call)
        if not self._exchange.begun:
            respond_error(self._exchange, error, self._route, self._explained)
            return
        self._exchange.close(self._failure(error)[1])

    def _failure(self, error: WeirError) -> tuple[dict[str, Any], bytes]:
        """Return the response object of an answer that broke, and the events that say so."""
        if not self._frame:
            self._start(self.call.model, "")  # nothing but a comment has been sent
        code = _ERROR_CODES.get(error.kind, "server_error")
        document = self._document("failed", self._output.broken())
        document["error"] = {"code": code, "message": error.message}
        document["error_type"] = error.kind
        if self._explained is not None:
            document["openrouter_metadata"] = self._explained
        self._events.add("error", code=code, message=error.message, param=error.param)
        self._events.add("response.failed", response=document)
        return document, self._events.take()

    def _feed(self, chunks: Sequence[Chunk]) -> None:
        """Put chunks into the output."""
        output = self._output
        for chunk in chunks:
            if type(chunk) is TextChunk:
                output.text(chunk.choices[0].delta)
                continue
            original = chunk.get(NATIVE)
            if original is not None:
                self._pass_on(original)
            for choice in chunk["choices"]:
                if self._tool_calls is not None:
                    self._tool_calls.take(choice)
                if original is None:
                    output.delta(choice["delta"], choice.get("logprobs"))
                if choice["finish_reason"] is not None:
                    self._finish = choice["finish_reason"]

    def _pass_on(self, events: list[dict[str, Any]]) -> None:
        """Put events of an API that speaks Responses itself into the output; the last one has its whole response."""
        for event in events:
            kind = event.get("type")
            if kind in _ENDS:
                self._native = event["response"]
            elif kind not in _BEGINNINGS:
                self._output.pass_on(event)

    def _headers(self) -> bytes:
        generation = ids.text(self.request_id).encode("ascii")
        return b"%sx-generation-id: %s\r\nx-request-id: %s\r\n" % (self._route, generation, generation)

    def _start(self, model: str, provider: str) -> None:
        """Make what every form of the response object has."""
        self._created = self._created or int(time.time())
        self._frame = _echo(self.call)
        self._frame["model"] = model
        if self.call.openrouter:
            self._frame["provider"] = provider

    def _document(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the response object as it is now."""
        return {
            "id": response_id(self.request_id),
            "object": "response",
            "created_at": self._created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": output,
            "usage": None,
            **self._frame,
        }

    def _ended(self, finish: str, bill: Bill) -> dict[str, Any]:
        """Return the response object of an answer that is whole; ``finish`` is its finish reason."""
        output, native = self._output, self._native
        if native is not None:
            output.replace(native["output"])
            document = self._document(native["status"], [output.shown(item) for item in output.items])
            document |= {name: value for name, value in native.items() if name not in _OURS}
        else:
            reason = _CUT_SHORT.get(finish)
            status = "completed" if reason is None else "incomplete"
            output.finish(status)
            document = self._document(status, [output.shown(item) for item in output.items])
            if reason is None:
                document["completed_at"] = int(time.time())
            else:
                document["incomplete_details"] = {"reason": reason}
        document["usage"] = usage_json(bill)
        if self._explained is not None:
            document["openrouter_metadata"] = self._explained
        return document

    def _keep(self, response: Mapping[str, Any]) -> None:
        """Hand over the response for later, with all that goes on from it will need."""
        if self.call.keep is not None:
            self.call.keep(self.request_id, self._kept(response))

    def _kept(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``response`` as it is kept."""
        kept = {name: value for name, value in response.items() if name != "openrouter_metadata"}
        return {**kept, "output": self._output.items}

    def _json_lines(self) -> bytes:
        """Return the header lines of a whole answer."""
        return _JSON + self._headers()


class InputTokensReply(ResponsesReply):
    """The answer to the question how many tokens a request has (``gateway.edge.anthropic_count.answer_count``)."""

    __slots__ = ()

    def count(self, tokens: int, *, exact: bool) -> None:
        """Say how many there are."""
        told = b"x-weir-token-count: %s\r\n" % (b"exact" if exact else b"estimated")
        document = {"object": "response.input_tokens", "input_tokens": tokens}
        self._exchange.respond(200, _JSON + told + self._headers(), _encode(document))


def _echo(call: ResponsesCall) -> dict[str, Any]:
    """Return what the response object repeats of the request."""
    asked = call.asked
    written = call.native or {}
    text = written.get("text") or {}
    reasoning = written.get("reasoning") or {}
    tools = written.get("tools") or []
    return {
        "background": call.detached,
        "frequency_penalty": asked.frequency_penalty or 0.0,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "presence_penalty": asked.presence_penalty or 0.0,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": asked.safety_identifier,
        "service_tier": call.service_tier or "default",
        "store": asked.store is not False,
        "temperature": asked.temperature,
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tool_choice": asked.tool_choice or "auto",
        "tools": [_tool(tool) for tool in tools] if tools else [],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "user": asked.user,
    }


def named(error: WeirError, call: Call) -> WeirError:
    """Return ``error``, or what it comes from: a request for what only backends that speak Responses can do."""
    drops = error.metadata.get("drops") or ()
    if not call.unsaid or error.code != 404 or all(drop["filter"] != "capability" for drop in drops):
        return error
    return BadRequest(
        f"{call.unsaid}: no backend of {call.model[:128]} can do that, which takes one that speaks Responses itself",
        param=call.unsaid,
        metadata=error.metadata,
    )


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool with the members that clients need."""
    return {"parameters": None, "strict": None, **tool} if tool.get("type") == "function" else tool


def reply_to(exchange: Exchange, call: ResponsesCall) -> ResponsesReply:
    """Return the reply to ``call``."""
    return ResponsesReply(exchange, call) if call.begin is None else call.begin(exchange, call)


def usage_json(bill: Bill) -> msgspec.Raw:
    """Return the ``usage`` object as JSON: OpenAI's members and OpenRouter's, money as exact numbers."""
    usage = bill.usage
    return msgspec.Raw(
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
        b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d,'
        b'"cost":%s,"is_byok":%s,'
        b'"cost_details":{%s"upstream_inference_input_cost":%s,"upstream_inference_output_cost":%s}%s}'
        % (
            usage.prompt,
            usage.cache_read,
            usage.cache_write,
            usage.completion,
            usage.reasoning,
            usage.prompt + usage.completion,
            usd_json(bill.total),
            b"true" if bill.byok else b"false",
            b'"upstream_inference_cost":%s,' % usd_json(bill.upstream) if bill.byok else b"",
            usd_json(bill.prompt),
            usd_json(bill.completion),
            b',"continuation":{"count":%d,"replayed_tokens":%d}' % (bill.continuations, bill.replayed)
            if bill.continuations
            else b"",
        )
    )


def respond_error(
    exchange: Exchange, error: WeirError, headers: bytes = b"", explained: dict[str, Any] | None = None
) -> None:
    """Send an error as a whole response: OpenAI's shape with OpenRouter's ``error_type``."""
    identity = ids.text(exchange.request_id)
    body: dict[str, Any] = {"error": error_object(error), "error_type": error.kind, "request_id": identity}
    if explained is not None:
        body["openrouter_metadata"] = explained
    exchange.respond(error.code, _JSON + headers + error_lines(error, identity), _encode(body))
