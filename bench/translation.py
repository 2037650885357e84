"""What it costs to speak another dialect: CPU of an answer and of a chunk beyond what the chat form takes.

``python -m bench.translation [--json]`` reads the same request and writes the same answer in the chat form and in each
other dialect, by the code that serves them, and prints the differences; it exits 1 when one is over its bar. The best
of several rounds counts, so that other load on the machine counts as little as possible. What the meter, routing and
the network take is in neither, so that a difference is the translation alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from time import process_time
from typing import Any, Final

import msgspec

from gateway.edge.body import decode
from gateway.edge.inference import PATHS
from gateway.types.call import Operation
from gateway.types.chunk import Chunk
from gateway.types.dialect import Dialect
from gateway.types.failure import Failure
from gateway.types.ids import RequestId, RequestIds
from gateway.types.reply import Bill, Flow
from gateway.types.tokens import Usage
from gateway.upstream import openai as upstream
from gateway.upstream.anthropic_request import messages_body
from gateway.upstream.speech import SPEECHES

ANSWER_BAR_US: Final = 60.0
CHUNK_BAR_US: Final = 10.0
ROUNDS: Final = 7
_MODEL: Final = "qwen/qwen3-32b"
_BILL: Final = Bill(Usage(200, 75, cache_read=100), 44_500, 22_000, 22_500)
_SYSTEM: Final = "You are a helpful assistant."
_PROMPT: Final = "Explain how a weir measures the flow of a river. " * 14
_TEXT: Final = "A weir raises the water upstream of it, and the depth above its crest tells the flow. " * 4
_CHAT: Final = b"/v1/chat/completions"
_REQUESTS: Final[Mapping[bytes, dict[str, Any]]] = {
    _CHAT: {
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _PROMPT}],
        "max_tokens": 256,
    },
    b"/v1/responses": {
        "instructions": _SYSTEM,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": _PROMPT}]}],
        "max_output_tokens": 256,
    },
    b"/v1/messages": {
        "system": _SYSTEM,
        "messages": [{"role": "user", "content": [{"type": "text", "text": _PROMPT}]}],
        "max_tokens": 256,
    },
}
_ANSWER: Final = msgspec.json.encode(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "Qwen/Qwen3-32B",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 75, "total_tokens": 275},
    }
)
_CHUNK: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"Qwen/Qwen3-32B",'
    b'"choices":[{"index":0,"delta":{"content":" water"},"finish_reason":null}]}'
)
_MESSAGE: Final = msgspec.json.encode(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": _TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 200, "cache_read_input_tokens": 0, "output_tokens": 75},
    }
)
_EVENTS: Final[Mapping[Dialect, bytes]] = {
    Dialect.RESPONSES: b'{"type":"response.output_text.delta","sequence_number":9,"item_id":"msg_0123456789abcdef",'
    b'"output_index":0,"content_index":0,"delta":" water","logprobs":[]}',
    Dialect.MESSAGES: b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" water"}}',
}
"""The next piece of text as an API of each dialect says it."""


class Nowhere:
    """An exchange whose response nobody reads (``gateway.edge.exchange.Exchange``)."""

    def __init__(self, path: bytes) -> None:
        self.request_id: RequestId = RequestIds().new()
        self.path = path
        self.headers: Mapping[bytes, bytes] = {}
        self.body = b""
        self.gone = False
        self.arrived = 0.0
        self.begun = False

    def steer(self, flow: Flow) -> None:
        """Nothing to steer."""

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Lose a response."""

    def open(self, headers: bytes) -> None:  # noqa: ARG002 - nobody reads them
        """Begin a stream."""
        self.begun = True

    def write(self, data: bytes) -> None:
        """Lose a piece."""

    def framed(self) -> None:
        """See ``Exchange``: there are none."""

    def close(self, data: bytes) -> None:
        """Lose the last piece."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What one case took, in microseconds of CPU: all of it, and beyond the chat form."""

    name: str
    total_us: float
    beyond_us: float
    bar_us: float


def answer_of(path: bytes) -> Callable[[], None]:
    """Return what reads a request and writes its JSON answer, as ``path`` does."""
    inlet, exchange = PATHS[path], Nowhere(path)
    raw = msgspec.json.encode({"model": _MODEL, "temperature": 0.7, **_REQUESTS[path]})

    def run() -> None:
        call = inlet.read(decode(raw), openrouter=inlet.openrouter)
        reply = inlet.reply(exchange, call)
        answer = upstream.decode(_ANSWER)
        assert answer is not None
        upstream.mend_answer(answer, Operation.CHAT)
        reply.answer(answer, _MODEL, "own", _BILL)

    return run


