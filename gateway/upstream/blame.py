"""What a backend refuses of one request although its status says something else: known by what its body says.

APIs answer 403 to a prompt that their moderation flagged as well as to a key without rights, and errors inside a 200
have no status at all. What one caller alone can bring about must not count against a backend or a key that serve all
others (decision 42). Where a body says nothing of the kind, its status holds. Nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.engines.kind import Engine
from gateway.types.call import WHOLE, Operation

STATUSES: Final[Mapping[str, int]] = {
    "account_deactivated": 401,
    "authentication_error": 401,
    "badrequesterror": 400,
    "billing_hard_limit_reached": 402,
    "billing_not_active": 402,
    "context_length_exceeded": 400,
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "overloaded": 429,
    "overloaded_error": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "validation": 422,
}
"""The status that goes with the code or the type of an error inside a 200; codes are asked first."""
_MODERATED: Final = re.compile(
    "contentfilter|contentpolicy|contentmoderation|datainspection|moderationblocked|sensitivecontent|responsibleai"
)
"""Codes and types of moderation, without regard to case and to what parts their words."""
_NO_VERDICT: Final = re.compile("timeout|timedout|unavailable|failure")
"""What such a code says of a moderation that did not come to one: that is the provider's fault."""
_FLAGGED: Final = (
    "content exists risk",
    "content management policy",
    "content policy",
    "content violates",
    "inappropriate content",
    "input was flagged",
    "prompt was flagged",
    "requires moderation",
)
"""Words, in lower case, that speak of what was said; an account can be flagged, too."""
_TOO_MUCH: Final = ("request too large for", "must be reduced in order to run")
"""Words, in lower case, of a 429 that no wait would help."""
_AFFORDABLE: Final = re.compile(r"(?:can only afford |prompt tokens limit exceeded: \d{1,18} > )(\d{1,18})")
"""Words, in lower case, of OpenRouter's 402 for a request that costs more than is left, and how many tokens that is."""
_ENOUGH: Final = 1000
"""Tokens that an account must still pay for at once; below them hardly any request passes, and it is empty."""
_UNFIT: Final = "no endpoints found that"
"""How OpenRouter says that it has the model, but nobody who gives what the request asks of it."""
_OWNERS: Final = re.compile(r"(?i)\b(?:keys?|teams?|org|organi[sz]ations?|accounts?|projects?)\b")
"""What words of a 403 tell of the operator and not of the request."""
_WHO: Final = r"\b(?:access|keys?|teams?|organi[sz]ations?|accounts?|projects?)\b"
_LOST: Final = r"\b(?:suspended|deactivated|terminated|banned|disabled|revoked|must (?:accept|agree))\b"
_EXCLUDED: Final = re.compile(rf"{_WHO}[^.:]{{0,80}}{_LOST}|{_LOST}[^.:]{{0,80}}{_WHO}")
"""Words, in lower case, of who may not ask anything any more, also where content was the reason for it."""
_GONE_KINDS: Final = frozenset(
    {
        "deploymentnotfound",
        "invalid_model",
        "invalid_model_id",
        "model_decommissioned",
        "model_deprecated",
        "model_not_found",
        "model_unavailable_upstream",
        "modelnotfound",
    }
)
"""Codes and types, in lower case, of a model that is not there."""
_GONE: Final = re.compile(
    r"(?s)\bmodels?\b.{0,300}\b(?:do(?:es)? not exist|not found|no longer available|end of life)\b"
    r"|^model: |^no (?:endpoints found|allowed providers)|^the api deployment for this resource does not exist"
)
"""Words, in lower case, of a 404 or 410 for a model that is not there, whatever it is asked for."""
_GONE_BY_WORD: Final = re.compile(
    r"(?:^(?:the )?model [^ ]{1,200} (?:does not exist|has been (?:decommissioned|deprecated|retired))"
    r"|^(?:no )?model (?:not exist|not found|found: )"
    r"|^invalid model(?: id)?(?:[:.]|$)"
    r"|^[^ ]{1,200} is not a valid model id\.?$)"
)
"""The same of a 400, which may quote its request: what these words begin with is the backend's own."""
_PARTING: Final = re.compile("[^a-z0-9]")
_NOT_OFFERED: Final = frozenset({404, 405, 501})
_ABSENT: Final = frozenset({404, 410})
_STANDING: Final = frozenset({401, 402, 407, 429})
"""Statuses that concern a key or a limit, whatever the body says besides."""
_MOST: Final = 8
"""Reasons of moderation that are told."""


class Refusal(NamedTuple):
    """What a backend refuses of one request, though another provider may take it.

    Attributes:
        status: what the caller is told.
        kind: in a word of OpenRouter's ``error_type`` vocabulary.
        message: in a sentence.
        reasons: what moderation flagged, where it says so.
    """

    status: int
    kind: str
    message: str
    reasons: tuple[str, ...] = ()


