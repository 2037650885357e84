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
from gateway.types.chunk import Chunk, Passed, TextChunk, TextUsage
from gateway.types.money import DEFAULT_TIER
from gateway.types.tokens import NO_USAGE, Usage, UsageSource

_BOUNDLESS: Final = 1 << 40
_SLACK: Final = 64
"""Tokens by which an engine may exceed a limit: it counts its own marks as well."""
BYTES_PER_TOKEN: Final = 4
"""The usual estimate for English text; stated in ``usage_source`` as ``estimated``."""


_TIERS: Final = {name: name for name in (DEFAULT_TIER, "flex", "priority", "batch")} | {"standard": DEFAULT_TIER}
"""Service tiers as prices call them, by what engines say; any other word says nothing of the price."""
_UPSTREAM: Final = UsageSource.UPSTREAM
_AT_TOP: Final = frozenset({"prompt_cache_hit_tokens", "cached_tokens", "reasoning_tokens"})
"""Members of a usage object that say at its top what others say in its details."""


class Basis(msgspec.Struct, frozen=True, gc=False):
    """What is known of an answer before it begins.

    Attributes:
        operation: what was asked for.
        choices: how many choices the answer will have.
        prompt_estimate: tokens of the prompt, for want of the engine's count.
        delta_is_token: the engine sends one token per delta.
        counts_all_choices: the engine's usage counts all choices together.
        prompts: how many prompts there are.
        context: tokens that fit the endpoint's context. Usage that says more is no usage.
        longest: tokens each choice was limited to, or None.
        longest_prompt: tokens that all prompts can have together by their bytes, for what is answered whole. That is
            not held to the context: some engines read a long text in pieces.
    """

    operation: Operation
    choices: int
    prompt_estimate: int
    delta_is_token: bool
    counts_all_choices: bool
    prompts: int = 1
    context: int = _BOUNDLESS
    longest: int | None = None
    longest_prompt: int = _BOUNDLESS

    @property
    def most_prompt(self) -> int:
        """Prompt tokens beyond which usage says nothing of the prompt."""
        return self.longest_prompt if self.operation in WHOLE else self.context * self.prompts

    @property
    def most(self) -> int:
        """Completion tokens beyond which usage is no usage."""
        context, longest = self.context, self.longest
        return (longest if longest and longest < context else context) * self.choices + _SLACK


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
        "_basis",
        "_most",
        "_output_bytes",
        "_reported",
        "_reported_tokens",
        "_several",
        "_whole",
        "deltas",
        "failed",
        "finish_reason",
        "finished",
        "tier",
    )

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._several = _Several(basis) if basis.choices > 1 else None
        self._reported: Mapping[str, Any] | TextUsage | None = None
        self._whole: Sequence[Mapping[str, Any]] = ()
        self._most = self._reported_tokens = self._output_bytes = self.deltas = 0
        self.failed = self.finished = False
        self.finish_reason = self.tier = ""

    def chunk(self, chunk: Chunk) -> bool:
        """Count one canonical stream chunk; return whether the answer is finished."""
        if type(chunk) is TextChunk:
            self.text(chunk)
            return self.finished
        usage, choices = chunk.get("usage"), chunk["choices"]
        if usage is not None:
            self._report(usage)
            if self._several is not None and type(usage) is dict:
                self._several.report(usage, choices)
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
        choice = chunk.choices[0]
        delta = choice.delta
        text = delta.content
        size = (len(text) if text.isascii() else len(text.encode())) if text else 0
        if delta.reasoning_content or delta.reasoning:
            size += _bytes(delta.reasoning_content or "") + _bytes(delta.reasoning or "")
        if size:
            self.deltas += 1
            self._output_bytes += size
        usage = chunk.usage
        if usage is not None:
            tokens = usage.completion_tokens
            if (self._most or self.bound) >= tokens >= self._reported_tokens:
                self._reported_tokens = tokens
                self._reported = usage
            if self._several is not None:
                self._several.report(usage.document(), ({"index": choice.index},))

    def passed(self, run: Passed) -> None:
        """Count pieces of text that have passed, see ``countable``; their usage is within ``bound``."""
        self.deltas += len(run.pieces)
        self._output_bytes += _bytes("".join(run.pieces))
        usage = run.usage
        if usage is not None and usage.completion_tokens >= self._reported_tokens:
            self._reported_tokens = usage.completion_tokens
            self._reported = usage

    @property
    def countable(self) -> bool:
        """Whether pieces of text can be counted together: the answer has one choice."""
        return self._several is None

    def answer(self, answer: Mapping[str, Any]) -> None:
        """Count a whole canonical answer."""
        usage = answer.get("usage")
        if type(usage) is dict:
            self._reported = usage
        self.tier = _tier(answer, usage)
        if self._basis.operation in WHOLE:
            self.finished = True
            self.finish_reason = "stop"
            return
        self._whole = answer["choices"]
        for choice in self._whole:
            self._finish(choice)

    @property
    def disagrees(self) -> bool:
        """Whether the engine's usage is far from the deltas that were seen: more than a quarter and eight tokens."""
        usage = self._usage() if self.deltas and self._basis.delta_is_token else None
        return usage is not None and abs(usage.completion - self.deltas) > max(8, self.deltas // 4)

    @property
    def silent(self) -> bool:
        """Whether no output was seen."""
        return self.deltas == 0 and self._size() == 0

    def count(self) -> tuple[Usage, UsageSource]:
        """Return the tokens so far and where the numbers come from."""
        usage, basis = self._usage(), self._basis
        if usage is None or usage.completion > basis.most:
            return Usage(basis.prompt_estimate, self._counted()), self._source
        if not 0 < usage.prompt <= basis.most_prompt:
            if basis.operation in WHOLE:
                return Usage(basis.prompt_estimate), UsageSource.ESTIMATED
            usage = msgspec.structs.replace(usage, prompt=basis.prompt_estimate)
        if usage.completion and self.finished and self._several is None:
            return usage, _UPSTREAM
        counted = self._counted()
        if counted and not usage.completion:
            # There was output, so this is no count of it: a member left out, or one that is no number.
            return _with_completion(usage, counted), self._source
        if self._several is not None and not basis.counts_all_choices and counted > usage.completion:
            return _with_completion(usage, counted), UsageSource.COUNTED
        if not self.finished and basis.delta_is_token and self.deltas > usage.completion:
            # The engine's last word came before the last deltas did.
            return _with_completion(usage, self.deltas), UsageSource.COUNTED
        return usage, _UPSTREAM

    def _counted(self) -> int:
        """Return the completion tokens by what was seen."""
        return self.deltas if self._exact else -(-self._size() // BYTES_PER_TOKEN)

    def _size(self) -> int:
        """Return the bytes of output that were seen. Those of a whole answer are counted when somebody asks."""
        whole, self._whole = self._whole, ()
        for choice in whole:
            message = choice.get("message")
            self._output_bytes += _delta_bytes(message) if message is not None else _bytes(choice["text"])
        return self._output_bytes

    @property
    def _exact(self) -> bool:
        return self.deltas > 0 and self._basis.delta_is_token

    @property
    def _source(self) -> UsageSource:
        """Where a count by what was seen comes from."""
        return UsageSource.COUNTED if self._exact else UsageSource.ESTIMATED

    def _usage(self) -> Usage | None:
        """Return what the engine reported so far."""
        several = self._several
        if several is not None and several.parts:
            return several.usage()
        reported = self._reported
        return usage_of(reported.document() if isinstance(reported, TextUsage) else reported)

    def _finish(self, choice: Mapping[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if not self.finish_reason:
            self.finish_reason = str(choice.get("native_finish_reason") or reason or "")
        if reason == "error":
            self.failed = True
        if self._several is not None:
            self.finished = self._several.finished(choice["index"])
        elif choice["index"] == 0:
            self.finished = True

    def _report(self, usage: Any) -> None:
        """Keep the engine's usage unless an earlier one counted more tokens."""
        if type(usage) is dict:
            tokens = _count(usage.get("completion_tokens"))
            if (self._most or self.bound) >= tokens >= self._reported_tokens:
                self._reported_tokens = tokens
                self._reported = usage

    @property
    def bound(self) -> int:
        """The completion tokens beyond which usage is none, looked up once."""
        most = self._most
        if not most:
            most = self._most = self._basis.most
        return most


class _Several:
    """What is kept of an answer of several choices: which have not finished, and what was reported of each.

    Attributes:
        parts: usage by choice, until usage of all of them together comes.
    """

    __slots__ = ("_basis", "_together", "_waiting_for", "parts")

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._together = False
        self._waiting_for = set(range(basis.choices))
        self.parts: dict[int, Mapping[str, Any]] = {}

    def finished(self, index: int) -> bool:
        """Take note that a choice has finished; return whether all have."""
        self._waiting_for.discard(index)
        return not self._waiting_for

    def report(self, usage: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> None:
        """Keep usage that counts one choice of several, until usage of all of them comes.

        It counts the choice it comes with. Without one it counts all, but for engines that never do: their reports
        come without a choice, one for each.
        """
        if self._together:
            return
        parts = self.parts
        if choices:
            parts[choices[0]["index"]] = usage
        elif self._basis.counts_all_choices:
            self._together = True
            parts.clear()
        elif len(parts) < self._basis.choices:
            parts[len(parts)] = usage

    def usage(self) -> Usage:
        """Return what was reported by choice, a prompt counted once for all its choices."""
        each = {index: usage_of(part) or NO_USAGE for index, part in self.parts.items()}
        per_prompt = self._basis.choices // self._basis.prompts
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
    if type(document) is not dict or not ("prompt_tokens" in document or "completion_tokens" in document):
        return None
    prompt_tokens, completion_tokens = document.get("prompt_tokens"), document.get("completion_tokens")
    if type(prompt_tokens) is not int or not 0 <= prompt_tokens < _BOUNDLESS:
        prompt_tokens = _count(prompt_tokens)
    if type(completion_tokens) is not int or not 0 <= completion_tokens < _BOUNDLESS:
        completion_tokens = _count(completion_tokens)
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
    if type(value) is not int:
        if type(value) is not float or not value.is_integer():
            return 0
        value = int(value)
    return value if 0 < value < _BOUNDLESS else 0


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
