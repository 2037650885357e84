"""Settings: what can be changed while the gateway runs, and what the file and the environment say, to look at.

What is changed here goes before the file until it is taken back. What a stolen session must not reach, such as
addresses that the gateway calls, secrets and who may sign in, stays with who has the host: file and environment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response

from dashboards import forms
from dashboards.standings import tick
from dashboards.visit import Page, Visit
from gateway.config.document import Key, key_text, parse
from gateway.config.overlay import SECTIONS, Unfit, checked
from gateway.config.snapshot import ConfigSnapshot
from gateway.console.question import CHANGE_SETTINGS, SETTINGS, Setting
from gateway.console.roles import GLOBAL_ROLES, PERMISSIONS, TEAM_ROLES, WHOLE, Permission, Role
from gateway.types.errors import BadRequest, Conflict, NotFound

PATH: Final = "/console/settings"
_BOARD: Final = ("public", "private")
_SECTION: Final = re.compile(r"([a-z_]+)\s*:")
"""The first line of a section, at the left edge."""


@dataclass(frozen=True, slots=True)
class Member:
    """A setting that can be changed: its name in the section, what it is, its choices or none, a hint."""

    name: str
    label: str
    choices: tuple[str, ...] = ()
    hint: str = ""


EDITED: Final[Mapping[str, tuple[str, str, tuple[Member, ...]]]] = {
    "boards": (
        "Rankings",
        "Who sees the leaderboards, and what counts as a milestone.",
        (
            Member("keyless", "Public boards", ("yes", "no"), "Whether strangers see public boards without a key."),
            Member("model", "Models", _BOARD),
            Member("author", "Authors", _BOARD),
            Member("app", "Apps", _BOARD),
            Member("endpoint", "Endpoints", _BOARD),
            Member("team", "Teams", ("private", "team"), "With team each sees its own row; nobody sees another's."),
            Member("milestones", "Milestones", hint="Tokens of a model in a day, separated by commas."),
            Member("new_apps_per_day", "New apps of a key per day"),
            Member("per_minute", "Looks of a key per minute"),
            Member("per_day", "Looks of a team per day"),
        ),
    ),
    "retention": (
        "Retention",
        "How many days books are kept. Daily sums, totals and bills stay for ever.",
        (
            Member("ledger_days", "Ledger rows, days", hint="At least 62."),
            Member("hour_days", "Hourly sums, days", hint="At least 62."),
            Member("quarantine_days", "Quarantine, days", hint="Nothing: never deleted."),
        ),
    ),
}
FROM_FILE: Final[tuple[tuple[Key, str], ...]] = (
    (("routing", "default"), "usual preset"),
    (("routing", "decisions"), "which decisions are kept"),
    (("admission",), "how requests wait for room"),
    (("console",), "sessions and single sign-on"),
    (("egress", "allow"), "where backends may be"),
    (("billing",), "issuer, closing, sinks"),
    (("content",), "storing prompts and answers"),
    (("repetition",), "answers given again"),
    (("responses",), "stored responses"),
    (("cors",), "web pages that may call"),
    (("byok",), "teams' own keys"),
    (("backends",), "backends"),
    (("models",), "models and first prices"),
    (("aliases",), "other names of models"),
    (("teams",), "teams from the start"),
    (("budgets",), "budgets from the start"),
    (("boards",), "leaderboards, unless changed here"),
    (("retention",), "lifetimes, unless changed here"),
)
"""What the file owns, by its key."""


async def shown(visit: Visit) -> Response:
    """Show it. No secret is among it."""
    return await _shown(visit, "", {})


async def _shown(visit: Visit, section: str, errors: dict[str, str], status: int = 200) -> Response:
    """Show the page, with the form of ``section`` as it was sent."""
    config = visit.site.config()
    standing = {each.name: each for each in await visit.site.books.ask(SETTINGS)}
    typed = {name: _text(standing, name) for name in SECTIONS}
    versions = {name: str(standing[name].version) if name in standing else "0" for name in SECTIONS}
    if section:
        typed[section] = visit.form
    files = [Path(source.path) for source in config.sources[:1]]
    return visit.render(
        "settings.html",
        status=status,
        config=config,
        edited=EDITED,
        standing=standing,
        versions=versions,
        typed=typed,
        wrong={section: errors},
        now={name: _plain(getattr(config, name)) for name in SECTIONS},
        lines=await asyncio.to_thread(_lines, files[0], _changed(files[0])) if files else [],
        sources=[str(source.path) for source in config.sources],
        environment=visit.site.environment,
        permissions=PERMISSIONS,
        roles=list(Role),
        global_roles=GLOBAL_ROLES,
        team_roles=TEAM_ROLES,
        whole=WHOLE,
        done=visit.asked("done"),
    )


def _text(standing: Mapping[str, Setting], section: str) -> dict[str, str]:
    """Return what was changed of a section, as its form has it."""
    known = standing.get(section)
    return {} if known is None else {name: _word(value) for name, value in known.content.items()}


def _plain(spec: Any) -> dict[str, str]:
    """Return what counts now of a section; long numbers of a list are said shortly."""
    found = {name: getattr(spec, name) for name in type(spec).__dataclass_fields__}
    return {
        name: ", ".join(tick("tokens", each) for each in value) if isinstance(value, tuple) else _word(value)
        for name, value in found.items()
    }


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _changed(path: Path) -> int:
    """Return when a file was changed, 0 when it cannot be looked at."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4)
