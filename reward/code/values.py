"""Values as JSON, both ways: all that passes between the process with the program and the one with the tests.

Plain values are rebuilt from their content, so an object with an ``__eq__`` of its own never reaches what compares.
Lists, sets, dicts and the like keep their identity while a ``Codec`` knows them: both sides number them alike, and a
message brings the content of those that are new or changed. Runs in both sandboxes; imports nothing of ours. Left out:
what is not plain (``peer``).
"""

from __future__ import annotations

import math
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath
from typing import Any
from uuid import UUID

_SMALL = 1 << 53
_AS_IS = (int, str, float)
_BUILD: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "frozenset": frozenset,
    "complex": lambda parts: complex(*parts),
    "range": lambda bounds: range(*bounds),
    "slice": lambda bounds: slice(*bounds),
    "fraction": lambda parts: Fraction(*parts),
    "timedelta": lambda parts: timedelta(*parts),
}
_READ: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "bytes": bytes.fromhex,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "uuid": UUID,
    "path": PosixPath,
    "purepath": PurePosixPath,
}
_TEXTS: list[tuple[type, str, Callable[[Any], str]]] = [
    (Decimal, "decimal", str),
    (datetime, "datetime", datetime.isoformat),
    (date, "date", date.isoformat),
    (time, "time", time.isoformat),
    (UUID, "uuid", str),
    (PosixPath, "path", str),
    (PurePosixPath, "purepath", str),
]
_CONTAINERS: list[tuple[type, str]] = [  # the first that fits, so a program's own subclass is what it is underneath
    (list, "list"),
    (Counter, "counter"),
    (OrderedDict, "ordered"),
    (defaultdict, "default"),
    (dict, "dict"),
    (set, "set"),
    (deque, "deque"),
    (bytearray, "bytearray"),
]
PLAIN = (list, dict, set, deque, bytearray, tuple, frozenset, int, float, str, bytes, complex)
_NEW: dict[str, Callable[[], Any]] = {kind: made for made, kind in _CONTAINERS}
_DICTS = ("counter", "ordered", "default", "dict")
_named: dict[tuple[str, ...], type] = {}


