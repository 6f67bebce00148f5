"""The tests' side: runs the tests in a process that the program has no way into, and asks for its objects by message.

Functions and objects of the program are stand-ins here; what they return is rebuilt from plain values. A stand-in
equals only itself, so an object that claims to equal everything equals nothing. Runs in a sandbox session; imports
nothing of ours but ``values``. Left out: handing functions of the tests to the program.
"""

from __future__ import annotations

import builtins
import importlib
import json
import linecache
import sys
from collections.abc import Callable, Iterator, MutableSequence, MutableSet
from typing import Any

from rlpost.reward.code import values

_FILE = "<tests>"
_ask: Callable[..., dict[str, Any]]


class ProgramError(Exception):
    """The program raised an exception of a kind that is not built in."""


class Remote:
    """Stands for an object of the program; what is done to it is done over there."""

    def __init__(self, number: int, kind: str) -> None:
        vars(self).update(_number=number, _kind=kind)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return _do("call", self, *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return _do("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _do("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return _do("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _do("set item", self, key, value)

    def __iter__(self) -> Iterator[Any]:
        iterator, count = _do("iterate", self), 1
        while items := _do("take", iterator, count):
            yield from items
            count = min(2 * count, 1024)

    def __len__(self) -> int:
        return int(_do("length", self))

    def __bool__(self) -> bool:
        return bool(_do("truth", self))

    def __str__(self) -> str:
        return str(_do("text", self))

    def __contains__(self, value: Any) -> bool:
        return any(value == item for item in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and vars(other)["_number"] == vars(self)["_number"]

    def __hash__(self) -> int:
        return hash(vars(self)["_number"])

    def __repr__(self) -> str:
        return f"<{vars(self)['_kind']} of the program>"


class _Names(dict[str, Any]):
    """The tests' globals: their own names, then Python's, then the standard library's modules, then the program's."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        self[name] = importlib.import_module(name) if name in sys.stdlib_module_names else _do("name", name)
        return self[name]


def run(tests: str, prelude: str, names: list[str], ask: Callable[..., dict[str, Any]]) -> None:
    """Run the tests; returns where they pass, and raises what they raise where they do not.

    Args:
        tests: Python text.
        prelude: Python text run before, e.g. helpers that the tests trust.
        names: names to be taken from the program even where ``prelude`` or Python has them.
        ask: hands a request to the program's side.
    """
    global _ask
    _ask = ask
    space = _Names(__name__="tests", __builtins__=builtins)
    exec(compile(prelude, "<prelude>", "exec", dont_inherit=True), space)
    for name in names:
        space[name] = _do("name", name)
    linecache.cache[_FILE] = (len(tests), None, tests.splitlines(keepends=True), _FILE)
    exec(compile(tests, _FILE, "exec", dont_inherit=True), space)


def _do(what: str, *arguments: Any, **keywords: Any) -> Any:
    request = {
        "do": what,
        "arguments": [values.encode(value, _hand_over) for value in arguments],
        "keywords": {name: values.encode(value, _hand_over) for name, value in keywords.items()},
    }
    reply = _ask("ask", request=json.dumps(request))
    if "raised" in reply:
        kind, text = reply["raised"]
        error = getattr(builtins, str(kind), None)
        known = isinstance(error, type) and issubclass(error, Exception)
        raise error(text) if known else ProgramError(f"{kind}: {text}")  # type: ignore[misc]
    for place, now in reply["changed"].items():
        _update(arguments[int(place)], values.decode(now, _stand_in))
    return values.decode(reply["value"], _stand_in)


def _update(argument: Any, now: Any) -> None:
    """Let an argument that the program changed in place look as it left it."""
    if type(argument) is not type(now):
        return
    if isinstance(argument, dict | MutableSet):
        argument.clear()
        argument.update(now)  # type: ignore[union-attr]
    elif isinstance(argument, MutableSequence):
        argument.clear()
        argument.extend(now)


def _hand_over(value: Any) -> dict[str, Any]:
    if isinstance(value, Remote):
        return {"remote": vars(value)["_number"]}
    raise TypeError(f"the tests hand the program a {type(value).__name__}; only plain values can be handed over")


def _stand_in(kind: str, content: Any) -> Any:
    if kind == "module" and isinstance(content, str):
        return importlib.import_module(content)
    if kind == "remote":
        return Remote(int(content[0]), str(content[1]))
    raise ValueError(f"the program's side sent an unknown kind of value: {kind}")