def answer_over_messages() -> Callable[[], None]:
    """Return what reads a chat request, says it in messages, and writes the answer in messages as chat."""
    inlet, exchange = PATHS[_CHAT], Nowhere(_CHAT)
    raw = msgspec.json.encode({"model": _MODEL, "temperature": 0.7, **_REQUESTS[_CHAT]})
    speech = SPEECHES[Dialect.MESSAGES]

    def run() -> None:
        call = inlet.read(decode(raw), openrouter=inlet.openrouter)
        reply = inlet.reply(exchange, call)
        messages_body(call.body, model=_MODEL, max_tokens=256, stream=False)
        document = upstream.decode(_MESSAGE)
        assert document is not None
        answer = speech.translator(call).answer(document)
        assert not isinstance(answer, Failure)
        reply.answer(answer, _MODEL, "own", _BILL)

    return run


def responses_over_responses() -> Callable[[], None]:
    """Return what says a request to an API of responses and passes its whole answer on."""
    path = b"/v1/responses"
    inlet, exchange = PATHS[path], Nowhere(path)
    raw = msgspec.json.encode({"model": _MODEL, "temperature": 0.7, **_REQUESTS[path]})
    part = {"type": "output_text", "text": _TEXT, "annotations": [], "logprobs": []}
    said = {"type": "message", "id": "msg_0123456789abcdef", "status": "completed", "role": "assistant"}
    usage = {"input_tokens": 200, "output_tokens": 75, "total_tokens": 275}
    answer = msgspec.json.encode(
        {"id": "resp_1", "status": "completed", "output": [{**said, "content": [part]}], "usage": usage}
    )

    def run() -> None:
        call = inlet.read(decode(raw), openrouter=inlet.openrouter)
        reply = inlet.reply(exchange, call)
        document = upstream.decode(answer)
        assert document is not None
        found = SPEECHES[Dialect.RESPONSES].translator(call).answer(document)
        assert not isinstance(found, Failure)
        reply.answer(found, _MODEL, "own", _BILL)

    return run


def chunk_of(path: bytes, dialect: Dialect = Dialect.CHAT) -> Callable[[], None]:
    """Return what reads the next piece of an answer in ``dialect`` and writes it as ``path`` does."""
    inlet, exchange = PATHS[path], Nowhere(path)
    call = inlet.read({"model": _MODEL, "stream": True, **_REQUESTS[path]}, openrouter=inlet.openrouter)
    reply = inlet.reply(exchange, call)
    reply.begin(_MODEL, "own")

    def plain() -> None:
        reply.send([upstream.decode_text(_CHUNK)])

    if dialect is Dialect.CHAT:
        return plain
    translator, event = SPEECHES[dialect].translator(call), _EVENTS[dialect]

    def translated() -> None:
        document = upstream.decode(event)
        assert document is not None
        chunks: list[Chunk] | Failure = translator.event(document)
        assert not isinstance(chunks, Failure)
        reply.send(chunks)

    return translated


def best_us(run: Callable[[], None], times: int, rounds: int = ROUNDS) -> float:
    """Return the microseconds of CPU that ``run`` takes, in the best of some rounds of so many times."""
    found = []
    for _ in range(rounds):
        began = process_time()
        for _ in range(times):
            run()
        found.append((process_time() - began) / times * 1e6)
    return min(found)


def measure(times: int = 2_000) -> list[Figure]:
    """Return the figures of all cases."""
    answer, chunk = best_us(answer_of(_CHAT), times), best_us(chunk_of(_CHAT), times * 5)
    cases: list[tuple[str, Callable[[], None], float]] = []
    for path in _REQUESTS:
        dialect = Dialect(path.rpartition(b"/")[2].decode()) if path != _CHAT else Dialect.CHAT
        if dialect is Dialect.CHAT:
            continue
        cases += [
            (f"{dialect} over chat: answer", answer_of(path), ANSWER_BAR_US),
            (f"{dialect} over chat: chunk", chunk_of(path), CHUNK_BAR_US),
            (f"{dialect} over {dialect}: chunk", chunk_of(path, dialect), CHUNK_BAR_US),
        ]
    cases.append(("responses over responses: answer", responses_over_responses(), ANSWER_BAR_US))
    cases.append(("chat over messages: answer", answer_over_messages(), ANSWER_BAR_US))
    cases.append(("chat over messages: chunk", chunk_of(_CHAT, Dialect.MESSAGES), CHUNK_BAR_US))
    figures = []
    for name, run, bar in cases:
        whole = bar == ANSWER_BAR_US
        total = best_us(run, times if whole else times * 5)
        figures.append(Figure(name, round(total, 2), round(total - (answer if whole else chunk), 2), bar))
    return figures


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    figures = measure()
    if parser.parse_args().json:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        for figure in figures:
            print(
                f"{figure.name:32} {figure.total_us:8.2f} µs, beyond chat {figure.beyond_us:6.2f} of {figure.bar_us:g}"
            )
    return int(any(figure.beyond_us > figure.bar_us for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
