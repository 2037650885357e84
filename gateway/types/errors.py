"""The errors a caller can meet, each with its HTTP status.

Foreign errors (sockets, engines, databases, decoders) are translated into this tree once, where they enter; the
edge renders it in the caller's dialect. The tree::

    WeirError
    ├── BadRequest 400            ├── UnsupportedEncoding 415
    ├── Unauthorized 401          ├── HeadTooLarge 431
    ├── PaymentRequired 402       ├── RateLimited 429 (Retry-After)
    ├── Forbidden 403
    ├── NotFound 404              ├── Unavailable 503 (Retry-After)
    ├── Overloaded 429 (Retry-After)
    ├── MethodNotAllowed 405      ├── UpstreamFailed 502 / 504 / the engine's own status
    ├── RequestTimeout 408        └── Internal 500
    ├── PayloadTooLarge 413
    ├── Conflict 409 (Retry-After)
    ├── Unprocessable 422
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class WeirError(Exception):
    """An error a caller is told about.

    Attributes:
        status: HTTP status, also the integer ``error.code``.
        error_type: a word of OpenRouter's ``error_type`` vocabulary, for ``metadata.error_type``.
        openai_type: OpenAI's ``error.type``.
        message: what is wrong and what would mend it; holds no secret and no prompt.
        param: the request field at fault, if one is.
        metadata: more facts for ``error.metadata``.
        retry_after: seconds after which a retry may succeed, or None.
    """

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "server"
    openai_type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.metadata = dict(metadata) if metadata else {}
        self.retry_after = retry_after

    @property
    def code(self) -> int:
        """The status this very error is answered with."""
        return self.status

    @property
    def kind(self) -> str:
        """The ``error_type`` of this very error."""
        return self.error_type

    @property
    def api_type(self) -> str:
        """OpenAI's ``error.type`` of this very error."""
        return self.openai_type

    @property
    def headers(self) -> Mapping[str, str]:
        """More headers of the answer; callers in OpenRouter's form find them in ``metadata``, too."""
        return {}


class BadRequest(WeirError):
    """The request cannot be understood or asks for something impossible."""

    status = 400
    error_type = "invalid_request"
    openai_type = "invalid_request_error"


class ContextTooLong(BadRequest):
    """The prompt, counted exactly, and the answer asked for do not fit any endpoint's context."""

    error_type = "context_length_exceeded"


class Unauthorized(WeirError):
    """No key, an unknown key, or one that is revoked or expired."""

    status = 401
    error_type = "authentication"
    openai_type = "authentication_error"


class PaymentRequired(WeirError):
    """A hard budget has not enough left for the request; ``metadata`` says what is left and when it resets.

    ``retry_after`` is there only when what is in the way may come free: held for requests under way, or leased to
    other hosts.
    """

    status = 402
    error_type = "payment_required"
    openai_type = "insufficient_quota"


class BudgetNear(PaymentRequired):
    """What is left might do if the tokens of the prompt were counted, and not taken to be as many as its bytes."""


class Forbidden(WeirError):
    """The key is good but not for this."""

    status = 403
    error_type = "permission_denied"
    openai_type = "permission_error"


class NotFound(WeirError):
    """No such model, generation or path."""

    status = 404
    error_type = "not_found"
    openai_type = "invalid_request_error"


class MethodNotAllowed(WeirError):
    """The path exists, but not with this method."""

    status = 405
    error_type = "invalid_request"
    openai_type = "invalid_request_error"


class RequestTimeout(WeirError):
    """The caller did not send its request within the limit."""

    status = 408
    error_type = "timeout"
    openai_type = "invalid_request_error"


class Conflict(WeirError):
    """The same thing is under way already; ``retry_after`` says when it may be over."""

    status = 409
    error_type = "conflict"
    openai_type = "invalid_request_error"


class Unprocessable(WeirError):
    """The request can be read and contradicts what is known of it."""

    status = 422
    error_type = "unprocessable"
    openai_type = "invalid_request_error"


class PayloadTooLarge(WeirError):
    """The body is over the limit."""

    status = 413
    error_type = "payload_too_large"
    openai_type = "invalid_request_error"


class UnsupportedEncoding(WeirError):
    """The body is compressed or encoded in a way that is not read here."""

    status = 415
    error_type = "invalid_request"
    openai_type = "invalid_request_error"


class RateLimited(WeirError):
    """A limit of the key is reached; ``retry_after`` says when there is room again."""

    status = 429
    error_type = "rate_limit_exceeded"
    openai_type = "rate_limit_error"

    @property
    def headers(self) -> Mapping[str, str]:
        """The numbers of the limit, as far as they are known."""
        found: Mapping[str, str] = self.metadata.get("headers", {})
        return found


class Overloaded(WeirError):
    """Every replica is busy and others were before; ``retry_after`` says when the queue will have moved on."""

    status = 429
    error_type = "provider_overloaded"
    openai_type = "rate_limit_error"


class HeadTooLarge(WeirError):
    """Request line and headers are over the limit."""

    status = 431
    error_type = "invalid_request"
    openai_type = "invalid_request_error"


class Unavailable(WeirError):
    """No backend can take the request now, or the gateway cannot meter it."""

    status = 503
    error_type = "provider_unavailable"
    openai_type = "service_unavailable_error"


class UpstreamFailed(WeirError):
    """The backend failed and no other could take over, or it refused the request itself.

    Args:
        message: what happened.
        code: the status to answer with; an engine's own refusal (400, 422, ...) keeps its status.
        kind: ``error_type`` for this case.
        metadata: facts such as the provider's name and its error body.
        retry_after: passed on from the backend.
        quoted: the message is in the engine's words, which may repeat the prompt: for the caller, not for the log.
    """

    status = 502
    error_type = "provider_unavailable"
    openai_type = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        code: int = 502,
        kind: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        param: str | None = None,
        quoted: bool = False,
    ) -> None:
        super().__init__(message, metadata=metadata, retry_after=retry_after, param=param)
        self.quoted = quoted or code < 500
        self._code = code
        self._kind = kind

    @property
    def code(self) -> int:
        """The status this very error is answered with."""
        return self._code

    @property
    def kind(self) -> str:
        """The ``error_type`` of this very error."""
        return self._kind or self.error_type

    @property
    def api_type(self) -> str:
        """OpenAI's ``error.type`` of this very error: what an engine refuses is the request's fault there, too."""
        return BadRequest.openai_type if self._code < 500 else self.openai_type


class Internal(WeirError):
    """A defect of the gateway. The message never tells more than the request id does."""

    status = 500
