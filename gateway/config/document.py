"""A YAML document as plain values, with the place of every key.

Plain scalars follow YAML 1.2's core schema, so that ``no`` is text and not false. Anything a reader could
misunderstand or a machine could choke on becomes a ``Problem``: duplicate keys, tags, several documents, keys
without a value, nesting deeper than ``MAX_DEPTH``, more than ``MAX_NODES`` values, also through aliases.
No input raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

from gateway.config.problem import Problem, shown

Key = tuple[str | int, ...]
"""Path of a value: names of mapping keys and 0-based positions in lists."""

MAX_DEPTH: Final = 32
MAX_NODES: Final = 100_000
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_/:@-]+")
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: Final[dict[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file.

    Attributes:
        file: its name as it was given.
        tree: the root value; lists are tuples.
        places: line and column, from 1, of each key or list entry.
    """

    file: str
    tree: object
    places: dict[Key, tuple[int, int]]

    def problem(self, key: Key, message: str, mend: str) -> Problem:
        """Return a problem with the value at ``key``, placed at the nearest part of the path that exists."""
        known = key
        while known and known not in self.places:
            known = known[:-1]
        line, column = self.places.get(known, (1, 1))
        return Problem(self.file, line, column, key_text(key), message, mend)

    def value(self, key: Key) -> object:
        """Return the value at ``key``, or None when there is none."""
        found: object = self.tree
        for part in key:
            if isinstance(part, str):
                found = found.get(part) if isinstance(found, dict) else None
            else:
                found = found[part] if isinstance(found, tuple) and part < len(found) else None
        return found

    def entries(self, *pattern: str | None) -> Iterator[tuple[Key, object]]:
        """Yield the path and value of everything that matches ``pattern``, where None stands for any part."""
        yield from _matches(self.tree, (), pattern)


def key_text(key: Key) -> str:
    """Return a path the way people write it: ``backends[1].url``, ``aliases["a.b"]``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _BARE_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]" if text else shown(part)
    return text


def parse(file: str, content: bytes) -> tuple[Document | None, list[Problem]]:
    """Return the document in ``content`` and its problems; no document when there is no reading it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        return None, [Problem(file, line, column, "", "is not UTF-8", "save the file in UTF-8")]
    root, problem = _compose(file, text)
    if root is None:
        return None, [problem or Problem(file, 1, 1, "", "is empty", "name at least a backend and a model")]
    reading = _Reading(file)
    tree = reading.value(root, ())
    # A tree with parts cut off would only raise problems that are not there.
    document = None if reading.overgrown else Document(file, tree, reading.places)
    return document, reading.problems


class _RefusedNodeError(Exception):
    """The text asks for something that is not allowed before it can be a tree."""

    def __init__(self, message: str, mend: str, mark: yaml.Mark) -> None:
        super().__init__(message)
        self.message, self.mend, self.mark = message, mend, mark


class _Composer(yaml.BaseLoader):
    """PyYAML's composer with a bound on depth and without tags."""

    _depth = 0
    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if getattr(event, "tag", None) is not None:
            raise _RefusedNodeError("tags (!…) are not allowed", "remove the tag", event.start_mark)
        if self._depth >= MAX_DEPTH:
            raise _RefusedNodeError(f"is nested deeper than {MAX_DEPTH} levels", "flatten it", event.start_mark)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _RefusedNodeError(f"has more than {MAX_NODES} values", "split it", event.start_mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(file: str, text: str) -> tuple[yaml.Node | None, Problem | None]:
    """Return the node tree of ``text``, or what keeps it from being one; neither when it is empty."""
    mend = "check indentation, colons and quotes around here"
    mark: yaml.Mark | None
    try:
        return _Composer(text).get_single_node(), None
    except _RefusedNodeError as error:
        message, mend, mark = error.message, error.mend, error.mark
    except yaml.MarkedYAMLError as error:
        message = ": ".join(part for part in (error.context, error.problem) if part)
        mark = error.problem_mark or error.context_mark
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return None, Problem(file, line, column, "", "has a control character", "remove the character")
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets chr() and int() speak for themselves on escapes and directives that are out of range.
        return None, Problem(file, 1, 1, "", "has an escape or directive out of range", "remove it")
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return None, Problem(file, line, column, "", f"is not valid YAML here: {message}", mend)


@dataclass(slots=True)
class _Reading:
    """The walk from nodes to values; collects places and problems on its way."""

    file: str
    places: dict[Key, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _nodes: int = 0
    overgrown: bool = False

    def value(self, node: yaml.Node, key: Key) -> object:
        """Return the plain value of ``node``, which stands at ``key``."""
        self._nodes += 1
        if self._nodes > MAX_NODES or len(key) > MAX_DEPTH:
            # Reached only through aliases that repeat or contain themselves.
            self._grows(key)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, key)
        return self._scalar(node, key)

    def _grows(self, key: Key) -> None:
        if not self.overgrown:
            self.overgrown = True
            self._nodes = MAX_NODES
            self._refuse(self.places[key], key, "grows too large when its aliases are followed", "write it out")

    def _refuse(self, place: tuple[int, int], key: Key, message: str, mend: str) -> None:
        self.problems.append(Problem(self.file, *place, key_text(key), message, mend))

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, object]:
        values: dict[str, object] = {}
        for name_node, value_node in node.value:
            place = _place(name_node)
            if not isinstance(name_node, yaml.ScalarNode):
                self._refuse(place, key, "has a key that is not plain text", "write a name before the colon")
                continue
            name = self._text(name_node, place, key)
            path = (*key, name)
            if name in values:
                first = self.places[path][0]
                self._refuse(place, path, f"is there twice, first in line {first}", "keep one of them")
                continue
            self.places[path] = place
            values[name] = self.value(value_node, path)
        return values

    def _sequence(self, node: yaml.SequenceNode, key: Key) -> tuple[object, ...]:
        values = []
        for index, value_node in enumerate(node.value):
            path = (*key, index)
            self.places[path] = _place(value_node)
            values.append(self.value(value_node, path))
        return tuple(values)

    def _scalar(self, node: yaml.Node, key: Key) -> object:
        place = self.places.get(key) or _place(node)
        text = self._text(node, place, key)
        if isinstance(node, yaml.ScalarNode) and node.style is not None:
            return text
        if text in _WORDS:
            word = _WORDS[text]
            if word is None:
                self._refuse(place, key, "has no value", "give it one, or remove the key")
            return word
        if _INTEGER.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return float(text)
        return text

    def _text(self, node: yaml.Node, place: tuple[int, int], key: Key) -> str:
        text = str(node.value)
        if _SURROGATE.search(text):
            self._refuse(place, key, "has half a surrogate pair", "write the character itself")
            return _SURROGATE.sub("?", text)
        return text


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _matches(value: object, at: Key, pattern: tuple[str | None, ...]) -> Iterator[tuple[Key, object]]:
    if not pattern:
        yield at, value
        return
    wanted, rest = pattern[0], pattern[1:]
    if isinstance(value, dict):
        for name, inner in value.items():
            if wanted is None or wanted == name:
                yield from _matches(inner, (*at, name), rest)
    elif isinstance(value, tuple) and wanted is None:
        for index, inner in enumerate(value):
            yield from _matches(inner, (*at, index), rest)
