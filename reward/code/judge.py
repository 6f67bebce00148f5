"""The tests' side: runs the tests in a process that the program has no way into, and asks for its objects by message.

What the program's side sends is believed to be values and nothing else. It may call functions that the tests handed
over, and use what these give it, but reach no further. Operators of the program's objects count only for classes that
the tests name, and never to weigh an object against a plain value. Runs in a sandbox session; imports nothing of ours
but its neighbours. Left out: how tests are found and counted (``suite``).
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import operator
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from rlpost.reward.code import mirror, suite
from rlpost.reward.code.peer import OtherError, Peer

_LIBRARY = frozenset(
    [
        "abc",
        "array",
        "collections",
        "collections.abc",
        "contextlib",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "io",
        "ipaddress",
        "itertools",
        "json",
        "json.decoder",
        "numbers",
        "pathlib",
        "queue",
        "random",
        "re",
        "statistics",
        "string",
        "struct",
        "types",
        "uuid",
        "zoneinfo",
    ]
)
"""Modules whose classes a program may send by name."""
_PREDICATES = frozenset(
    name
    for kind in (str, bytes, list, tuple, dict, set, int, float)
    for name in dir(kind)
    if name.startswith("is") or name in ("startswith", "endswith")
) | {"equals", "all", "any"}
_PLAIN_NAMES = ("__name__", "__qualname__", "__doc__", "__module__")
_CLOSED = tuple(
    mirror.TYPES[name]
    for name in ("function", "method", "builtin_function_or_method", "code", "frame", "traceback", "module", "cell")
)
_SPECIAL_ASKED = frozenset([*mirror.UNARY, *mirror.KEYED, *mirror.ASYNCHRONOUS, "contains", "aiter"])
_ALIASES = {"np": "numpy", "pd": "pandas"}


class CannotJudge(BaseException):
    """The tests do something that cannot be done by message, whatever the program."""


class _Judge(Peer):
    """Asks freely, and answers little."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.named: set[type] = set()
        self.shows = False

    def name(self, name: str) -> Any:
        """What the program calls so."""
        return self._name_it(self.ask("name", name))

    def path(self, path: str) -> Any:
        """What an expression over the program's names stands for."""
        return self._name_it(self.ask("path", path))

    def get(self, owner: Any, name: str) -> Any:
        """An attribute; an object whose class the tests do not name may not answer for a plain value."""
        if name in _PREDICATES and not isinstance(owner, mirror.MirrorClass) and not self.trusts(owner):
            raise AttributeError(f"{owner!r} is no plain value; '{name}' of it says nothing")
        return self._name_it(super().get(owner, name))

    def _name_it(self, found: Any) -> Any:
        if isinstance(found, mirror.MirrorClass):
            self.named.add(found)
        return found

    def trusts(self, thing: Any) -> bool:
        """Whether the tests name its class or one that it derives from."""
        return any(kind in self.named for kind in type(thing).__mro__)

    def operate(self, operation: str, one: Any, other: Any, turned: bool, in_place: bool) -> Any:
        """As Python does, between objects of classes that the tests name; with a plain value only to make another
        object."""
        plain = not isinstance(other, mirror.Mirror)
        if plain and operation in mirror.COMPARING and type(one)._plain:
            pair = (other, self.ask("plain", one)) if turned else (self.ask("plain", one), other)
            return getattr(operator, operation)(*pair)
        if not self.trusts(one) or (plain and (operation == "sub" or operation in mirror.COMPARING)):
            return NotImplemented
        if not plain and not self.trusts(other):
            return NotImplemented
        found = super().operate(operation, one, other, turned, in_place)
        if plain and not isinstance(found, mirror.Mirror):
            raise TypeError(f"{operation} of {one!r} and a plain value is no object of the program")
        return found

    def equal(self, one: Any, other: Any) -> bool:
        """Objects of the program may say that they are equal to each other, never to a plain value."""
        if isinstance(other, mirror.Mirror):
            return super().equal(one, other)
        return type(one)._plain and bool(self.ask("plain", one) == other)

    def refuse(self, why: str) -> None:
        """Give up on the tests."""
        raise CannotJudge(why)

    def replied(self, reply: dict[str, Any]) -> None:
        """Print what the program printed, where the tests look at it."""
        if self.shows and (printed := reply.get("out")):
            sys.stdout.write(str(printed))

    def answer(self, asked: dict[str, Any]) -> str:
        """Print what came before the question, then answer."""
        self.replied(asked)
        return super().answer(asked)

    def do(self, what: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        """Only with what the tests handed over, and only what an honest user of it would."""
        if what in ("input", "read", "read line"):
            return _read(what, arguments)
        ours = [thing for thing in arguments if id(thing) in self._numbers]
        owner = arguments[1 if what in ("special", "async") else 0] if what != "binary" else (ours or [None])[0]
        if id(owner) not in self._numbers or not self._allowed(what, owner, arguments):
            raise TypeError(f"the program may not {what} that")
        return super().do(what, arguments, keywords)

    def _allowed(self, what: str, owner: Any, arguments: list[Any]) -> bool:
        if what in ("get", "set", "del"):
            name = str(arguments[1])
            if name in _PLAIN_NAMES:
                return what == "get"
            if name.startswith("__") or isinstance(owner, _CLOSED) or name[:3] in ("gi_", "cr_", "ag_", "tb_"):
                return False
            own_class = type(owner).__module__ == suite.MODULE and not isinstance(owner, type)
            return what == "get" or (own_class and not callable(getattr(type(owner), name, None)))
        if what == "special":
            return arguments[0] in _SPECIAL_ASKED
        return what in ("call", "binary", "equal", "iterate", "take", "list", "async")

    def _function(self, name: str, number: int, described: dict[str, Any]) -> Any:
        return self._stand_in(number, types.BuiltinFunctionType, None)

    def _class_of(self, kind: str, content: Any) -> Any:
        if kind == "library" and content[0] not in _LIBRARY:
            return object
        return super()._class_of(kind, content)


def _read(what: str, arguments: list[Any]) -> str:
    if what == "input":
        return str(builtins.input(*arguments))
    return str(sys.stdin.read(int(arguments[0])) if what == "read" else sys.stdin.readline())


class _Names(dict[str, Any]):
    """The tests' globals: their own names, then Python's, then the standard library's modules, then the program's."""

    def __init__(self, peer: _Judge, packages: Sequence[str]) -> None:
        super().__init__(__name__=suite.MODULE, __builtins__=builtins)
        self._peer, self._packages = peer, packages

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        module = _ALIASES.get(name, name)
        if name in sys.stdlib_module_names or module in self._packages:
            self[name] = importlib.import_module(module)
        else:
            self[name] = self._peer.name(name)
        return self[name]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets the tests import the program, under whatever name they have for it."""

    def __init__(self, peer: _Judge) -> None:
        self._peer = peer

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Any top-level module that Python has not found is the program."""
        return None if path is not None else importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: Any) -> Any:
        """Stands for the program."""
        return _Program(spec.name, self._peer)

    def exec_module(self, module: Any) -> None:
        """Nothing is left to be done."""


