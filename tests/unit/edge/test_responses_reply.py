"""Answers in the Responses form say what the same answers say in the chat form, however their bytes are cut."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge import openai_chat, openai_responses
from gateway.edge.openai_reply import OpenAIReply
from gateway.edge.openai_responses_reply import ResponsesReply
from gateway.metering.tap import Basis, Tap
from gateway.types.call import Operation
from gateway.types.chunk import Chunk
from gateway.types.errors import UpstreamFailed
from gateway.types.failure import Failure
from gateway.types.reply import Bill
from gateway.types.tokens import Usage
from gateway.upstream.fold import Folder, unfold
from gateway.upstream.openai import UNREADABLE, decode, decode_text, mend_chunk
from gateway.upstream.responses_answer import ResponsesTranslator
from gateway.upstream.sse import EventReader
from tests.fakes.responses_api import CALL, CITATION, REASONING, SEARCH, encoded, events_of, message
from tests.unit.edge.responses_exchange import KeptExchange, followed

MODEL = "m"
BILL = Bill(Usage(7, 5, cache_read=3, reasoning=2), 1200, 700, 500)
TOOLS: Any = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("first", "second")]
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
arguments = st.dictionaries(texts, st.integers() | texts, max_size=3).map(json.dumps)


def reply(openrouter: bool = False, **more: Any) -> tuple[ResponsesReply, KeptExchange]:
    """Return a reply to a request for a stream, and where it goes."""
    exchange = KeptExchange()
    body = {"model": MODEL, "input": "x", "stream": True, "tools": TOOLS} | more
    return ResponsesReply(exchange, openai_responses.read(body, openrouter=openrouter)), exchange


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw the chunks of a chat stream: reasoning, text, calls one after the other or mixed, and a finish."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning": text} for text in draw(st.lists(texts, max_size=3))]
    deltas += [{"content": text} for text in draw(st.lists(texts, max_size=4))]
    calls: list[list[dict[str, Any]]] = []
    for index, said in enumerate(draw(st.lists(arguments, max_size=3))):
        cut = draw(st.integers(1, len(said)))
        head = {"index": index, "id": f"call_{index}", "type": "function"}
        pieces = [{**head, "function": {"name": f"tool{index}", "arguments": ""}}]
        pieces += [{"index": index, "function": {"arguments": piece}} for piece in (said[:cut], said[cut:]) if piece]
        calls.append([{"tool_calls": [piece]} for piece in pieces])
    if draw(st.booleans()):  # one piece of each in turn
        longest = max((len(call) for call in calls), default=0)
        deltas += [call[step] for step in range(longest) for call in calls if step < len(call)]
    else:
        deltas += [piece for call in calls for piece in call]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    chunks.append({"choices": [], "usage": usage})
    return [{"id": "up", "object": "chat.completion.chunk", **chunk} for chunk in chunks]


def cut_up(data: st.DataObject, raw: bytes) -> list[bytes]:
    """Return ``raw`` in pieces of any size."""
    places = sorted(data.draw(st.sets(st.integers(1, max(1, len(raw) - 1)), max_size=12)))
    return [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]


def canonical(pieces: list[bytes]) -> list[list[Chunk]]:
    """Return the canonical chunks of a chat stream, as the attempt makes them, read by read."""
    reader = EventReader()
    reads = []
    for piece in pieces:
        chunks: list[Chunk] = []
        for payload in reader.feed(piece):
            try:
                chunks.append(decode_text(payload))
            except UNREADABLE:
                chunk = decode(payload)
                assert chunk is not None
                assert mend_chunk(chunk, Operation.CHAT)
                chunks.append(chunk)
        reads.append(chunks)
    return reads


def tap() -> Tap:
    """Return a tap for a chat."""
    return Tap(Basis(Operation.CHAT, 1, 7, delta_is_token=False, counts_all_choices=True))


@settings(deadline=None)
@given(chats(), st.data())
def test_a_stream_says_what_the_chat_says(chat: list[dict[str, Any]], data: st.DataObject) -> None:
    """Same text, reasoning, calls byte for byte, and usage as in the chat form, for any cut of the bytes."""
    raw = b"".join(b"data: %s\n\n" % msgspec.json.encode(chunk) for chunk in chat)
    folder = Folder(Operation.CHAT)
    for chunks in canonical([raw]):
        folder.feed(chunks)
    message_ = folder.answer()["choices"][0]["message"]
    finish = folder.answer()["choices"][0]["finish_reason"]

    streamed, exchange = reply()
    streamed.begin(MODEL, "own")
    *reads, last = canonical(cut_up(data, raw))
    for chunks in reads:
        streamed.send(chunks)
    streamed.finish(last, BILL)
    events = exchange.events
    output = followed(events)
    final = events[-1]["response"]
    expected = {"length": "incomplete", "content_filter": "incomplete"}.get(finish, "completed")
    assert events[-1]["type"] == f"response.{expected}"
    assert final["status"] == expected

    whole, kept = reply(stream=False)
    whole.answer(folder.answer(), MODEL, "own", BILL)
    for said in (final, kept.document):
        parts = [part for item in said["output"] for part in item.get("content") or ()]
        assert "".join(p["text"] for p in parts if p["type"] == "output_text") == (message_.get("content") or "")
        assert "".join(p["text"] for p in parts if p["type"] == "reasoning_text") == message_.get("reasoning", "")
        calls = [item for item in said["output"] if item["type"] == "function_call"]
        assert [(call["call_id"], call["name"], call["arguments"]) for call in calls] == [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message_.get("tool_calls", ())
        ]
        assert said["usage"]["input_tokens"] == 7
        assert said["usage"]["input_tokens_details"]["cached_tokens"] == 3
        assert said["usage"]["output_tokens_details"]["reasoning_tokens"] == 2
    for item, shown in zip(output, final["output"], strict=True):
        assert (item["type"], item["id"]) == (shown["type"], shown["id"])
        assert item["text"] == shown.get("arguments", "")
        assert item["parts"] == [[part["type"], part["text"]] for part in shown.get("content") or ()]
    assert _unnamed(final["output"]) == _unnamed(kept.document["output"])


def _unnamed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_what_an_api_of_responses_says_passes_whole(data: st.DataObject) -> None:
    """For any cut of its bytes all events come out in order, and the meter sees text, calls and usage of a chat."""
    text = data.draw(texts)
    output = data.draw(st.permutations([REASONING, SEARCH, message(text, CITATION), CALL]))
    said = events_of(output)
    raw = b"".join(encoded(event) for event in said)
    reader, translator, streamed, counted = EventReader(), ResponsesTranslator(), *reply()[:1], tap()
    folder = Folder(Operation.CHAT)
    streamed, exchange = reply()
    streamed.begin(MODEL, "own")
    held: list[Chunk] = []
    for piece in cut_up(data, raw):
        for payload in reader.feed(piece):
            document = decode(payload)
            assert document is not None
            chunks = translator.event(document)
            assert not isinstance(chunks, Failure)
            for chunk in chunks:
                done = counted.chunk(chunk)
                folder.feed([chunk])
                held += [chunk] if done else []
                if not done:
                    streamed.send([chunk])
    assert translator.ended
    streamed.finish(held, BILL)
    events = exchange.events
    assert [event["type"] for event in events] == [event["type"] for event in said]
    final = events[-1]["response"]
    assert [item["type"] for item in final["output"]] == [item["type"] for item in output]
    assert counted.count()[0] == Usage(40, 25, 16, 0, 9)
    chat = folder.answer()["choices"][0]
    assert chat["message"]["content"] == text
    assert chat["message"]["reasoning"] == REASONING["summary"][0]["text"]
    assert chat["message"]["tool_calls"][0]["function"]["arguments"] == CALL["arguments"]
    assert chat["finish_reason"] == "tool_calls"


def test_an_answer_of_json_can_be_streamed() -> None:
    """An engine that answers a request for a stream with JSON: the items of the answer come as events."""
    document = {"id": "up", "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Yes."}}]}
    document["choices"][0]["message"]["role"] = "assistant"  # type: ignore[index]
    streamed, exchange = reply()
    streamed.begin(MODEL, "own")
    streamed.finish(unfold(document, Operation.CHAT), BILL)
    assert followed(exchange.events)[0]["parts"] == [["output_text", "Yes."]]
    whole = ResponsesTranslator().answer(events_of([message("Yes.")])[-1]["response"])
    assert not isinstance(whole, Failure)
    streamed, exchange = reply()
    streamed.begin(MODEL, "own")
    streamed.finish(unfold(whole, Operation.CHAT), BILL)
    assert followed(exchange.events)[0]["parts"] == [["output_text", "Yes."]]
    assert exchange.events[-1]["type"] == "response.completed"


def test_refusals_annotations_and_signatures_have_their_places() -> None:
    """A refusal is a part of its own, citations are announced, and what signs a thought goes with it."""
    deltas: list[dict[str, Any]] = [
        {"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "signature": "s", "format": "f", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "z", "format": "f", "index": 1}]},
        {"content": "See."},
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}]},
        {"refusal": "No."},
    ]
    chunks: list[Chunk] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    for include in ([], ["reasoning.encrypted_content"]):
        streamed, exchange = reply(include=include)
        streamed.begin(MODEL, "own")
        streamed.send([dict(chunk) for chunk in chunks if isinstance(chunk, dict)])
        streamed.finish([{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}], BILL)
        first, second, said = exchange.events[-1]["response"]["output"]
        assert (first["content"][0]["text"], first["signature"], first["format"]) == ("a", "s", "f")
        assert second.get("encrypted_content") == ("z" if include else None)
        assert [part["type"] for part in said["content"]] == ["output_text", "refusal"]
        assert said["content"][0]["annotations"] == [{"type": "url_citation", "url": "u", "title": "t"}]
        kinds = [event["type"] for event in exchange.events]
        assert "response.output_text.annotation.added" in kinds
        assert "response.refusal.done" in kinds


_PUT: list[Any] = [None, True, 5, "", "x", [], {}, [5], [[]], [{}], {"type": []}, {"type": "x"}, {"id": 5}]


def _places(thing: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    return [path, *(place for name, each in inner for place in _places(each, (*path, name)))]


def _changed(thing: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(thing) if isinstance(thing, dict) else list(thing)
    copy[path[0]] = _changed(copy[path[0]], path[1:], value)
    return copy


def test_no_event_of_an_api_is_a_defect() -> None:
    """Every member of every event in turn becomes anything else: chunks that can be sent, or a failure."""
    good = events_of([REASONING, SEARCH, message("Yes.", CITATION), CALL])
    kinds: dict[str, dict[str, Any]] = {each["type"]: each for each in good}
    for number, said in enumerate(kinds.values()):
        for place in _places(said):
            for value in _PUT:
                bad = _changed(said, place, value)
                if not isinstance(bad, dict):
                    continue
                streamed, _ = reply()
                streamed.begin(MODEL, "own")
                translator = ResponsesTranslator()
                before = [kinds["response.created"]] if number else []
                for each in (*before, kinds["response.output_item.added"], bad):
                    chunks = translator.event(json.loads(json.dumps(each)))
                    if isinstance(chunks, Failure):
                        break
                    streamed.send(chunks)
                else:
                    if translator.ended:
                        streamed.finish([], BILL)


def test_no_chunk_of_an_engine_is_a_defect() -> None:
    """The same of the chunks of a chat, as far as they are chunks."""
    delta = {
        "role": "assistant",
        "content": "a",
        "reasoning": "b",
        "reasoning_details": [{"type": "reasoning.text", "text": "b", "signature": "s", "index": 0}],
        "refusal": "c",
        "annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}],
        "tool_calls": [{"index": 0, "id": "i", "type": "function", "function": {"name": "n", "arguments": "{}"}}],
    }
    logprobs = {"content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": [{"token": "a"}]}]}
    good = {"choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}]}
    for place in _places(good):
        for value in _PUT:
            bad = json.loads(json.dumps(_changed(good, place, value)))
            if isinstance(bad, dict) and mend_chunk(bad, Operation.CHAT):
                streamed, exchange = reply()
                streamed.begin(MODEL, "own")
                streamed.send([bad])
                streamed.finish([{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}], BILL)
                assert exchange.events[-1]["type"] == "response.completed"


def test_no_whole_answer_of_an_api_is_a_defect() -> None:
    """The same of its JSON."""
    good = events_of([REASONING, SEARCH, message("Yes.", CITATION), CALL])[-1]["response"]
    for place in _places(good):
        for value in _PUT:
            bad = _changed(good, place, value)
            if isinstance(bad, dict):
                whole, _ = reply(stream=False)
                answer = ResponsesTranslator().answer(json.loads(json.dumps(bad)))
                if not isinstance(answer, Failure):
                    whole.answer(answer, MODEL, "own", BILL)


def test_every_piece_leaves_as_it_comes() -> None:
    """One write for the beginning and one for each piece; nothing waits for more."""
    streamed, exchange = reply()
    streamed.begin(MODEL, "own")
    for number in range(5):
        streamed.send(canonical([b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'])[0])
        assert exchange.writes == number + 2


def test_a_failure_ends_the_stream_with_what_there_was() -> None:
    """``error`` and then ``response.failed``, with the word of the error at its top."""
    streamed, exchange = reply(openrouter=True)
    streamed.begin(MODEL, "own")
    streamed.send(canonical([b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'])[0])
    streamed.fail(UpstreamFailed("it broke"))
    error, failed = exchange.events[-2:]
    assert (error["type"], error["code"], error["message"]) == ("error", "server_error", "it broke")
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "it broke"}
    assert failed["response"]["error_type"] == "provider_unavailable"


def test_the_chat_form_of_a_request_is_read_as_a_chat_is() -> None:
    """Size, needs and limits of a request are those of the chat that it is."""
    asked = openai_responses.read(
        {
            "model": MODEL,
            "instructions": "Be kind.",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://a/b.png"}]}],
            "tools": TOOLS,
            "max_output_tokens": 9,
            "top_logprobs": 2,
        },
        openrouter=False,
    )
    chat = openai_chat.read(json.loads(json.dumps(asked.body)), openrouter=False)
    for name in ("needs", "input_bytes", "prompt_estimate", "max_tokens", "choices", "model"):
        assert getattr(asked, name) == getattr(chat, name)
    assert OpenAIReply(KeptExchange(), chat).calls_sound is None


def test_an_image_is_an_item_and_audio_its_transcript() -> None:
    """An image that came as data is an item of its own, which goes back as it came; one by URL and sounds are not."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/webp;base64,AAAA"}}
    by_url = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    odd: list[Any] = [by_url, {"image_url": {"url": "data:image/png,AAAA"}}, {"image_url": 3}, 7, None]
    made, exchange = reply()
    made.begin(MODEL, "own")
    said = {"content": "See:", "images": [picture, *odd], "audio": {"transcript": "Listen.", "data": "AAAA"}}
    made.finish([_chunk(said, "stop")], BILL)
    response = exchange.events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "image_generation_call", "message"]
    image, spoken = response["output"][1:]
    assert (image["result"], image["status"], image["output_format"]) == ("AAAA", "completed", "webp")
    assert spoken["content"][0]["text"] == "Listen."
    kinds = [event["type"] for event in exchange.events]
    assert kinds.index("response.image_generation_call.completed") > kinds.index("response.output_item.added")
    again = openai_responses.read({"model": MODEL, "input": [*response["output"], *_USER]}, openrouter=False)
    assert again.body["messages"][0]["images"] == [picture]
    assert not again.unsaid


_USER: Any = [{"role": "user", "content": "And?"}]


def _chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
