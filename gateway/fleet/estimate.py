"""How long a replica would take: a small model of its engine that learns from the gateway's own requests.

Time to first token is linear in the prompts to be read first, in their tokens, in the attention over them, in the steps
of answers under way that come between and in the time that the queue stands still; the time between two tokens is
linear in the requests and context tokens that are worked on side by side and in the time that reading prompts takes
meanwhile. What the owner or the engine kind says is the start (*prior*); recursive least squares on the gateway's own
samples moves every coefficient, within bounds around its prior, so that no run of odd samples makes a replica look free
or dead.
Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FORGETTING: Final = 0.99
"""What one sample leaves of the weight of those before it: about the last hundred count."""
SPREAD: Final = 0.25
"""Variance of a coefficient around its prior before the first sample, in units of the prior."""
COMMON: Final = 1.0
"""Variance of what all times of a machine have in common: one that reads slowly makes slow steps, too."""
PER_PROMPT_SPREAD: Final = 64.0
"""Variance of what a prompt takes whatever its length: for some engines it is nothing, for others a lot."""
PER_REQUEST_SPREAD: Final = 64.0
"""Variance of what a request adds to a step: engines differ by more than ten times in it."""
CLAMP: Final = 4.0
"""A stated prior may be wrong by this factor at most, either way."""
ASSUMED_CLAMP: Final = 64.0
"""A prior that nobody stated may be wrong by this factor, either way."""
OUTLIER: Final = 0.3
"""A sample that is off by more than this many times the prediction counts less, the more the further it is off
(Huber's weights): one moves little, and many that agree are believed, because each makes the model little surer. Of
times to first token, where it is mostly a queue that nobody foresaw, it counts as if it were off by so much."""
SHORTEST_TTFT: Final = 0.02
SHORTEST_ITL: Final = 0.0002
"""Seconds below which the size of an error is not judged by the size of what was predicted."""
BUSIEST: Final = 0.9
"""Share of an engine's time that reading prompts takes at most, for predictions."""
CHUNK: Final = 8_192
"""Prompt tokens that an engine reads in one step; its answers under way get one token meanwhile."""
STEPS: Final = 1.5
"""Steps that a short prompt waits for: half of the one under way, and its own."""
_NO_NEWS: Final = 1e-9
_STEP: Final = 0.05
"""How fast the running median of the error follows, as a share of itself per sample."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of an engine before it was watched. Times are seconds.

    The defaults are those of a 32B model on two H100 (``docs/decisions/0014-estimates.md``).

    Attributes:
        base: time to first token of an empty prompt on an idle engine.
        rate: prompt tokens read per second.
        attention: growth of the reading time with the square of the prompt, per token squared.
        step: time of one step for one request without context.
        per_prompt: time that each prompt takes beside its tokens.
        per_request: more time per step for each request that runs.
        per_token: more time per step for each context token held.
        stated: whether the owner said what ``rate`` is; if not, its clamp is wide, as those of the others are.
    """

    base: float = 0.02
    rate: float = 15_928.0
    attention: float = 1.6e-9
    step: float = 0.0155
    per_prompt: float = 0.003
    per_request: float = 0.00002
    per_token: float = 7.6e-8
    stated: bool = False


class _LeastSquares:
    """Recursive least squares over coefficients in units of their priors, each within its clamp.

    What is known fades only along what a sample speaks of (restricted forgetting: Kulhavy and Karny, 1984), so a load
    that does not change for an hour does not wash away what was learned at other loads.
    """

    __slots__ = ("_bounds", "_clips", "_covariance", "coefficients")

    def __init__(
        self, clamps: Sequence[float], spreads: Sequence[float], common: Sequence[float], *, clips: bool
    ) -> None:
        count = len(clamps)
        self._clips = clips
        self.coefficients = [1.0] * count
        self._covariance = [
            [one * other * COMMON + (spreads[row] if row == column else 0.0) for column, other in enumerate(common)]
            for row, one in enumerate(common)
        ]
        self._bounds = [(1.0 / clamp, clamp) for clamp in clamps]

    def learn(self, features: Sequence[float], value: float) -> None:
        """Take the sample ``value`` at ``features``, both divided by the size of error that matters there."""
        covariance, coefficients = self._covariance, self.coefficients
        spread = [sum(map(float.__mul__, row, features)) for row in covariance]
        news = sum(map(float.__mul__, spread, features))
        if news <= _NO_NEWS:
            return
        error = value - sum(map(float.__mul__, coefficients, features))
        weight = min(1.0, OUTLIER / abs(error)) if error else 1.0
        if self._clips:
            error, weight = error * weight, 1.0
        gains, gained = spread, news
        held = self._held(spread, error)
        if held:
            # What cannot move any further must not take what the others have to learn.
            free = [0.0 if index in held else feature for index, feature in enumerate(features)]
            gains = [sum(map(float.__mul__, row, free)) for row in covariance]
            for index in held:
                gains[index] = 0.0
            gained = max(0.0, sum(map(float.__mul__, gains, free)))
        # Along the features what is known loses 1 - FORGETTING of its weight, across them nothing; so the variance
        # along them settles where a sample adds as much as is forgotten, and grows again where it was less.
        keep = weight * FORGETTING - (1.0 - FORGETTING) / news
        if keep < 0.0 and news > COMMON:
            keep = 0.0  # it knows as little as it ever did
        less = keep / (1.0 + keep * news)
        step = error / (1.0 / weight + gained)
        for index, along in enumerate(spread):
            lowest, highest = self._bounds[index]
            coefficients[index] = max(lowest, min(highest, coefficients[index] + gains[index] * step))
            row, factor = covariance[index], less * along
            for column, across in enumerate(spread):
                row[column] -= factor * across

    def _held(self, spread: Sequence[float], error: float) -> list[int]:
        """Return which coefficients stand at the bound that ``error`` would move them beyond."""
        return [
            index
            for index, (along, coefficient, (lowest, highest)) in enumerate(
                zip(spread, self.coefficients, self._bounds, strict=True)
            )
            if not lowest < coefficient < highest and (along * error < 0.0) is (coefficient <= lowest)
        ]


class Estimate:
    """The engine model of one replica; all times are seconds, all coefficients as learned by now.

    Attributes:
        prior: what it started from.
        base: time to first token of an empty prompt on an idle engine.
        token: time to read one prompt token.
        attention: growth of the reading time with the square of the prompt.
        steps: steps of the answers under way that a prompt waits for, over those expected.
        per_prompt: time that each prompt takes beside its tokens.
        at_start: steps that any prompt waits for.
        per_chunk: steps that it waits for per token.
        blocked: share of a predicted standstill of the queue that comes true.
        step: time of one step for one request without context.
        per_request: more time per step for each request that runs.
        per_context: more time per step for each context token held.
        reading: share of the time of reading prompts by which each answer that is being written is delayed.
        ttft_error: running median of the absolute error of predicted times to first token, as a share of the true one;
            None before the first sample.
        itl_error: the same for the time between two tokens.
        samples: times to first token that were learned from.
    """

    __slots__ = (
        "_blocked",
        "_itl",
        "_ttft",
        "at_start",
        "attention",
        "base",
        "blocked",
        "itl_error",
        "per_chunk",
        "per_context",
        "per_prompt",
        "per_request",
        "prior",
        "reading",
        "samples",
        "step",
        "steps",
        "token",
        "ttft_error",
    )

    def __init__(self, prior: Prior | None = None) -> None:
        self.prior = prior = prior or Prior()
        rate = CLAMP if prior.stated else ASSUMED_CLAMP
        self._ttft = _LeastSquares(
            (ASSUMED_CLAMP, rate, ASSUMED_CLAMP, CLAMP, ASSUMED_CLAMP),
            (SPREAD, SPREAD, SPREAD, SPREAD, PER_PROMPT_SPREAD),
            (1.0, 1.0, 1.0, 0.0, 1.0),
            clips=True,
        )
        self._blocked = _LeastSquares((ASSUMED_CLAMP,), (SPREAD,), (0.0,), clips=True)
        self._itl = _LeastSquares(
            (ASSUMED_CLAMP, ASSUMED_CLAMP, ASSUMED_CLAMP, CLAMP),
            (SPREAD, PER_REQUEST_SPREAD, SPREAD, SPREAD),
            (1.0, 1.0, 1.0, 0.0),
            clips=False,
        )
        self.ttft_error: float | None = None
        self.itl_error: float | None = None
        self.samples = 0
        self.base = self.token = self.attention = self.blocked = 0.0
        self.steps = self.at_start = self.per_chunk = self.per_prompt = 0.0
        self.step = self.per_request = self.per_context = self.reading = 0.0
        self._unfold()

    @property
    def rate(self) -> float:
        """Prompt tokens read per second."""
        return 1.0 / self.token

    def ttft(
        self, tokens: float, attention: float, step: float, standstill: float = 0.0, prompts: float = 1.0
    ) -> float:
        """Return the seconds to the first token of a prompt.

        Args:
            tokens: prompt tokens that the engine must read before and for it.
            attention: for each of these prompts its tokens times those they attend to, see ``attended``.
            step: seconds of a step of the answers that are written meanwhile.
            standstill: seconds for which the queue stands still for want of room.
            prompts: how many are read before it, and itself.
        """
        return (
            self.base
            + prompts * self.per_prompt
            + tokens * self.token
            + attention * self.attention
            + step * (self.at_start + tokens * self.per_chunk)
            + standstill * self.blocked
        )

    def reading_time(self, tokens: float, attention: float) -> float:
        """Return the seconds that reading takes by itself."""
        return tokens * self.token + attention * self.attention

    def pace(self, batch: float, context: float) -> float:
        """Return the seconds of a step in which ``batch`` requests with ``context`` tokens get one token each."""
        return self.step + self.per_request * batch + self.per_context * context

    def itl(self, batch: float, context: float, busy: float = 0.0) -> float:
        """Return the seconds between two tokens.

        Args:
            batch: requests that run.
            context: tokens of context that they hold.
            busy: share of the time that reading prompts takes meanwhile.
        """
        return self.pace(batch, context) / (1.0 - min(BUSIEST, busy * self.reading))

    def learn_ttft(
        self,
        tokens: float,
        attention: float,
        step: float,
        seconds: float,
        standstill: float = 0.0,
        prompts: float = 1.0,
        *,
        telling: bool = True,
    ) -> None:
        """Learn from a first token that came after ``seconds``; the rest as in ``ttft``.

        One that is not ``telling`` only says how good predictions are: who came meanwhile was perhaps read with it.
        """
        prior = self.prior
        predicted = self.ttft(tokens, attention, step, standstill, prompts)
        self.ttft_error = _median(self.ttft_error, abs(predicted - seconds) / max(seconds, SHORTEST_TTFT))
        if not telling:
            return
        self.samples += 1
        size = max(predicted, SHORTEST_TTFT)
        features = (
            prior.base / size,
            tokens / (prior.rate * size),
            attention * prior.attention / size,
            step * (STEPS + tokens / CHUNK) / size,
            prompts * prior.per_prompt / size,
        )
        if standstill:
            # What is beside the standstill is too little to show in such a time.
            known = sum(map(float.__mul__, self._ttft.coefficients, features))
            self._blocked.learn((standstill / size,), seconds / size - known)
        else:
            self._ttft.learn(features, seconds / size)
        self._unfold()

    def learn_itl(self, batch: float, context: float, read: float, seconds: float) -> None:
        """Learn from an answer whose tokens came ``seconds`` apart.

        Args:
            batch: requests that ran meanwhile.
            context: tokens of context that they held.
            read: seconds that reading prompts took meanwhile, per token of the answer.
            seconds: mean time between two tokens.
        """
        prior = self.prior
        predicted = self.pace(batch, context) + self.reading * read
        self.itl_error = _median(self.itl_error, abs(predicted - seconds) / max(seconds, SHORTEST_ITL))
        size = max(predicted, SHORTEST_ITL)
        features = (
            prior.step / size,
            prior.per_request * batch / size,
            prior.per_token * context / size,
            read / size,
        )
        self._itl.learn(features, seconds / size)
        self._unfold()

    def _unfold(self) -> None:
        """Multiply the coefficients out, because they are read more often than learned."""
        prior, (a, r, q, s, n), (c0, c1, c2, p) = self.prior, self._ttft.coefficients, self._itl.coefficients
        (w,) = self._blocked.coefficients
        self.base, self.token, self.attention = a * prior.base, r / prior.rate, q * prior.attention
        self.steps, self.blocked, self.per_prompt = s, w, n * prior.per_prompt
        self.at_start, self.per_chunk = s * STEPS, s / CHUNK
        self.step, self.per_request, self.per_context = c0 * prior.step, c1 * prior.per_request, c2 * prior.per_token
        self.reading = p


def attended(uncached: float, cached: float) -> float:
    """Return the tokens of a prompt that are read times the mean number of tokens they attend to."""
    return uncached * (cached + 0.5 * uncached)


def _median(median: float | None, sample: float) -> float:
    """Return the running median after ``sample``: it steps up as often as down where half the samples are above."""
    if median is None:
        return min(max(sample, 0.01), 1.0)
    return max(median * (1.0 + _STEP if sample > median else 1.0 - _STEP), 1e-4)
