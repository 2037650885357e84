"""Budget alerts: noticing that a share of a limit is spent, and telling a webhook of the operator's, once.

A percentage that is reached is a row in the database, of which there is one per budget, window and percentage whoever
notices it first; so it is told once over all hosts and restarts. A message that was not taken is sent again, for a
day, with growing pauses. It may arrive twice when the process dies between the answer and the note of it: receivers
know it by its ``id``. Address and secret are of the environment, and the address obeys the egress rules; redirects
are not followed. Nothing here holds up a request.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import or_
from sqlmodel import col, select
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from gateway.access.budgets import BudgetStore, wall_clock_us
from gateway.config.snapshot import ConfigSnapshot
from gateway.db.engine import Database
from gateway.db.tables.access import KeyRow
from gateway.db.tables.budget import BudgetAlertRow, BudgetRow
from gateway.db.unit_of_work import reading, writing
from gateway.fleet.egress import EgressError, EgressGuard
from gateway.telemetry import logs
from gateway.types.budgets import Alert, AlertsQuestion, Budget, Scope, Window, iso_day, today
from gateway.types.money import usd_text

TURN_S: Final = 2.0
"""Seconds between two looks."""
TIMEOUT_S: Final = 10.0
TRIES: Final = 3
"""Tries of one turn; what fails then waits for a later one."""
CLAIM_US: Final = 60_000_000
"""Microseconds for which a message that is being sent is left to its sender."""
OLDEST_US: Final = 86_400_000_000
"""Microseconds after which a message that nobody took is given up."""
SIGNATURE: Final = "weir-signature"
_LATE_US: Final = 600_000_000
"""Microseconds after its end for which a window is still looked at: what was spent in it comes a little later."""
_MOST: Final = 20
MOST: Final = 500
"""Alerts that are told of at once."""
_LONGEST_OUTCOME: Final = 200
_log: Final = logs.logger(__name__)
_Mark = tuple[str, int, int, int]
"""What a percentage that was noticed is remembered by; see ``_mark``."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts go.

    Attributes:
        url: of the operator's.
        secret: key of the signature.
    """

    url: str
    secret: bytes


class _NotTakenError(Exception):
    """The receiver did not take a message; another try may help. The text says what it did instead."""


class Known(Protocol):
    """Who knows the budgets."""

    @property
    def budgets(self) -> Mapping[str, Budget]:
        """All of them by id."""

    @property
    def store(self) -> BudgetStore:
        """Where they are kept."""


class Alerts:
    """Watches budgets and tells of them.

    Args:
        database: of the ledger.
        known: the budgets.
        config: returns the configuration of now, whose egress rules count.
        webhook: where alerts go; None only logs them.
        now_us: wall clock, microseconds since 1970.

    Attributes:
        sent: messages that were taken.
        failed: tries that were not.
    """

    def __init__(
        self,
        database: Database,
        known: Known,
        config: Callable[[], ConfigSnapshot | None],
        webhook: Webhook | None = None,
        *,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.sent = 0
        self.failed = 0
        self._database = database
        self._known = known
        self._config = config
        self._webhook = webhook
        self._now_us = now_us
        self._crossed: set[_Mark] = set()
        self._guard: EgressGuard | None = None

    async def history(self, question: AlertsQuestion) -> Sequence[Alert]:
        """See ``ALERTS``. Raises ``Unavailable``."""
        row, of = BudgetAlertRow, BudgetRow
        query = select(row, of, col(KeyRow.team)).join(of, col(of.budget_id) == col(row.budget_id))
        query = query.outerjoin(KeyRow, col(KeyRow.key_id) == col(of.key_id))
        if question.teams is not None:
            query = query.where(or_(col(of.team).in_(question.teams), col(KeyRow.team).in_(question.teams)))
        query = query.order_by(col(row.crossed_at).desc(), col(row.percent).desc()).limit(
            max(1, min(question.limit, MOST))
        )
        async with reading(self._database) as session:
            found = (await session.execute(query)).all()
        now = self._now_us()
        return tuple(self._alert(alert, budget, team or "", now) for alert, budget, team in found)

    def _alert(self, row: BudgetAlertRow, budget: BudgetRow, team: str, now: int) -> Alert:
        if row.delivered_at is not None:
            state = "delivered"
        elif self._webhook is None and not row.tries:
            state = "logged"
        else:
            state = "given up" if row.crossed_at <= now - OLDEST_US else "waiting"
        return Alert(
            row.budget_id,
            Scope(budget.key_id, budget.team, budget.model),
            budget.team or team,
            Window(budget.period),
            row.window_day,
            row.percent,
            budget.hard,
            row.limit_nano,
            row.spent_nano,
            row.crossed_at,
            state,
            row.delivered_at,
            row.tries,
            row.receiver,
            row.outcome,
        )

    async def turn(self) -> None:
        """Look once, and send what is to be sent. Raises ``Unavailable`` while the database is away."""
        await self._look()
        if self._webhook is not None:
            for row in await self._claimed():
                await self._send(row, self._webhook)

    async def _look(self) -> None:
        """Make a row for every percentage that is reached."""
        now = self._now_us()
        budgets = self._known.budgets
        windows: list[tuple[Budget, int]] = []
        for budget in budgets.values():
            if budget.alerts and budget.limit_nano:
                starts = {budget.window.start(today(moment)) for moment in (now - _LATE_US, now)}
                windows += [(budget, start) for start in starts]
        looked_at = {_mark(budget, start, percent) for budget, start in windows for percent in budget.alerts}
        self._crossed &= looked_at  # of windows that are over nobody asks again
        watched = [(budget, start) for budget, start in windows if not self._is_done(budget, start)]
        if not watched:
            return
        reached = []
        for (budget, start), spent in zip(watched, await self._known.store.spent(watched), strict=True):
            reached += [
                (budget, start, percent, spent)
                for percent in budget.alerts
                if spent * 100 >= budget.limit_nano * percent and _mark(budget, start, percent) not in self._crossed
            ]
        if reached:
            await self._note(reached, now)

    def _is_done(self, budget: Budget, start: int) -> bool:
        return all(_mark(budget, start, percent) in self._crossed for percent in budget.alerts)

    async def _note(self, reached: Sequence[tuple[Budget, int, int, int]], now: int) -> None:
        fresh, crossed = [], []
        async with writing(self._database) as session:
            for budget, start, percent, spent in reached:
                row = await session.get(BudgetRow, budget.budget_id)
                # A row of a budget that was deleted or set anew meanwhile would silence the one that takes its place.
                if row is None or (row.created_at, row.limit_nano) != (budget.created_at, budget.limit_nano):
                    continue
                crossed.append(_mark(budget, start, percent))
                if await session.get(BudgetAlertRow, (budget.budget_id, start, percent)) is None:
                    fresh.append((budget, start, percent))
                    session.add(
                        BudgetAlertRow(
                            budget_id=budget.budget_id,
                            window_day=start,
                            percent=percent,
                            limit_nano=budget.limit_nano,
                            spent_nano=spent,
                            crossed_at=now,
                        )
                    )
        self._crossed.update(crossed)
        for budget, start, percent in fresh:
            _log.warning(
                "a budget has reached a share of its limit",
                budget=budget.budget_id,
                scope=str(budget.scope),
                window=budget.window.value,
                since=iso_day(start),
                percent=percent,
            )

    async def _claimed(self) -> Sequence[BudgetAlertRow]:
        """Return messages to send, which no other host sends meanwhile."""
        now = self._now_us()
        row = BudgetAlertRow
        query = (
            select(row)
            .where(
                col(row.delivered_at).is_(None),
                col(row.claimed_until) <= now,
                col(row.crossed_at) > now - OLDEST_US,
            )
            .order_by(col(row.crossed_at), col(row.percent))
            .limit(_MOST)
        )
        async with writing(self._database) as session:
            found = list(await session.scalars(query))
            for each in found:
                each.tries += 1
                # Longer with every turn: a receiver that is down for hours is not asked every minute.
                each.claimed_until = now + CLAIM_US * min(2 ** (each.tries - 1), 60)
        return found

    async def _send(self, row: BudgetAlertRow, webhook: Webhook) -> None:
        budget = self._known.budgets.get(row.budget_id)
        if budget is None:
            return
        outcome = ""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_NotTakenError),
                wait=wait_random_exponential(multiplier=0.2, max=2.0),
                stop=stop_after_attempt(TRIES),
            ):
                with attempt:
                    outcome = await self._post(webhook, msgspec.json.encode(message(budget, row)))
        except RetryError as error:
            _log.warning("an alert was not taken; it is sent again later", budget=row.budget_id, tries=row.tries)
            await self._tell(row, webhook, str(error.last_attempt.exception()), None)
            return
        self.sent += 1
        await self._tell(row, webhook, outcome, self._now_us())

    async def _tell(self, row: BudgetAlertRow, webhook: Webhook, outcome: str, delivered_at: int | None) -> None:
        """Write down what came of sending a message; of the address only its host, for the rest may be secret."""
        async with writing(self._database) as session:
            sent = await session.get(BudgetAlertRow, (row.budget_id, row.window_day, row.percent))
            if sent is not None:
                sent.receiver = urlsplit(webhook.url).netloc.rpartition("@")[2]
                sent.outcome = outcome[:_LONGEST_OUTCOME]
                sent.delivered_at = delivered_at

    async def _post(self, webhook: Webhook, body: bytes) -> str:
        """Send a message and return what was answered. Raises ``_NotTakenError``."""
        # Only a keeper that sends alerts needs the library.
        import httpx  # noqa: PLC0415 - see above

        parts = urlsplit(webhook.url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            addresses = await self._resolver().resolve(host, port)
            # The checked address itself, so that the name cannot lead elsewhere between check and connect.
            url = httpx.URL(webhook.url).copy_with(host=addresses[0][0])
            async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
                answer = await client.post(
                    url,
                    content=body,
                    headers={
                        "host": parts.netloc.rpartition("@")[2],
                        "content-type": "application/json",
                        "user-agent": "weir",
                        SIGNATURE: signature(webhook.secret, body, int(time.time())),
                    },
                    extensions={"sni_hostname": host},
                )
        except EgressError as error:
            self.failed += 1
            raise _NotTakenError(str(error)) from error
        except (httpx.HTTPError, OSError) as error:
            self.failed += 1
            raise _NotTakenError(f"no answer: {type(error).__name__}") from error
        if not answer.is_success:
            self.failed += 1
            raise _NotTakenError(f"answered {answer.status_code}")
        return f"answered {answer.status_code}"

    def _resolver(self) -> EgressGuard:
        """Return the guard with the rules of now."""
        snapshot = self._config()
        if snapshot is None:
            raise EgressError("no egress rules are known")
        if self._guard is None:
            self._guard = EgressGuard(snapshot.egress)
        else:
            self._guard.configure(snapshot.egress)
        return self._guard


def _mark(budget: Budget, start: int, percent: int) -> _Mark:
    """Return what a percentage of a window is remembered by; a budget that is deleted and set again is another one."""
    return budget.budget_id, budget.created_at, start, percent


def message(budget: Budget, row: BudgetAlertRow) -> dict[str, Any]:
    """Return what the webhook is told of a percentage that was reached."""
    return {
        # With the time, because one that is deleted and set again is told of anew in the same window.
        "id": f"{row.budget_id}-{row.window_day}-{row.percent}-{row.crossed_at // 1_000}",
        "type": "budget.threshold",
        "percent": row.percent,
        "hard": budget.hard,
        "key_id": budget.scope.key_id or None,
        "team": budget.scope.team or None,
        "model": budget.scope.model or None,
        "window": budget.window.value,
        "window_start": None if row.window_day == 0 else iso_day(row.window_day),
        "resets_at": iso_day(budget.window.end(row.window_day)),
        "limit_usd": usd_text(row.limit_nano),
        "spent_usd": usd_text(row.spent_nano),
        "crossed_at_ms": row.crossed_at // 1_000,
    }


def signature(secret: bytes, body: bytes, at: int) -> str:
    """Return the value of the signature's header: HMAC-SHA-256 over the seconds since 1970, a point, and the body."""
    mac = hmac.new(secret, b"%d." % at + body, sha256).hexdigest()
    return f"t={at},v1={mac}"
