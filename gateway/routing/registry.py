"""From presets to policies: the filters, scorers and pickers there are, and the YAML files that combine them.

What exists is passed in by the composition root, class by class; nothing is discovered. A preset is strict: an unknown
name, an unknown parameter or a value out of range is refused with file, line and the mend, and all problems are told at
once in a ``PresetError``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from gateway.config.document import Document, Key, parse
from gateway.config.problem import Problem, choice
from gateway.routing.interface import PartClass, Parts, PartT_co, Refusal
from gateway.routing.pipeline import Policy

_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_ORDER: Final = {refusal: rank for rank, refusal in enumerate(Refusal)}


class PresetError(Exception):
    """Presets are refused; the message has one line per problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.render() for problem in self.problems))


class _Use(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    params: dict[str, Any] = {}


class _WeightedUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    params: dict[str, Any] = {}


class _Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    description: Annotated[str, msgspec.Meta(min_length=1)]
    filters: tuple[_Use, ...]
    picker: _Use
    scorers: tuple[_WeightedUse, ...] = ()
    tiers: tuple[_Use, ...] = ()


class PolicyRegistry:
    """Makes policies out of presets.

    Args:
        parts: what presets may name.
    """

    def __init__(self, parts: Parts) -> None:
        self._filters = _by_name(parts.filters)
        self._scorers = _by_name(parts.scorers)
        self._pickers = _by_name(parts.pickers)
        self._tiers = _by_name(parts.tiers)
        self._binding_filters = tuple(_default(made) for made in parts.binding_filters)
        self._binding_tiers = tuple(_default(made) for made in parts.binding_tiers)

    def load(self, folder: Path) -> Mapping[str, Policy]:
        """Return the policies of all ``*.yaml`` files in ``folder``, by file name without its ending.

        Raises:
            PresetError: a preset is refused; all problems of all files are in it.
            OSError: a file cannot be read.
        """
        policies: dict[str, Policy] = {}
        problems: list[Problem] = []
        for path in sorted(folder.glob("*.yaml")):
            try:
                policies[path.stem] = self.build(path.stem, path.read_bytes(), str(path))
            except PresetError as error:
                problems += error.problems
        if problems:
            raise PresetError(problems)
        return policies

    def build(self, name: str, content: bytes, file: str) -> Policy:
        """Return the policy that the YAML text ``content`` of ``file`` describes, under ``name``.

        Raises:
            PresetError: the preset is refused.
        """
        document, problems = parse(file, content)
        if document is None or problems:
            raise PresetError(problems)
        try:
            preset = msgspec.convert(document.tree, _Preset)
        except msgspec.ValidationError as error:
            raise PresetError([_problem(document, (), error)]) from None
        filters = [
            self._made(document, self._filters, ("filters", index), use, problems)
            for index, use in enumerate(preset.filters)
        ]
        scorers = [
            self._made(document, self._scorers, ("scorers", index), use, problems)
            for index, use in enumerate(preset.scorers)
        ]
        picker = self._made(document, self._pickers, ("picker",), preset.picker, problems)
        tiers = [
            self._made(document, self._tiers, ("tiers", index), use, problems) for index, use in enumerate(preset.tiers)
        ]
        if problems or picker is None:
            raise PresetError(problems)
        chosen = [*self._binding_filters, *(one for one in filters if one is not None)]
        total = sum(use.weight for use in preset.scorers) or 1.0
        return Policy(
            name=name,
            description=preset.description,
            filters=tuple(sorted(chosen, key=lambda one: _ORDER[one.refusal])),
            scorers=tuple(
                (one, use.weight / total) for one, use in zip(scorers, preset.scorers, strict=True) if one is not None
            ),
            picker=picker,
            tiers=(*self._binding_tiers, *(one for one in tiers if one is not None)),
        )

    def _made(
        self,
        document: Document,
        classes: Mapping[str, PartClass[PartT_co]],
        key: Key,
        use: _Use | _WeightedUse,
        problems: list[Problem],
    ) -> PartT_co | None:
        """Return the part that ``use`` names, made with its parameters; note a problem and return None when refused."""
        made = classes.get(use.name)
        if made is None:
            mend = choice(use.name, list(classes), none="there is none to choose from")
            problems.append(document.problem((*key, "name"), f'there is no "{use.name}" here', mend))
            return None
        try:
            return made(msgspec.convert(use.params, made.parameters))
        except msgspec.ValidationError as error:
            problems.append(_problem(document, (*key, "params"), error, tuple(made.parameters.__struct_fields__)))
            return None


def _default(made: PartClass[PartT_co]) -> PartT_co:
    """Return one of a class that needs no parameters."""
    return made(made.parameters())


def _by_name(classes: Sequence[PartClass[PartT_co]]) -> dict[str, PartClass[PartT_co]]:
    named = {made.name: made for made in classes}
    if len(named) != len(classes):
        raise ValueError("two parts of a kind have one name")
    return named


def _problem(document: Document, at: Key, error: msgspec.ValidationError, known: tuple[str, ...] = ()) -> Problem:
    """Return what ``error`` says of the value at ``at``, placed where it points."""
    message, _, path = str(error).partition(" - at `$")
    key: list[str | int] = list(at)
    for name, index in _STEP.findall(path.rstrip("`")):
        if index == "...":
            break
        key.append(int(index) if index else name)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", message)
    if unknown is not None:
        mend = choice(unknown[1], known, none="remove it")
        return document.problem((*key, unknown[1]), "is not known here", mend)
    return document.problem(tuple(key), message[:1].lower() + message[1:], "correct it")
