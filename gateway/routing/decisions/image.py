"""Objects as plain data and back: everything a decision was made from, at the moment it was made.

An *image* holds the candidates, the replicas behind them with their loads, and the request. It follows whatever fields
these objects have, so that the books of a replica can change without a second description of them here. What callers
said is left out (prompts, names of conversations), as are addresses and keys of backends; hashes of prompts differ from
process to process and are replaced by numbers.

Objects that are shared are shared again in what is rebuilt. Something that has no image, and data that no image can
be, raise ``ImageError``.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from operator import attrgetter
from typing import Any, Final

import msgspec

from gateway.config.snapshot import BackendSpec, Secret
from gateway.engines.catalogue import ENGINES
from gateway.engines.kind import Engine
from gateway.fleet.booking import Work
from gateway.fleet.prefix import PrefixIndex
from gateway.fleet.sessions import Sessions
from gateway.fleet.snapshot import Candidate
from gateway.routing.decisions.record import Image
from gateway.routing.interface import RouteRequest
from gateway.types.preferences import NO_OPTIONS, Preferences

MOST_OBJECTS: Final = 20_000
"""Objects and containers in an image; beyond, a decision is not worth the time its image would take."""
SESSION: Final = "session"
"""What every conversation is called in an image."""
_ALLOWED: Final = (
    "gateway.fleet.",
    "gateway.types.",
    "gateway.config.snapshot",
    "gateway.config.fleet",
    "gateway.routing.",
)
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS: Final = frozenset({list, dict, deque})
_UNSET: Final = ["-"]
_DISCREET: Final = frozenset({Preferences, Sessions, BackendSpec})
"""Of these something is nobody's business."""


class ImageError(Exception):
    """This cannot be made an image of, or is none."""


def taken(request: RouteRequest, candidates: Sequence[Candidate], *, whole: bool) -> Image:
    """Return the image of a decision about ``request`` among ``candidates``.

    Args:
        request: what was asked.
        candidates: whom it was decided between.
        whole: everything is as it was for the decision; if not, what the policies then saw (``outlook``) is kept too.

    Raises:
        ImageError: there is something that has no image, or too much.
    """
    camera = _Camera(request, candidates)
    asked = msgspec.structs.replace(
        request,
        prompt=None,
        blocks=tuple(range(1, len(request.blocks) + 1)),
        session=SESSION if request.session else "",
        outlook=None if whole else request.outlook,
        considered=(),
    )
    root = camera.value((asked, list(candidates)))
    return Image(camera.classes, camera.nodes, root)


def rebuilt(image: Image) -> tuple[RouteRequest, list[Candidate]]:
    """Return request and candidates of ``image``. Raises ``ImageError`` when this version has no such objects."""
    try:
        request, candidates = _Builder(image).value(image.root)
    except (ImportError, AttributeError, TypeError, ValueError, IndexError, KeyError, msgspec.ValidationError) as error:
        raise ImageError(f"it was recorded by a version that kept other books: {error}") from error
    return request, candidates


class _Camera:
    """Makes the image of one decision."""

    def __init__(self, request: RouteRequest, candidates: Sequence[Candidate]) -> None:
        self.classes: list[tuple[str, str, list[str]]] = []
        self.nodes: list[Any] = []
        self._request = request
        self._now = request.now
        self._class_numbers: dict[type, int] = {}
        self._numbers: dict[int, int] = {}
        self._alive: list[object] = []
        self._renumbered = {block: number for number, block in enumerate(request.blocks, start=1)}
        # Of what a replica remembers of prompts only what this one shares with it matters.
        self._reduced = {
            id(value)
            for candidate in candidates
            for name in _fields(PrefixIndex)
            if isinstance(value := getattr(candidate.replica.load.prefix, name, None), dict | deque)
        }
        # Answers under way teach the model of their replica between decisions, and no decision reads them.
        self._reduced.update(id(candidate.replica.load.writing) for candidate in candidates)

    def value(self, value: Any) -> Any:
        """Return ``value`` as data."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is tuple:
            return ["t", *self._values(value)]
        number = self._numbers.get(id(value))
        if number is not None:
            return ["#", number]
        if kind in _CONTAINERS or kind in self._class_numbers:  # most are, and what follows takes time to ask
            return ["#", self._node(value)]
        if isinstance(value, Enum):
            return ["e", kind.__module__, kind.__qualname__, value.value]
        if kind is Secret or kind is Work:  # no decision reads what others asked for; their bookings hold what counts
            return None
        if kind is Engine:
            return ["n", value.kind]
        if kind is frozenset:
            return ["f", *sorted(map(self.value, value), key=repr)]
        return ["#", self._node(value)]

    def _values(self, values: Iterable[Any]) -> list[Any]:
        """Return each of ``values`` as data; most are plain."""
        return [value if type(value) in _PLAIN else self.value(value) for value in values]

    def _node(self, value: Any) -> int:
        number = len(self.nodes)
        if number >= MOST_OBJECTS:
            raise ImageError(f"a decision between more than {MOST_OBJECTS} objects")
        self._numbers[id(value)] = number
        self._alive.append(value)  # an id is one only as long as its object lives
        self.nodes.append(None)
        node: list[Any]
        if type(value) in self._class_numbers:
            node = self._object(value)
        elif isinstance(value, list):
            node = ["l", *self._values(() if id(value) in self._reduced else value)]
        elif isinstance(value, deque):
            items = () if id(value) in self._reduced else [each for each in value if getattr(each, "waits", True)]
            node = ["q", *self._values(items)]
        elif isinstance(value, Mapping):
            pairs = value.items()
            if id(value) in self._reduced:
                pairs = {new: value[old] for old, new in self._renumbered.items() if old in value}.items()
            node = ["d", *[[self.value(key), self.value(each)] for key, each in pairs]]
        else:
            node = self._object(value)
        self.nodes[number] = node
        return number

    def _object(self, value: Any) -> list[Any]:
        kind = type(value)
        number = self._class_numbers.get(kind)
        if number is None:
            if not kind.__module__.startswith(_ALLOWED):
                raise ImageError(f"no image can be made of {kind.__module__}.{kind.__qualname__}")
            fields = list(_fields(kind))
            number = self._class_numbers[kind] = len(self.classes)
            self.classes.append((kind.__module__, kind.__qualname__, fields))
        if kind in _DISCREET:
            value = self._discreet(value)
        tag = "x" if issubclass(kind, msgspec.Struct) else "o"
        fields = self.classes[number][2]
        try:
            values = _reader(kind)(value)
        except AttributeError:  # some fields have no value
            values = tuple([getattr(value, name, _UNSET) for name in fields])
            return [tag, number, *(_UNSET if each is _UNSET else self.value(each) for each in values)]
        return [tag, number, *self._values(values)]

    def _discreet(self, value: Any) -> Any:
        """Return ``value`` without what is nobody's business."""
        kept = value
        if isinstance(value, Preferences):
            kept = msgspec.structs.replace(value, options=NO_OPTIONS)
        elif isinstance(value, Sessions):
            kept = Sessions()
            at = value.last(self._request.session, self._now) if self._request.session else None
            if at is not None:
                kept.served(SESSION, at)
        elif isinstance(value, BackendSpec):
            kept = replace(value, url="")
        if kept is not value:
            self._alive.append(kept)
        return kept


