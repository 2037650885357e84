"""Whole answers that are JSON: the body of one, read into canonical form or judged to be none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.engines.kind import Engine
from gateway.types.call import Operation
from gateway.types.failure import Cause, Failure
from gateway.upstream.openai import decode_mended, decode_ranking, error_event, is_error, mend_answer
from gateway.upstream.plain_answer import plain_answer

if TYPE_CHECKING:
    from gateway.upstream.speech import Translator

_CHAT: Final = Operation.CHAT
_NOT_JSON: Final = Failure(Cause.MALFORMED, "the backend's answer is not JSON", 200)
_WRONG_SHAPE: Final = Failure(Cause.MALFORMED, "the backend's answer has the wrong shape", 200)


def whole_answer(
    body: bytes, engine: Engine, operation: Operation, translator: Translator | None
) -> dict[str, Any] | Failure:
    """Return the answer in ``body``, which came with status 200, in canonical form; or why it is none.

    Args:
        body: of the response.
        engine: who answers.
        operation: what was asked for.
        translator: understands what is not said in the chat form, or None.
    """
    if operation is _CHAT and translator is None and (plain := plain_answer(body)) is not None:
        return plain
    answer = decode_ranking(body) if operation is Operation.RERANK else decode_mended(body)
    if answer is None:
        return _NOT_JSON
    if translator is not None:
        return translator.answer(answer)
    if is_error(answer):
        return error_event(engine, answer)
    return answer if mend_answer(answer, operation) else _WRONG_SHAPE