def _lines(path: Path, _changed_ns: int) -> list[tuple[str, str, str, int]]:
    """Return key, meaning, file and line of what the file owns; line 0 is what it does not say.

    Only sections that something is looked for in are parsed: all of a file with a hundred models takes longer than
    everything else on the page.
    """
    try:
        text = path.read_text("utf-8-sig", "replace").splitlines(keepends=True)
    except OSError:
        return []
    starts = {found[1]: number for number, line in enumerate(text, 1) if (found := _SECTION.match(line))}
    ends = dict(zip(starts, (*list(starts.values())[1:], len(text) + 1), strict=True))
    places: dict[Key, int] = {(name,): number for name, number in starts.items()}
    for name in {str(key[0]) for key, _ in FROM_FILE if len(key) > 1 and key[0] in starts}:
        document, _ = parse(path.name, "".join(text[starts[name] - 1 : ends[name] - 1]).encode())
        for key, place in (document.places if document is not None else {}).items():
            places[key] = starts[name] - 1 + place[0]
    return [(key_text(key), said, path.name, places.get(key, 0)) for key, said in FROM_FILE]


def _read(section: str, form: Mapping[str, str]) -> dict[str, Any]:
    """Return the members that the form sets. Raises ``Wrong``."""
    found: dict[str, Any] = {}
    for member in EDITED[section][2]:
        text = form.get(member.name, "").strip()
        if not text:
            continue
        if member.choices:
            if text not in member.choices:
                raise forms.Wrong(member.name, f"{' or '.join(member.choices)}, or as in the file")
            found[member.name] = text == "yes" if member.choices == ("yes", "no") else text
        elif member.name == "milestones":
            numbers = {forms.whole(number.strip()) for number in text.replace("_", "").split(",")}
            if None in numbers:
                raise forms.Wrong(member.name, "whole numbers separated by commas, without points")
            found[member.name] = sorted(number for number in numbers if number is not None)
        else:
            if not text.isascii() or not text.isdigit() or len(text) > 12:
                raise forms.Wrong(member.name, "a whole number, or nothing for what the file says")
            found[member.name] = int(text)
    return found


def _shortens(config: ConfigSnapshot, found: Mapping[str, Any]) -> bool:
    """Return whether a lifetime gets shorter: what is older is gone for good then."""
    now = config.retention
    quarantine = found.get("quarantine_days")
    return (
        found.get("ledger_days", now.ledger_days) < now.ledger_days
        or found.get("hour_days", now.hour_days) < now.hour_days
        or (quarantine is not None and quarantine < (now.quarantine_days or 10**9))
    )


async def change(visit: Visit) -> Response:
    """Change a section, unless somebody else did meanwhile."""
    section, form = visit.named("section"), visit.form
    if section not in EDITED:
        raise NotFound("there is no such section")
    try:
        found = _read(section, form)
        checked(section, found)
        if section == "retention" and _shortens(visit.site.config(), found) and form.get("confirm") != "yes":
            raise forms.Wrong("confirm", "what is older than this is deleted for good: tick this to go on")
        version = form.get("version", "")
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1
        await visit.site.books.ask(CHANGE_SETTINGS, (section, found, number))
    except Conflict:
        return await _shown(visit, section, {"version": forms.STALE}, 409)
    except Unfit as error:
        return await _shown(visit, section, {error.member or "version": error.message}, 400)
    except (forms.Wrong, BadRequest) as error:
        return await _shown(visit, section, forms.problem(error, "version"), 400)
    return visit.go(PATH, done=section)


PAGES: Final = (
    Page(PATH, shown, Permission.USERS_CHANGE),
    Page(f"{PATH}/{{section}}", change, Permission.USERS_CHANGE, ("POST",)),
)
