"""What can be wrong with a configuration file, as values that are shown to the operator.

Texts from the file are escaped before they are shown, and values of secrets are never part of a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from gateway.config.source import SourceFile

_SHOWN = 60


class RefusedError(ValueError):
    """One value is refused. ``mend`` says what to write instead; where it stands is known to the caller."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the file.

    Attributes:
        file: the file's name as it was given.
        line, column: where, counted from 1; 0 when the problem has no place in the text.
        key: path of the key, such as ``backends[1].url``, or ``""`` for the file as a whole.
        message: what is wrong.
        mend: what to do about it.
    """

    file: str
    line: int
    column: int
    key: str
    message: str
    mend: str

    def render(self) -> str:
        """Return the problem in one line: ``weir.yaml:12:5 backends[1].url: message -> mend``."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        subject = f"{place} {self.key}" if self.key else place
        return f"{subject}: {self.message} -> {self.mend}"


class ConfigError(Exception):
    """A configuration file is refused.

    Attributes:
        problems: everything that is wrong with it, in the order of the file.
        sources: the files that were looked at; a change of one of them may mend the problem.
    """

    def __init__(self, problems: Sequence[Problem], sources: Sequence[SourceFile]) -> None:
        self.problems = tuple(problems)
        self.sources = tuple(sources)
        super().__init__("\n".join(problem.render() for problem in self.problems))


def shown(value: object) -> str:
    """Return ``value`` of the file for a message: quoted, escaped, shortened to 60 characters."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _SHOWN:
        text = text[:_SHOWN] + "…"
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text) + '"'


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name in ``known`` that ``name`` most likely meant, or None when none is near."""
    folded = {candidate.casefold(): candidate for candidate in known}
    found = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def choice(name: str, known: Sequence[str], *, none: str) -> str:
    """Return the mend for a ``name`` that is not in ``known``: the nearest one, else all, else ``none``."""
    if not known:
        return none
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {shown(near)}?"
    listed = ", ".join(known[:10])
    return f"known here: {listed}{', …' if len(known) > 10 else ''}"