class _Builder:
    """Makes the objects of one image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._made: dict[int, Any] = {}

    def value(self, value: Any) -> Any:
        """Return what the data ``value`` stands for."""
        if type(value) is not list:
            return value
        tag = value[0]
        if tag == "#":
            number = value[1]
            return self._made[number] if number in self._made else self._node(number)
        if tag == "t":
            return tuple(map(self.value, value[1:]))
        if tag == "f":
            return frozenset(map(self.value, value[1:]))
        if tag == "n":
            return ENGINES[value[1]]
        if tag == "e":
            return _class(value[1], value[2])(value[3])
        raise ValueError(f"unknown tag {tag!r}")

    def _node(self, number: int) -> Any:
        tag, *items = self._image.nodes[number]
        if tag == "l":
            found = self._made[number] = []
            found.extend(map(self.value, items))
            return found
        if tag == "q":
            line: deque[Any] = deque()
            self._made[number] = line
            line.extend(map(self.value, items))
            return line
        if tag == "d":
            pairs: dict[Any, Any] = {}
            self._made[number] = pairs
            pairs.update((self.value(key), self.value(each)) for key, each in items)
            return pairs
        module, name, fields = self._image.classes[items[0]]
        kind = _class(module, name)
        if list(_fields(kind)) != fields:
            raise ValueError(f"{name} has other fields")
        if tag == "x":
            self._made[number] = kind(**dict(zip(fields, map(self.value, items[1:]), strict=True)))
            return self._made[number]
        made = self._made[number] = kind.__new__(kind)
        for field, value in zip(fields, items[1:], strict=True):
            if value != _UNSET:
                object.__setattr__(made, field, self.value(value))
        return made


def _class(module: str, name: str) -> Any:
    """Return a class of ours. Raises ``ValueError`` for any other."""
    if not module.startswith(_ALLOWED):
        raise ValueError(f"{module} has no part in a decision")
    found = getattr(importlib.import_module(module), name)
    if not isinstance(found, type):
        raise TypeError(f"{name} is no class")
    return found


def _fields(kind: Any) -> tuple[str, ...]:
    """Return the names of the fields of a class with slots, or of a struct."""
    found = _known_fields.get(kind)
    if found is None:
        found = _known_fields[kind] = _fields_of(kind)
    return found


_known_fields: Final[dict[Any, tuple[str, ...]]] = {}


def _reader(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads all fields of an object of ``kind``; it raises ``AttributeError`` where one has no value."""
    found = _known_readers.get(kind)
    if found is None:
        fields = _fields(kind)
        found = attrgetter(*fields) if len(fields) > 1 else lambda value: (getattr(value, fields[0]),)
        _known_readers[kind] = found
    return found


_known_readers: Final[dict[Any, Callable[[Any], tuple[Any, ...]]]] = {}


def _fields_of(kind: Any) -> tuple[str, ...]:
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    names: set[str] = set()
    for each in kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        names.update((slots,) if isinstance(slots, str) else slots)
    names -= {"__weakref__", "__dict__"}
    if not names:
        raise ImageError(f"{kind.__qualname__} has no slots")
    return tuple(sorted(names))
