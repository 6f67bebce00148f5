"""The part of pytest that tests of generated programs use, for a process that has no pytest; they import it as such.

``raises``, ``approx``, ``fixture``, ``param``, ``fail``, ``skip``, ``mark.parametrize`` and other marks, and the
fixtures ``capsys``, ``monkeypatch``, ``tmp_path`` and ``request``. Left out: plugins, scopes wider than a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import itertools
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_counts: list[Callable[[], None]] = []


def on_assertion(count: Callable[[], None]) -> None:
    """Have every ``raises`` announce itself."""
    _counts[:] = [count]


class Skipped(Exception):
    """The test asked not to be run."""


def skip(reason: str = "", **_: Any) -> None:
    """Leave the test out."""
    raise Skipped(reason)


def fail(reason: str = "", **_: Any) -> None:
    """Fail the test."""
    raise AssertionError(reason)


def importorskip(name: str, *_: Any, **__: Any) -> Any:
    """The module, or the test is left out."""
    try:
        return __import__(name)
    except ImportError:
        raise Skipped(name) from None


def main(*_: Any, **__: Any) -> int:
    """The tests are run anyway."""
    return 0


class _Raises:
    """What ``with raises(...) as info`` gives; ``info.value`` is the exception."""

    value: BaseException
    type: type
    tb: Any

    def __init__(self, expected: Any, match: Any = None) -> None:
        self._expected, self._match = expected, match

    def __enter__(self) -> _Raises:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        for count in _counts:
            count()
        if error is None:
            raise AssertionError(f"DID NOT RAISE {self._expected!r}")
        if not isinstance(error, self._expected):
            return False
        self.value, self.type, self.tb = error, kind, trace
        if self._match is not None:
            self.match(self._match)
        return True

    def match(self, pattern: Any) -> bool:
        """Whether the message matches; AssertionError where not."""
        if not re.search(pattern, str(self.value)):
            raise AssertionError(f"{str(self.value)!r} does not match {pattern!r}")
        return True


def raises(expected: Any, function: Any = None, *arguments: Any, match: Any = None, **keywords: Any) -> Any:
    """As pytest's, also with a function to call."""
    info = _Raises(expected, match)
    if function is None:
        return info
    with info:
        function(*arguments, **keywords)
    return info


@contextlib.contextmanager
def warns(*_: Any, **__: Any) -> Iterator[list[Any]]:
    """Warnings stay with the program; none is asked for."""
    yield []


deprecated_call = warns


class approx:
    """Equal within ``rel`` (1e-6) of the expected value or ``abs`` (1e-12), as pytest's; also inside sequences,
    mappings and arrays."""

    __array_priority__ = 100
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, actual: object) -> bool:
        return self._near(actual, self.expected.tolist() if hasattr(self.expected, "tolist") else self.expected)

    def _near(self, actual: Any, expected: Any) -> bool:
        actual = actual.tolist() if type(actual).__module__ == "numpy" else actual
        if isinstance(expected, Mapping):
            keys = isinstance(actual, Mapping) and actual.keys() == expected.keys()
            return bool(keys) and all(self._near(actual[key], expected[key]) for key in expected)
        if isinstance(expected, Sequence) and not isinstance(expected, str | bytes):
            same = isinstance(actual, Sequence) and len(actual) == len(expected)
            return same and all(map(self._near, actual, expected))
        if isinstance(expected, bool | str | bytes | None) or not isinstance(actual, int | float | complex):
            return not hasattr(type(actual), "_peer") and bool(actual == expected)
        if actual == expected:
            return True
        if actual != actual or expected != expected:
            return self.nan_ok and actual != actual and expected != expected
        if not all(map(math.isfinite, (abs(actual), abs(expected)))):
            return False
        relative = (1e-6 if self.rel is None and self.abs is None else self.rel or 0.0) * abs(expected)
        absolute = 1e-12 if self.abs is None else self.abs
        return bool(abs(actual - expected) <= max(relative, absolute))

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"


def param(*values: Any, id: Any = None, marks: Any = ()) -> Any:
    """One case of ``parametrize``."""
    return SimpleNamespace(param=values, skipped=any(getattr(mark, "skips", False) for mark in _listed(marks)))


def _listed(marks: Any) -> Sequence[Any]:
    return marks if isinstance(marks, list | tuple) else (marks,)