class Codec:
    """One side's knowledge of the containers that both sides know.

    Args:
        other: codes what is not plain.
        build: rebuilds it, from its kind and content.
        classes: classes whose instances cross by their attributes, by name.
        first: 0 or 1: whose numbers are even.
    """

    def __init__(
        self, other: Callable[[Any], Any], build: Callable[[str, Any], Any], classes: dict[str, type], first: int
    ) -> None:
        self._other, self._build, self._classes = other, build, classes
        self._next = first
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._known: dict[int, Any] = {}
        """What the other side has of each."""
        self._whole: set[type] = set()
        self._plain_once: Any = None

    def forget(self) -> None:
        """From here on no container is known; the other side must forget too."""
        self._objects, self._numbers, self._known = {}, {}, {}

    def keep_whole(self, kind: type) -> None:
        """From here on objects of this class are no plain values, though it derives from a plain one's."""
        self._whole.add(kind)

    def plainly(self, thing: Any) -> None:
        """In the next message this one is plain all the same."""
        self._plain_once = thing

    def encode(self, values: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The values coded, and the content of each known container that the other side has not."""
        coded = [self.code(value) for value in values]
        done: set[int] = set()
        changed: dict[str, Any] = {}
        while len(done) < len(self._objects):  # a content may bring more
            for number in [number for number in self._objects if number not in done]:
                done.add(number)
                content = self._content(self._objects[number])
                known = self._known.get(number)
                if content != known or repr(content) != repr(known):  # 1 is not True here
                    changed[str(number)] = self._known[number] = content
        self._plain_once = None
        return coded, changed

    def decode(self, coded: list[Any], changed: dict[str, Any]) -> list[Any]:
        """The values; what changed in containers known before is changed in place.

        Raises:
            ValueError, TypeError, KeyError: it is not of ``encode``'s making.
        """
        for number, (kind, *_) in changed.items():
            if int(number) not in self._objects:
                self._know(int(number), self._empty(kind, changed[number]))
        for number, content in changed.items():
            self._known[int(number)] = content
            self._fill(self._objects[int(number)], content)
        return [self.value(item) for item in coded]

    def _know(self, number: int, thing: Any) -> None:
        self._objects[number] = thing
        self._numbers[id(thing)] = number

    def _node(self, thing: Any) -> dict[str, int]:
        if id(thing) not in self._numbers:
            self._know(self._next, thing)
            self._next += 2
        return {"node": self._numbers[id(thing)]}

    def code(self, value: Any) -> Any:
        """One value; a container as its number."""
        if value is None or value is True or value is False or type(value) is str:
            return value
        if type(value) is int and -_SMALL <= value <= _SMALL:
            return value
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            listed = value.tolist()
            return {"array": [str(value.dtype), self.code(listed), len(getattr(value, "shape", ()))]}
        if isinstance(value, Enum) or (type(value) in self._whole and value is not self._plain_once):
            return self._other(value)
        if isinstance(value, int):
            whole = int.__index__(value)
            return whole if -_SMALL <= whole <= _SMALL else {"int": hex(whole)}
        if isinstance(value, float):
            number = float.__float__(value)
            return number if math.isfinite(number) else {"float": repr(number)}
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (list, dict, set, deque, bytearray)):
            return self._node(value)
        if isinstance(value, tuple):
            return self._code_tuple(value)
        return self._code_rarer(value)

    def _items(self, values: Any) -> list[Any]:
        return [
            item
            if (kind := type(item)) is str or (kind is int and -_SMALL <= item <= _SMALL)
            else {"tuple": self._items(item)}
            if kind is tuple
            else self.code(item)
            for item in values
        ]

    def _code_tuple(self, value: Any) -> Any:
        items = self._items(tuple.__iter__(value))
        if type(value) is tuple:
            return {"tuple": items}
        names = getattr(type(value), "_fields", None)
        if not isinstance(names, tuple) or len(names) != len(items):
            return {"tuple": items}
        return {"named": [str(type(value).__name__), [str(name) for name in names], items]}

    def _code_rarer(self, value: Any) -> Any:
        if isinstance(value, frozenset):
            return {"frozenset": [self.code(item) for item in frozenset.__iter__(value)]}
        if isinstance(value, bytes):
            return {"bytes": bytes.hex(value)}
        if isinstance(value, complex):
            return {"complex": [self.code(value.real), self.code(value.imag)]}
        if isinstance(value, range | slice):
            bounds = [self.code(bound) for bound in (value.start, value.stop, value.step)]
            return {type(value).__name__: bounds}
        if isinstance(value, Fraction):
            return {"fraction": [self.code(value.numerator), self.code(value.denominator)]}
        if isinstance(value, timedelta):
            return {"timedelta": [value.days, value.seconds, value.microseconds]}
        for kind, name, text in _TEXTS:
            if isinstance(value, kind):
                return {name: text(value)}
        if self._classes.get(type(value).__name__) is type(value):
            return self._node(value)
        return self._other(value)

    def _content(self, thing: Any) -> list[Any]:
        kind = next((kind for made, kind in _CONTAINERS if isinstance(thing, made)), "object")
        if kind == "list":
            return [kind, self._items(list.__iter__(thing))]
        if kind in _DICTS:
            pairs = [[self.code(key), self.code(value)] for key, value in dict.items(thing)]
            return [kind, pairs, self._factory(thing)] if kind == "default" else [kind, pairs]
        if kind == "set":
            return [kind, [self.code(item) for item in set.__iter__(thing)]]
        if kind == "deque":
            return [kind, [self.code(item) for item in deque.__iter__(thing)], deque.maxlen.__get__(thing)]
        if kind == "bytearray":
            return [kind, bytes(thing).hex()]
        return [kind, [[name, self.code(value)] for name, value in vars(thing).items()], type(thing).__name__]

    def _factory(self, thing: Any) -> Any:
        made = thing.default_factory
        return self.code(made) if made in (int, float, str, list, dict, set, bool, tuple) else None

    def _empty(self, kind: str, content: list[Any]) -> Any:
        if kind == "object":
            return object.__new__(self._classes[content[2]])
        if kind == "default":
            return defaultdict(self.value(content[2]))
        if kind == "deque":
            return deque(maxlen=content[2])
        return _NEW[kind]()

    def _fill(self, thing: Any, content: list[Any]) -> None:
        kind, held = content[0], content[1]
        if kind == "object":
            vars(thing).clear()
            vars(thing).update({str(name): self.value(value) for name, value in held})
            return
        if kind in _DICTS:
            items: Any = {self.value(key): self.value(value) for key, value in held}
        elif kind == "bytearray":
            items = bytes.fromhex(held)
        else:
            items = [item if type(item) in _AS_IS else self.value(item) for item in held]
        thing.clear()
        (thing.update if isinstance(thing, dict | set) else thing.extend)(items)

    def value(self, coded: Any) -> Any:
        """The value that was coded."""
        if not isinstance(coded, dict):
            return coded
        ((kind, content),) = coded.items()
        if kind == "tuple":
            return tuple([item if type(item) in _AS_IS else self.value(item) for item in content])
        if kind == "node":
            return self._objects[int(content)]
        if kind in _BUILD:
            return _BUILD[kind]([self.value(item) for item in content])
        if kind in _READ:
            return _READ[kind](content)
        if kind == "named":
            key = (str(content[0]), *map(str, content[1]))
            if key not in _named:
                _named[key] = namedtuple(key[0], key[1:])  # type: ignore[misc]
            return _named[key](*[self.value(item) for item in content[2]])
        if kind == "array":
            listed, numpy = self.value(content[1]), sys.modules.get("numpy")
            return listed if numpy is None else numpy.array(listed, dtype=content[0])[() if content[2] == 0 else ...]
        return self._build(kind, content)
