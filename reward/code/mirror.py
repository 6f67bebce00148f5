"""Stand-ins for what stays on the other side: objects, classes and exceptions that are used by message.

A stand-in's class has the special methods that the real class has, so that ``isinstance``, ``hasattr`` and Python's own
fallbacks see what they would see there. Left out: what a special method asks for, and whether it may (``peer``).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift", "and", "or", "xor"]
COMPARING = ["lt", "le", "gt", "ge"]
UNARY = [
    "len",
    "bool",
    "str",
    "repr",
    "int",
    "float",
    "complex",
    "abs",
    "neg",
    "pos",
    "invert",
    "index",
    "round",
    "trunc",
    "floor",
    "ceil",
    "reversed",
    "enter",
]
KEYED = ["getitem", "setitem", "delitem", "exit", "format"]
ASYNCHRONOUS = ["anext", "aenter", "aexit"]
SPECIAL = frozenset(
    f"__{name}__"
    for name in [
        *BINARY,
        *(f"r{name}" for name in BINARY),
        *(f"i{name}" for name in BINARY),
        *COMPARING,
        *UNARY,
        *KEYED,
        *ASYNCHRONOUS,
        *("eq", "ne", "hash", "call", "iter", "next", "contains", "await", "aiter"),
    ]
)
"""Special methods that a stand-in can have."""
ENDLESS = 1 << 20
"""Items after which something that is iterated to its end counts as endless."""
TYPES: dict[str, type] = {
    kind.__name__: kind for kind in vars(types).values() if isinstance(kind, type) and kind.__module__ == "builtins"
}
"""Classes that Python has no built-in name for, such as generator and function."""


class Mirror:
    """What every stand-in has: its number over there, and ``_peer``, which asks. Equality is identity, unless the tests
    named the class and it says what equal is."""

    _peer: Any
    _number: int
    _hashed: int | None
    _plain = False

    def __getattr__(self, name: str) -> Any:
        return self._peer.get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._peer.ask("del", self, name)

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self._peer.equal(self, other))

    def __hash__(self) -> int:
        known = vars(self)["_hashed"]
        return hash(vars(self)["_number"]) if known is None else known

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on the other side>"


class MirrorClass(type):
    """The class of stand-ins' classes: calling one makes an object over there; what it has is looked up there."""

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        if "_own" not in vars(cls):
            kind = cls.__mro__[1].__name__
            cls._refuse(f"the tests derive a class from the program's {kind}; its methods would not be seen there")
        return cls._peer.ask("call", cls, *arguments, **keywords)

    def _refuse(cls, why: str) -> None:
        cls._peer.refuse(why)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return cls._peer.get(cls, name)

    def __iter__(cls) -> Iterator[Any]:
        return iter(cls._peer.ask("list", cls))

    def __len__(cls) -> int:
        return int(cls._peer.ask("special", "len", cls))

    def __getitem__(cls, key: Any) -> Any:
        return cls._peer.ask("special", "getitem", cls, key)

    def __contains__(cls, item: Any) -> bool:
        return any(item is mine or item == mine for mine in cls)


def special(name: str) -> Callable[..., Any]:
    """The method of a stand-in for one special name."""
    plain = name.strip("_")
    if plain in _OWN:
        return _OWN[plain]
    reflected = plain[1:] if plain[0] in "ri" and plain[1:] in BINARY else ""
    if plain in BINARY or reflected or plain in COMPARING:
        operation, turned = reflected or plain, bool(reflected) and plain[0] == "r"

        def binary(self: Any, other: Any, *more: Any) -> Any:
            return self._peer.operate(operation, self, other, turned, in_place=bool(reflected) and not turned)

        return binary
    if plain in ASYNCHRONOUS:

        async def awaited(self: Any, *arguments: Any) -> Any:
            return self._peer.ask("async", plain, self, *arguments)

        return awaited
    return lambda self, *arguments: self._peer.ask("special", plain, self, *arguments)


def _iterate(self: Any) -> Any:
    iterator = self._peer.ask("iterate", self)
    if self._peer.lazy:
        return iterator if iterator is self else _taken(self, iterator)
    return iter(_drained(self, iterator))


def _taken(self: Any, iterator: Any) -> Iterator[Any]:
    count = 1
    while items := self._peer.ask("take", iterator, count):
        yield from items
        count = min(2 * count, 1024)


def _drained(self: Any, iterator: Any) -> list[Any]:
    found: list[Any] = []
    while items := self._peer.ask("take", iterator, 1024):
        found += items
        if len(found) > ENDLESS:
            raise AssertionError(f"a {type(self).__name__} gives more than {ENDLESS} items; it counts as endless")
    return found


def _contains(self: Any, item: Any) -> bool:
    if self._peer.trusts(self) and hasattr(type(self), "_contains"):
        return bool(self._peer.ask("special", "contains", self, item))
    return item in _drained(self, self._peer.ask("iterate", self))


def _next(self: Any) -> Any:
    items = self._peer.ask("take", self, 1)
    if not items:
        raise StopIteration
    return items[0]


def _await(self: Any) -> Any:
    return self._peer.ask("async", "await", self)
    yield  # pragma: no cover: makes it a generator, as Python wants


_OWN: dict[str, Callable[..., Any]] = {
    "eq": Mirror.__eq__,
    "ne": lambda self, other: self is not other and not self._peer.equal(self, other),
    "hash": Mirror.__hash__,
    "call": lambda self, *arguments, **keywords: self._peer.ask("call", self, *arguments, **keywords),
    "iter": _iterate,
    "next": _next,
    "contains": _contains,
    "await": _await,
    "aiter": lambda self: self._peer.ask("special", "aiter", self),
}