class _Program(types.ModuleType):
    """The program, as a module of the tests."""

    def __init__(self, name: str, peer: _Judge) -> None:
        super().__init__(name)
        vars(self)["_peer"] = peer

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return self._peer.ask("names")
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._peer.name(name)
        except NameError as error:
            raise AttributeError(str(error)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            self._peer.ask("set", self._peer.ask("module"), name, value)

    def __delattr__(self, name: str) -> None:
        self._peer.ask("del", self._peer.ask("module"), name)


def run(
    tests: str,
    prelude: str,
    names: dict[str, str],
    settings: dict[str, Any],
    ask: Callable[..., Any],
) -> None:
    """Run the tests and say what came of them, as ``verdict``; then raise the first failure, if there was one.

    Args:
        tests: Python text.
        prelude: Python text run before, e.g. helpers that the tests trust.
        names: names to be taken from the program even where ``prelude`` or Python has them, and what each stands for.
        settings: ``classes``, ``lasting``, ``lazy``, ``output``, ``share``, ``packages``, ``cpu_s``.
        ask: hands a message to the program's side.
    """
    suite.start_clock(settings["cpu_s"])
    before, stdin, stdout = set(sys.modules), sys.stdin, sys.stdout
    scope: dict[str, Any] = {}
    if settings["classes"]:
        scope = {"__name__": "prelude"}
        exec(compile(prelude, "<prelude>", "exec", dont_inherit=True), scope)
    classes = {name: scope[name] for name in settings["classes"] if isinstance(scope.get(name), type)}
    packages = tuple(settings["packages"])
    peer = _Judge(lambda text: str(ask("ask", text=text)), 0, classes, settings["lasting"], packages)
    peer.lazy, peer.shows = settings["lazy"], settings["output"]
    finder = _Finder(peer)
    sys.meta_path.append(finder)
    space = _Names(peer, packages)
    try:
        if scope:
            space.update({name: value for name, value in scope.items() if not name.startswith("__")})
        else:
            exec(compile(prelude, "<prelude>", "exec", dont_inherit=True), space)
        for name, path in names.items():
            space[name] = peer.name(path) if path.isidentifier() else peer.path(path)
        found = suite.run(tests, space, settings["share"])
    except CannotJudge as error:
        found = suite.Found(False, error=error)
    finally:
        suite.stop_clock()
        sys.meta_path.remove(finder)
        sys.stdin, sys.stdout = stdin, stdout
        for name in set(sys.modules) - before:
            if isinstance(sys.modules[name], _Program):
                del sys.modules[name]
    if isinstance(found.error, CannotJudge):
        ask("refused", why=str(found.error))
    failure = found.error
    ask("verdict", ok=failure is None, passed=found.passed, total=found.total, asserted=found.asserted)
    if isinstance(failure, Exception):
        raise failure
    if failure is not None:  # such as SystemExit: no way to end a test, let alone to pass it
        raise RuntimeError(f"{type(failure).__name__} in a test") from failure


__all__ = ["CannotJudge", "OtherError", "run"]