class _Mark:
    """A mark, with or without arguments; all but ``parametrize`` and those that skip change nothing."""

    def __init__(self, name: str = "", skips: bool = False) -> None:
        self.name, self.skips = name, skips or name == "skip"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Mark(name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if self.name == "parametrize":
            return _parametrize(*arguments, **keywords)
        if (
            len(arguments) == 1
            and not keywords
            and (inspect.isfunction(arguments[0]) or isinstance(arguments[0], type))
        ):
            marked: Any = arguments[0]
            marked.skips = self.skips or getattr(marked, "skips", False)
            return marked
        conditional = self.name in ("skipif", "xfail") and (not arguments or bool(arguments[0]))
        return _Mark(self.name, conditional)


mark = _Mark()


def _parametrize(names: Any, values: Any, **_: Any) -> Callable[[Any], Any]:
    listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    cases = []
    for value in values:
        if isinstance(value, SimpleNamespace) and value.skipped:
            continue
        given = value.param if isinstance(value, SimpleNamespace) else (value,) if len(listed) == 1 else tuple(value)
        cases.append(dict(zip(listed, given, strict=True)))

    def decorate(function: Any) -> Any:
        function.parameters = [*vars(function).get("parameters", ()), cases]
        return function

    return decorate


def fixture(function: Any = None, **options: Any) -> Any:
    """As pytest's; every fixture is made anew for each test."""
    if function is None:
        return lambda made: fixture(made, **options)
    function.fixture = options
    return function


def cases(function: Any, space: Mapping[str, Any], owner: Any = None) -> Iterator[Callable[[], None]]:
    """The calls that one test function stands for; ``owner`` is the class it is a method of."""
    if vars(function).get("skips") or "fixture" in vars(function):
        return
    given = [*vars(function).get("parameters", ()), *(vars(owner).get("parameters", ()) if owner else ())]
    needed = _needed(function, space, owner)
    given += [[{f"fixture {name}": value} for value in params] for name, params in needed]
    for combination in itertools.product(*given):
        values = {name: value for case in combination for name, value in case.items()}
        yield lambda values=values: _run(function, space, owner, values)  # type: ignore[misc]


def methods(owner: Any, space: Mapping[str, Any]) -> Iterator[Callable[[], None]]:
    """The same for all test methods of a class."""
    if vars(owner).get("skips"):
        return
    for name in dir(owner):
        found = getattr(owner, name)
        if name.startswith("test") and callable(found):
            yield from cases(getattr(found, "__func__", found), space, owner)


def _needed(function: Any, space: Mapping[str, Any], owner: Any) -> list[tuple[str, Any]]:
    """Fixtures with ``params`` that a test asks for itself."""
    asked = [(name, _fixture(name, space, owner)) for name in inspect.signature(function).parameters]
    found = [(name, vars(made)["fixture"].get("params")) for name, made in asked if made is not None]
    return [(name, params) for name, params in found if params]


def _fixture(name: str, space: Mapping[str, Any], owner: Any) -> Any:
    named = [vars(owner).get(name) if owner else None, dict(space).get(name)]
    made_here = [made for made in space.values() if inspect.isfunction(made) and "fixture" in vars(made)]
    named += [made for made in made_here if vars(made)["fixture"].get("name") == name]
    return next((made for made in named if inspect.isfunction(made) and "fixture" in vars(made)), None)


def _run(function: Any, space: Mapping[str, Any], owner: Any, values: dict[str, Any]) -> None:
    with contextlib.ExitStack() as stack:
        ready: dict[str, Any] = {}
        instance = owner() if owner else None
        arguments = [] if instance is None else [instance]
        _hooks(stack, instance, space, function)
        for made in [*space.values(), *(vars(owner).values() if owner else ())]:
            if inspect.isfunction(made) and vars(made).get("fixture", {}).get("autouse"):
                _make(made.__name__, space, owner, instance, values, ready, stack)
        signature = list(inspect.signature(function).parameters)[len(arguments) :]
        if isinstance(vars(owner).get(function.__name__) if owner else None, staticmethod):
            arguments, signature = [], list(inspect.signature(function).parameters)
        defaults = {name for name, p in inspect.signature(function).parameters.items() if p.default is not p.empty}
        keywords = {
            name: values[name] if name in values else _make(name, space, owner, instance, values, ready, stack)
            for name in signature
            if name in values or name not in defaults
        }
        with contextlib.suppress(Skipped):
            outcome = function(*arguments, **keywords)
            if inspect.iscoroutine(outcome):
                asyncio.run(outcome)


def _hooks(stack: contextlib.ExitStack, instance: Any, space: Mapping[str, Any], function: Any) -> None:
    if instance is None:
        before, after = map(dict(space).get, ("setup_function", "teardown_function"))
        arguments: list[list[Any]] = [[function]]
        pairs = [(before, after)]
    else:
        names = ("class", "method")
        pairs = [
            (getattr(instance, f"setup_{name}", None), getattr(instance, f"teardown_{name}", None)) for name in names
        ]
        arguments = [[], [function]]
    for (begin, end), given in zip(pairs, arguments, strict=True):
        if begin is not None:
            begin(*given[: len(inspect.signature(begin).parameters)])
        if end is not None:
            stack.callback(end, *given[: len(inspect.signature(end).parameters)])


def _make(
    name: str,
    space: Mapping[str, Any],
    owner: Any,
    instance: Any,
    values: dict[str, Any],
    ready: dict[str, Any],
    stack: contextlib.ExitStack,
) -> Any:
    """The value of a fixture for this test."""
    if name in ready:
        return ready[name]
    if name in _BUILT_IN:
        ready[name] = stack.enter_context(_BUILT_IN[name]())
        return ready[name]
    if name == "request":
        return SimpleNamespace(param=values.get("fixture"), addfinalizer=stack.callback)
    made = _fixture(name, space, owner)
    if made is None:
        raise LookupError(f"fixture '{name}' not found")
    keywords = {}
    for wanted in inspect.signature(made).parameters:
        if wanted == "self":
            keywords[wanted] = instance
        elif wanted == "request":
            keywords[wanted] = SimpleNamespace(param=values.get(f"fixture {name}"), addfinalizer=stack.callback)
        else:
            keywords[wanted] = _make(wanted, space, owner, instance, values, ready, stack)
    value = made(**keywords)
    if inspect.isgenerator(value):
        value = stack.enter_context(contextlib.contextmanager(made)(**keywords))
    ready[name] = value
    return value


class _Captured:
    """``capsys``."""

    def __init__(self) -> None:
        self._out, self._err = io.StringIO(), io.StringIO()

    def readouterr(self) -> Any:
        """What was written since the last time."""
        read = _Read((self._out.getvalue(), self._err.getvalue()))
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        return read


class _Read(tuple[str, str]):
    out = property(lambda self: self[0])
    err = property(lambda self: self[1])


@contextlib.contextmanager
def _capsys() -> Iterator[_Captured]:
    captured = _Captured()
    with contextlib.redirect_stdout(captured._out), contextlib.redirect_stderr(captured._err):
        yield captured


class _MonkeyPatch:
    """``monkeypatch``."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def setattr(self, target: Any, name: Any, value: Any = None, raising: bool = True) -> None:
        """Set an attribute until the test is over; also as ``"module.name", value``."""
        if isinstance(target, str):
            place, _, attribute = target.rpartition(".")
            target, name, value = __import__("importlib").import_module(place), attribute, name
        before = getattr(target, name, None)
        self._undo.append(lambda: setattr(target, name, before))
        setattr(target, name, value)

    def setitem(self, target: Any, key: Any, value: Any) -> None:
        """The same for an item."""
        before = target.get(key, self)
        self._undo.append(lambda: target.pop(key, None) if before is self else target.__setitem__(key, before))
        target[key] = value

    def setenv(self, name: str, value: str, prepend: str | None = None) -> None:
        """The same for an environment variable."""
        self.setitem(os.environ, name, value)

    def undo(self) -> None:
        """As it was."""
        while self._undo:
            self._undo.pop()()


@contextlib.contextmanager
def _monkeypatch() -> Iterator[_MonkeyPatch]:
    patch = _MonkeyPatch()
    try:
        yield patch
    finally:
        patch.undo()


@contextlib.contextmanager
def _tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


_BUILT_IN: dict[str, Callable[[], Any]] = {
    "capsys": _capsys,
    "capfd": _capsys,
    "monkeypatch": _monkeypatch,
    "tmp_path": _tmp_path,
}
