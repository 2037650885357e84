"""``POST /v1/rerank``: documents in the order of their relevance to a query, as OpenRouter and Cohere say it.

Engines differ in what they leave out; every caller gets the results sorted, no more than were asked for, each with the
text of its document.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway.edge.body import shape
from gateway.edge.controls import RoutingShape, read_body
from gateway.edge.openai_chat import BYTES_PER_TOKEN, Positive
from gateway.edge.openai_reply import OpenAIReply
from gateway.types.call import Call, Need, Operation
from gateway.types.errors import BadRequest, UpstreamFailed
from gateway.types.reply import Bill

MOST_DOCUMENTS: Final = 10_000


class DocumentShape(msgspec.Struct):
    """A document that is more than a text."""

    text: str | None = None
    image: str | None = None


class RerankShape(RoutingShape):
    """The members of a rerank request whose types are checked here."""

    query: str
    documents: Annotated[list[str | DocumentShape], Meta(min_length=1, max_length=MOST_DOCUMENTS)]
    top_n: Positive | None = None
    return_documents: bool | None = None


def read(body: dict[str, Any], *, openrouter: bool) -> Call:
    """Return the call in ``body``. Raises ``BadRequest``."""
    wanted = shape(body, RerankShape)
    size, images = 0, False
    for number, document in enumerate(wanted.documents):
        if isinstance(document, str):
            size += len(document.encode())
            continue
        if document.text is None and document.image is None:
            raise BadRequest("a document has neither text nor image", param=f"documents[{number}]")
        size += len((document.text or "").encode())
        images = images or document.image is not None
        if document.image is None:
            body["documents"][number] = document.text  # engines take text alone as it is
    query = len(wanted.query.encode())
    # The query is read again with every document.
    size += query * len(wanted.documents)
    call = Call(
        operation=Operation.RERANK,
        body=body,
        model=wanted.named,
        stream=False,
        wants_usage=True,
        choices=1,
        max_tokens=None,
        input_bytes=size,
        prompt_estimate=size // BYTES_PER_TOKEN + len(wanted.documents),
        needs=Need.RERANK | (Need.IMAGES if images else Need.NONE),
        openrouter=openrouter,
        prompts=len(wanted.documents),
        user=(wanted.user or "")[:128],
    )
    read_body(call, wanted)
    return call


class RerankReply(OpenAIReply):
    """Answers one rerank request."""

    def answer(self, answer: dict[str, Any], model: str, provider: str, bill: Bill) -> None:
        """See ``gateway.types.reply.Reply``."""
        documents = self.call.body["documents"]
        if "results" not in answer:
            raise UpstreamFailed("the backend's answer is not a ranking")
        results = sorted(answer["results"], key=_score, reverse=True)[: self.call.body.get("top_n")]
        said: dict[str, Any] = {name: answer[name] for name in ("id", "meta", "search_units") if name in answer}
        said["results"] = [
            {
                "index": result["index"],
                "relevance_score": result["relevance_score"],
                "document": _document(documents[result["index"]]),
            }
            for result in results
            if result["index"] < len(documents)
        ]
        super().answer(said, model, provider, bill)


def _score(result: dict[str, Any]) -> float:
    return float(result["relevance_score"])


def _document(document: Any) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document
