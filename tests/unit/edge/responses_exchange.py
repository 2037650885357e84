"""An exchange that keeps what is written, and what a stream of Responses events comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.types.ids import RequestId
from gateway.types.reply import Flow


class KeptExchange:
    """See ``gateway.edge.exchange.Exchange``.

    Attributes:
        sent: everything that was written.
        writes: how often.
    """

    def __init__(self) -> None:
        self.request_id = RequestId(bytes.fromhex("01a202e4381878027168" + "3a9639d09948"))
        self.path = b"/v1/responses"
        self.headers: Mapping[bytes, bytes] = {}
        self.body = b""
        self.gone = False
        self.arrived = 0.0
        self.begun = False
        self.status = 0
        self.sent = b""
        self.writes = 0

    def steer(self, flow: Flow) -> None:
        """Nothing to steer."""

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Keep a whole response."""
        self.status, self.sent = status, body

    def open(self, headers: bytes) -> None:
        """Begin a stream."""
        self.begun, self.status = True, 200

    def write(self, data: bytes) -> None:
        """Keep a piece."""
        self.sent += data
        self.writes += 1

    def framed(self) -> None:
        """See ``Exchange``: there are none."""

    def close(self, data: bytes) -> None:
        """Keep the last piece."""
        self.write(data)

    @property
    def document(self) -> dict[str, Any]:
        """The whole response."""
        found: dict[str, Any] = msgspec.json.decode(self.sent)
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events, whose names agree with their types."""
        found = []
        for block in self.sent.decode().split("\n\n")[:-1]:
            name, data = block.split("\n")
            document = msgspec.json.decode(data.removeprefix("data: "))
            assert name == f"event: {document['type']}"
            found.append(document)
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        return found


def followed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the output that the deltas alone come to; checks that every ``done`` says the same as its deltas."""
    items: list[dict[str, Any]] = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items.append({"type": event["item"]["type"], "id": event["item"]["id"], "parts": [], "text": ""})
            continue
        if "output_index" not in event:
            continue
        item = items[event["output_index"]]
        if "item_id" in event:
            assert event["item_id"] == item["id"]
        if kind in {"content_part.added", "reasoning_summary_part.added"}:
            item["parts"].append([event["part"]["type"], ""])
        elif kind == "function_call_arguments.delta":
            item["text"] += event["delta"]
        elif kind == "function_call_arguments.done":
            assert event["arguments"] == item["text"]
        elif kind.endswith(".delta"):
            item["parts"][-1][1] += event["delta"]
        elif kind.endswith("_text.done"):
            assert event["text"] == item["parts"][-1][1]
    return items
