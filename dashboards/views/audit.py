"""The audit log: every change with who, when, from where, and what it was before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.responses import Response

from dashboards import figures, forms
from dashboards.visit import Page, Visit
from gateway.console.question import AUDIT_LOG, AuditQuestion, Entry
from gateway.console.roles import Permission

PATH: Final = "/console/audit"
NOUNS: Final = (
    *("key", "management key", "upstream key", "team", "member", "user", "password", "budget", "guardrail", "price"),
    *("setting", "backend", "calibration", "preset", "app", "billing period"),
)
_TIMES: Final = ("_us", "_at", "_until")
"""How names of times end; before the year 1973 microseconds are taken for another number."""
_LEAST_TIME: Final = 10**14
PAGE: Final = 30


@dataclass(frozen=True, slots=True)
class Difference:
    """A member that changed; None on the side where it was not."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """An entry and what differs in it."""

    entry: Entry
    differences: tuple[Difference, ...]


def differences(entry: Entry) -> tuple[Difference, ...]:
    """Return the members that are not what they were; all of them for what was made or deleted."""
    before, after = _members(entry.before), _members(entry.after)
    names = dict.fromkeys((*before, *after))
    found = (Difference(name, _words(before, name), _words(after, name)) for name in names)
    return tuple(each for each in found if each.before != each.after)


def _members(text: str | None) -> dict[str, Any]:
    found = msgspec.json.decode(text) if text else {}
    return found if isinstance(found, dict) else {}


def _words(members: dict[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is None or value in ("", [], {}):
        return None
    if isinstance(value, int) and name.endswith("_nano"):
        return figures.exact_usd(value)
    if isinstance(value, int) and value > _LEAST_TIME and name.endswith(_TIMES):
        return f"{figures.moment(value)} UTC"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


async def listed(visit: Visit) -> Response:
    """Show a page of it."""
    reached = visit.reach(Permission.AUDIT_SEE)
    noun, actor, subject = visit.asked("noun"), visit.asked("actor"), visit.asked("subject")
    question = AuditQuestion(
        before=forms.cursor(visit.asked("before")),
        limit=PAGE + 1,
        teams=None if reached.everything else tuple(sorted(reached.teams)),
        noun=noun if noun in NOUNS else "",
        actor=actor,
        subject=subject,
    )
    found = await visit.site.books.ask(AUDIT_LOG, (question,))
    lines = [Line(entry, differences(entry)) for entry in found[:PAGE]]
    more = lines[-1].entry.entry_id if len(found) > PAGE else 0
    return visit.render(
        "audit.html",
        lines=lines,
        more=more,
        nouns=[("", "Everything"), *((each, each) for each in NOUNS)],
        noun=noun,
        actor=actor,
        subject=subject,
        begun=bool(question.before),
    )


PAGES: Final = (Page(PATH, listed, Permission.AUDIT_SEE),)