def refusal(
    engine: Engine, operation: Operation, status: int, document: Mapping[str, Any], message: str
) -> Refusal | None:
    """Return what an error refuses of its request, or None when its status says whose matter it is.

    Args:
        engine: who answers.
        operation: what was asked for.
        status: of the error, or what an error inside a 200 claims.
        document: its decoded body.
        message: what the body says, fit for callers.
    """
    lowered = message.lower()
    if status not in _STANDING and _moderated(status, document, lowered):
        told = "" if status == 403 and _OWNERS.search(message) else message
        return Refusal(
            status if 400 <= status < 500 else 403,
            "content_policy_violation",
            told or "the backend's moderation refused the request",
            _reasons(document),
        )
    if status == 429 and any(words in lowered for words in _TOO_MUCH):
        words = "the request is too large for what the backend allows in a minute"  # theirs name the organisation
        return Refusal(413, "token_limit_exceeded", words)
    affordable = _AFFORDABLE.search(lowered) if status == 402 else None
    if affordable is not None and int(affordable[1]) >= _ENOUGH:
        words = "the request is too large for what the backend lets the gateway pay at once; ask for fewer max_tokens"
        return Refusal(413, "token_limit_exceeded", words)
    if status == 404 and _UNFIT in lowered:
        return Refusal(404, "not_found", message)
    if operation is Operation.COMPLETIONS and status in _NOT_OFFERED and not _gone(document, lowered):
        # The one thing that callers may ask of a model without the configuration having said that it is there.
        return Refusal(404, "not_found", message or "the backend completes no texts")
    if status >= 500 and any(words in lowered for words in engine.request_errors):
        return Refusal(400, "invalid_request", message)
    return None


def lacks_path(operation: Operation, status: int, document: Mapping[str, Any], lowered: str) -> bool:
    """Whether an error of the owner's making says that its backend has no such path as embeddings or reranking.

    Args:
        operation: what was asked for.
        status: of the error.
        document: its decoded body.
        lowered: what the body says, in lower case.
    """
    return operation in WHOLE and status in _NOT_OFFERED and not _gone(document, lowered)


def lacks_model(status: int, document: Mapping[str, Any], lowered: str) -> bool:
    """Whether an error says that its backend has no such model: retired, renamed, or never there.

    That is the owner's matter, since no caller says by what name a backend is asked, whatever the status says.

    Args:
        status: of the error.
        document: its decoded body.
        lowered: what the body says, in lower case.
    """
    if status == 400:
        return not _GONE_KINDS.isdisjoint(map(str.lower, _kinds(document))) or _GONE_BY_WORD.search(lowered) is not None
    return status in _ABSENT and _gone(document, lowered)


def status_inside(document: Mapping[str, Any]) -> int | None:
    """Return the status that goes with the code or the type of an error inside a 200, or None."""
    return next((STATUSES[kind.lower()] for kind in _kinds(document) if kind.lower() in STATUSES), None)


def _moderated(status: int, document: Mapping[str, Any], lowered: str) -> bool:
    """Whether an error speaks of moderation: by its code, by what it flagged, or, of a 403, in its words."""
    kinds = (_PARTING.sub("", kind.lower()) for kind in _kinds(document))
    if any(_MODERATED.search(kind) and not _NO_VERDICT.search(kind) for kind in kinds):
        return True
    if status != 403:
        return False
    facts = _facts(document)
    if facts.get("reasons") or facts.get("flagged_input") or facts.get("patterns"):
        return True
    return not _EXCLUDED.search(lowered) and any(words in lowered for words in _FLAGGED)


def _gone(document: Mapping[str, Any], lowered: str) -> bool:
    """Whether an error says that its backend has no such model, rather than no text completions."""
    return not _GONE_KINDS.isdisjoint(map(str.lower, _kinds(document))) or _GONE.search(lowered) is not None


def _reasons(document: Mapping[str, Any]) -> tuple[str, ...]:
    reasons = _facts(document).get("reasons")
    if not isinstance(reasons, list):
        return ()
    return tuple(reason[:100] for reason in reasons[:_MOST] if isinstance(reason, str))


def _kinds(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the codes and types by which an error says what it is, the narrower ones first."""
    error = document.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    deeper = inner.get("innererror")
    for place in (inner, deeper if isinstance(deeper, Mapping) else {}, _facts(document), document):
        for name in ("code", "type", "error_type"):
            kind = place.get(name)
            if isinstance(kind, str):
                yield kind


def _facts(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ``metadata`` of an error in OpenRouter's form."""
    error = document.get("error")
    facts = error.get("metadata") if isinstance(error, Mapping) else None
    return facts if isinstance(facts, Mapping) else {}
