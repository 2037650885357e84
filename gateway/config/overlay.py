"""Settings that operators change while the gateway runs, laid over what the configuration file says.

Only what is harmless to change at once, and is no secret, can be: the rules of the leaderboards and how long books are
kept. A value is judged by the same rules as in the file and goes before it until it is taken back. Pure but for what an
``Overlay`` holds; a value that cannot be is ``Unfit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, overload

from gateway.config.snapshot import ConfigSnapshot

Changes = Mapping[str, Mapping[str, Any]]
"""By section of the file and member of the section: what goes before it."""
SECTIONS: Final = ("boards", "retention")
"""What can be changed: every member of these sections of the file."""


class Unfit(ValueError):
    """A value cannot be.

    Attributes:
        member: of the section, ``""`` when the section is at fault.
        message: what is wrong.
    """

    def __init__(self, member: str, message: str) -> None:
        super().__init__(message)
        self.member = member
        self.message = message


def checked(section: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``members`` as plain values, as the snapshot has them. Raises ``Unfit``."""
    # The schema brings pydantic, which the keeper of a command does without; nothing is judged until something changed.
    from pydantic import ValidationError  # noqa: PLC0415 - see above

    from gateway.config.schema import FileSection  # noqa: PLC0415 - see above

    if section not in SECTIONS:
        raise Unfit("", f"{section!r} cannot be changed here")
    # What is a list in the file is one in JSON; sections take tuples.
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in members.items()}
    try:
        made: Any = type(FileSection.model_fields[section].default).model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        member = str(first["loc"][0]) if first["loc"] else ""
        raise Unfit(member, first["msg"]) from None
    values = made.values()
    return {name: getattr(values, name) for name in members}


class Overlay:
    """Lays changes over snapshots; both come now and then, and what follows from them is made once."""

    __slots__ = ("_changes", "_made", "_of")

    def __init__(self) -> None:
        self._changes: Changes = {}
        self._of: ConfigSnapshot | None = None
        self._made: ConfigSnapshot | None = None

    def take(self, changes: Changes) -> None:
        """Go by ``changes`` from now on; what this version does not take any more is passed over."""
        known: dict[str, dict[str, Any]] = {}
        for section, members in changes.items():
            for name, value in members.items():
                try:
                    known.setdefault(section, {}).update(checked(section, {name: value}))
                except Unfit:
                    continue
        if known != self._changes:
            self._changes, self._of = known, None

    @overload
    def over(self, snapshot: ConfigSnapshot) -> ConfigSnapshot: ...
    @overload
    def over(self, snapshot: ConfigSnapshot | None) -> ConfigSnapshot | None: ...
    def over(self, snapshot: ConfigSnapshot | None) -> ConfigSnapshot | None:
        """Return ``snapshot`` with the changes in it."""
        if snapshot is None or not self._changes:
            return snapshot
        if self._of is not snapshot or self._made is None:
            boards, retention = (self._changes.get(name, {}) for name in ("boards", "retention"))
            self._made = replace(
                snapshot,
                boards=replace(snapshot.boards, **boards),
                retention=replace(snapshot.retention, **retention),
            )
            self._of = snapshot
        return self._made
