"""The tap: counts the tokens of one answer while it passes, whatever the engine says or fails to say.

Counts come from the engine's usage where there is one (the report with the most completion tokens, so usage sent twice
or decreasing does no harm), else from the streamed deltas. The tap also knows when every choice has finished, which is
when the answer counts as complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.types.call import WHOLE, Operation
from gateway.types.chunk import Chunk, TextChunk
from gateway.types.money import DEFAULT_TIER
from gateway.types.tokens import NO_USAGE, Usage, UsageSource

_BOUNDLESS: Final = 1 << 40
_SLACK: Final = 64
"""Tokens by which an engine may exceed a limit: it counts its own marks as well."""
BYTES_PER_TOKEN: Final = 4
"""The usual estimate for English text; stated in ``usage_source`` as ``estimated``."""


_TIERS: Final = {name: name for name in (DEFAULT_TIER, "flex", "priority", "batch")} | {"standard": DEFAULT_TIER}
"""Service tiers as prices call them, by what engines say; any other word says nothing of the price."""
_AT_TOP: Final = frozenset({"prompt_cache_hit_tokens", "cached_tokens", "reasoning_tokens"})
"""Members of a usage object that say at its top what others say in its details."""


class Tap:
    """Counts one attempt's answer.

    Attributes:
        finished: every choice has its finish reason.
        failed: a choice finished with an error.
        finish_reason: the engine's own reason for the first choice that finished, or ``""``.
        deltas: streamed deltas that carried output.
        tier: the service tier that the engine says it served the answer at, or ``""`` when it does not.
    """

    __slots__ = (
        "_choices",
        "_counts_all_choices",
        "_delta_is_token",
        "_most",
        "_most_prompt",
        "_operation",
        "_output_bytes",
        "_parts",
        "_prompt_estimate",
        "_prompts",
        "_reported",
        "_reported_tokens",
        "_waiting_for",
        "deltas",
        "failed",
        "finish_reason",
        "finished",
        "tier",
    )

    def __init__(
        self,
        operation: Operation,
        choices: int,
        prompt_estimate: int,
        *,
        delta_is_token: bool,
        counts_all_choices: bool,
        prompts: int = 1,
        context: int = _BOUNDLESS,
        longest: int | None = None,
    ) -> None:
        """Begin to count an answer.

        Args:
            operation: what was asked for.
            choices: how many choices the answer will have.
            prompt_estimate: tokens of the prompt, for want of the engine's count.
            delta_is_token: the engine sends one token per delta.
            counts_all_choices: the engine's usage counts all choices together.
            prompts: how many prompts there are.
            context: tokens that fit the endpoint's context. Usage that says more is no usage.
            longest: tokens each choice was limited to, or None.
        """
        self._operation = operation
        self._choices = choices
        self._prompt_estimate = prompt_estimate
        self._delta_is_token = delta_is_token
        self._counts_all_choices = counts_all_choices
        self._reported: Mapping[str, Any] | None = None
        self._reported_tokens = 0
        self._waiting_for = None if choices == 1 else set(range(choices))
        self._output_bytes = 0
        self._most_prompt = _BOUNDLESS if operation in WHOLE else context * prompts
        self._most = (longest if longest and longest < context else context) * choices + _SLACK
        self._parts: dict[int, Mapping[str, Any]] | None = None if choices == 1 else {}
        self._prompts = prompts
        self.deltas = 0
        self.failed = False
        self.finished = False
        self.finish_reason = ""
        self.tier = ""

    def chunk(self, chunk: Chunk) -> bool:
        """Count one canonical stream chunk; return whether the answer is finished."""
        if type(chunk) is TextChunk:
            self.text(chunk)
            return self.finished
        usage, choices = chunk.get("usage"), chunk["choices"]
        if usage is not None:
            self._report(usage)
            if self._choices > 1 and type(usage) is dict:
                self._report_part(usage, choices)
        for choice in choices:
            delta = choice.get("delta")
            size = _delta_bytes(delta) if delta is not None else _bytes(choice["text"])
            if size:
                self.deltas += 1
                self._output_bytes += size
            if choice["finish_reason"] is not None:
                self._finish(choice)
        if self.finished and not self.tier:
            self.tier = _tier(chunk, usage)
        return self.finished

    def text(self, chunk: TextChunk) -> None:
        """Count a chunk of text, which finishes nothing."""
        delta = chunk.choices[0].delta
        size = 0
        for text in (delta.content, delta.reasoning_content, delta.reasoning):
            if text:
                size += len(text) if text.isascii() else len(text.encode())
        if size:
            self.deltas += 1
            self._output_bytes += size
        usage = chunk.usage
        if usage is not None:
            self._report(usage)
            if self._choices > 1:
                self._report_part(usage, ({"index": chunk.choices[0].index},))

    def answer(self, answer: Mapping[str, Any]) -> None:
        """Count a whole canonical answer."""
        usage = answer.get("usage")
        if usage is not None:
            self._report(usage)
        self.tier = _tier(answer, usage)
        if self._operation in WHOLE:
            self.finished = True
            self.finish_reason = "stop"
            return
        for choice in answer["choices"]:
            message = choice.get("message")
            self._output_bytes += _delta_bytes(message) if message is not None else _bytes(choice["text"])
            self._finish(choice)

    @property
    def disagrees(self) -> bool:
        """Whether the engine's usage is far from the deltas that were seen: more than a quarter and eight tokens."""
        usage = self._usage() if self._delta_is_token and self.deltas else None
        return usage is not None and abs(usage.completion - self.deltas) > max(8, self.deltas // 4)

    @property
    def silent(self) -> bool:
        """Whether no output was seen."""
        return self.deltas == 0 and self._output_bytes == 0

    def count(self) -> tuple[Usage, UsageSource]:
        """Return the tokens so far and where the numbers come from."""
        usage = self._usage()
        if usage is not None and usage.completion > self._most:
            usage = None
        counted = self.deltas if self._delta_is_token and self.deltas else -(-self._output_bytes // BYTES_PER_TOKEN)
        if usage is None:
            source = UsageSource.COUNTED if self._delta_is_token and self.deltas else UsageSource.ESTIMATED
            return Usage(self._prompt_estimate, counted), source
        if not 0 < usage.prompt <= self._most_prompt:
            usage = msgspec.structs.replace(usage, prompt=self._prompt_estimate)
        if counted and not usage.completion:
            # There was output, so this is no count of it: a member left out, or one that is no number.
            exact = self._delta_is_token and self.deltas
            return _with_completion(usage, counted), UsageSource.COUNTED if exact else UsageSource.ESTIMATED
        if self._choices > 1 and not self._counts_all_choices and counted > usage.completion:
            return _with_completion(usage, counted), UsageSource.COUNTED
        if not self.finished and self._delta_is_token and self.deltas > usage.completion:
            # The engine's last word came before the last deltas did.
            return _with_completion(usage, self.deltas), UsageSource.COUNTED
        return usage, UsageSource.UPSTREAM

    def _finish(self, choice: Mapping[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if not self.finish_reason:
            self.finish_reason = str(choice.get("native_finish_reason") or reason or "")
        if reason == "error":
            self.failed = True
        if self._waiting_for is not None:
            self._waiting_for.discard(choice["index"])
            self.finished = not self._waiting_for
        elif choice["index"] == 0:
            self.finished = True

    def _report(self, usage: Any) -> None:
        """Keep the engine's usage unless an earlier one counted more tokens."""
        if type(usage) is dict:
            tokens = _count(usage.get("completion_tokens"))
            if self._most >= tokens >= self._reported_tokens:
                self._reported_tokens = tokens
                self._reported = usage

    def _report_part(self, usage: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> None:
        """Keep usage that counts one choice of several, until usage of all of them comes.

        It counts the choice it comes with. Without one it counts all, but for engines that never do: their reports
        come without a choice, one for each.
        """
        parts = self._parts
        if parts is None:
            return
        if choices:
            parts[choices[0]["index"]] = usage
        elif self._counts_all_choices:
            self._parts = None
        elif len(parts) < self._choices:
            parts[len(parts)] = usage

    def _usage(self) -> Usage | None:
        """Return what the engine reported so far, a prompt counted once for all its choices."""
        if not self._parts:
            return usage_of(self._reported)
        each = {index: usage_of(part) or NO_USAGE for index, part in self._parts.items()}
        per_prompt = self._choices // self._prompts
        prompts = {index // per_prompt: usage for index, usage in each.items()}.values()
        return Usage(
            sum(usage.prompt for usage in prompts),
            sum(usage.completion for usage in each.values()),
            sum(usage.cache_read for usage in prompts),
            sum(usage.cache_write for usage in prompts),
            sum(usage.reasoning for usage in each.values()),
            sum(usage.audio_prompt for usage in prompts),
            sum(usage.audio_completion for usage in each.values()),
            sum(usage.image_prompt for usage in prompts),
            sum(usage.image_completion for usage in each.values()),
            sum(usage.cache_write_1h for usage in prompts),
        )


def usage_of(document: Any) -> Usage | None:
    """Read a ``usage`` object of OpenAI's kind; numbers that are missing, negative or not integers count as 0.

    Tokens that were cached are named as OpenAI, DeepSeek (``prompt_cache_hit_tokens``) or Moonshot (``cached_tokens``)
    does, tokens that were written to a cache as OpenRouter or DashScope does. Some APIs leave reasoning out of the
    completion; their total tells.

    Returns None when there is no number of prompt or completion tokens at all.
    """
    if type(document) is not dict or ("prompt_tokens" not in document and "completion_tokens" not in document):
        return None
    prompt_tokens = _count(document.get("prompt_tokens"))
    completion_tokens = _count(document.get("completion_tokens"))
    prompt = document.get("prompt_tokens_details")
    completion = document.get("completion_tokens_details")
    if not prompt and not completion and _AT_TOP.isdisjoint(document):
        return Usage(prompt_tokens, completion_tokens)
    prompt = prompt if type(prompt) is dict else {}
    completion = completion if type(completion) is dict else {}
    reasoning = _count(completion.get("reasoning_tokens")) or _count(document.get("reasoning_tokens"))
    if reasoning and _count(document.get("total_tokens")) == prompt_tokens + completion_tokens + reasoning:
        completion_tokens += reasoning
    cached = _count(prompt.get("cached_tokens")) or _count(document.get("prompt_cache_hit_tokens"))
    return Usage(
        prompt_tokens,
        completion_tokens,
        cached or _count(document.get("cached_tokens")),
        _count(prompt.get("cache_write_tokens")) or _count(prompt.get("cache_creation_input_tokens")),
        reasoning,
        _count(prompt.get("audio_tokens")),
        _count(completion.get("audio_tokens")),
        _count(prompt.get("image_tokens")),
        _count(completion.get("image_tokens")),
        _count(prompt.get("cache_write_1h_tokens")),
    )


def _tier(document: Mapping[str, Any], usage: Any) -> str:
    """Return the service tier that a chunk or an answer names: beside its usage as OpenAI does, or in it."""
    said = document.get("service_tier") or (usage.get("service_tier") if type(usage) is dict else None)
    return _TIERS.get(said, "") if type(said) is str else ""


def _count(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value < _BOUNDLESS else 0


def _with_completion(usage: Usage, completion: int) -> Usage:
    return Usage(
        usage.prompt,
        completion,
        usage.cache_read,
        usage.cache_write,
        usage.reasoning,
        usage.audio_prompt,
        usage.audio_completion,
        usage.image_prompt,
        usage.image_completion,
        usage.cache_write_1h,
    )


def _delta_bytes(delta: Mapping[str, Any]) -> int:
    """Return the size of a delta's or message's output: text, reasoning, refusals and tool arguments."""
    size = 0
    for name, value in delta.items():
        if name == "role":
            continue
        if type(value) is str:
            size += _bytes(value)
        elif name == "tool_calls":
            for call in value:
                function = call.get("function") or {}
                size += _bytes(function.get("name") or "") + _bytes(function.get("arguments") or "")
        elif value:
            size += 1
    return size


def _bytes(text: str) -> int:
    """Return the length of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
