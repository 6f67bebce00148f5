"""Runs a test file as its author meant it: its statements, then its test functions and classes; counts what asserted.

Known are plain asserts, pytest's functions and classes (through ``mini_pytest``) and unittest's cases; what is under
``if __name__ == "__main__"`` runs too. Runs in the tests' process; knows nothing of the program. Left out: doctests.
"""

from __future__ import annotations

import ast
import functools
import linecache
import signal
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rlpost.reward.code import mini_pytest

MODULE = "tests"
_FILE = "<tests>"
_LONGEST = 300_000
"""Characters of tests whose assertions are counted; longer ones are a benchmark's, and long for their data."""
_RUNNERS = ("main", "exit", "_exit", "quit", "testmod")


class OutOfTime(BaseException):
    """The tests used more processor time than they may."""


@dataclass(slots=True)
class Found:
    """What came of the tests: how many of how many units passed, how often anything was asserted, the first failure."""

    share: bool
    passed: int = 0
    total: int = 0
    asserted: int = 0
    error: BaseException | None = None

    def __enter__(self) -> None:
        self.total += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self.passed += error is None
        self.error = self.error or error
        return self.share and not isinstance(error, OutOfTime)

    def count(self) -> None:
        """Something is about to be asserted."""
        self.asserted += 1


def start_clock(cpu_s: float) -> None:
    """Interrupt this process after so much processor time."""

    def ring(*_: Any) -> None:
        raise OutOfTime(f"the tests used more than {cpu_s:g} s of processor time")

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def stop_clock() -> None:
    """Let it go on."""
    signal.setitimer(signal.ITIMER_PROF, 0)


def run(tests: str, space: dict[str, Any], share: bool) -> Found:
    """Run the tests in a namespace; stops at the first failure unless a share is asked for."""
    found, planned = Found(share), 0
    unittest.main = lambda *_, **__: None  # type: ignore[assignment, misc]
    sys.modules["pytest"] = mini_pytest
    linecache.cache[_FILE] = (len(tests), None, tests.splitlines(keepends=True), _FILE)
    space["__unit__"], space["__asserts__"] = found, found.count
    mini_pytest.on_assertion(found.count)
    try:
        code, planned = _compiled(tests, found)
        exec(code, space)
        collected = list(_collected(space))
        planned += len(collected)
        for test in collected:
            with found:
                test()
    except BaseException as error:
        found.error = found.error or error
    if planned == 0 and found.error is None:
        found.passed = 1
    found.total = max(found.total, planned, 1)
    return found


def _compiled(tests: str, found: Found) -> tuple[types.CodeType, int]:
    """The statements, and how many units there are among them."""
    if len(tests) > _LONGEST:
        found.asserted = tests.count("assert")
        return compile(tests, _FILE, "exec", dont_inherit=True), 0
    tree = ast.parse(tests, _FILE)
    tree.body = list(_statements(tree.body, found.share))
    units = sum(_is_unit(node) for node in ast.walk(tree)) if found.share else 0
    return compile(ast.fix_missing_locations(tree), _FILE, "exec", dont_inherit=True), units


def _statements(body: list[ast.stmt], units: bool) -> Iterator[ast.stmt]:
    """The same statements, each assertion announced; where wanted, those that assert are units of their own."""
    for statement in body:
        if isinstance(statement, ast.If) and _is_main_guard(statement.test):
            kept = [inner for inner in statement.body if not _starts_runner(inner)]
            yield from _statements(kept, units)
            continue
        inner_units = units and isinstance(statement, ast.FunctionDef) and statement.name == "check"
        for part in ("body", "orelse", "finalbody"):
            if isinstance(getattr(statement, part, None), list):
                setattr(statement, part, list(_statements(getattr(statement, part), inner_units)))
        for handler in [*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]:
            handler.body = list(_statements(handler.body, False))
        announced = [_at(statement, "__asserts__()"), statement] if asserts(statement) else [statement]
        definition = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if units and not definition and any(asserts(node) for node in ast.walk(statement)):
            wrapper = _at(statement, "with __unit__: pass")
            wrapper.body = announced  # type: ignore[attr-defined]
            yield wrapper
        else:
            yield from announced


def asserts(node: ast.AST) -> bool:
    """Whether this statement asserts: by ``assert``, a function so called, ``raises``, or ``if`` and ``raise``."""
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.If | ast.Try):
        return any(isinstance(inner, ast.Raise) for inner in [*node.body, *node.orelse])
    calls: list[ast.AST] = [node.value] if isinstance(node, ast.Expr) else []
    if isinstance(node, ast.With | ast.AsyncWith):
        calls = [item.context_expr for item in node.items]
    calls = [call.value if isinstance(call, ast.Await) else call for call in calls]
    names = [_called(call) for call in calls if isinstance(call, ast.Call)]
    return any(name.lstrip("_").startswith(("assert", "raises", "warns", "fail")) for name in names)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_unit(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and getattr(node.items[0].context_expr, "id", "") == "__unit__"


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and ast.unparse(test).replace("'", '"') in (
        '__name__ == "__main__"',
        '"__main__" == __name__',
    )


def _starts_runner(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and any(
        isinstance(node, ast.Call) and _called(node) in _RUNNERS for node in ast.walk(statement)
    )


def _at(statement: ast.stmt, text: str) -> ast.stmt:
    made = ast.parse(text).body[0]
    for node in ast.walk(made):
        if hasattr(node, "lineno"):
            ast.copy_location(node, statement)
    return made


def _collected(space: dict[str, Any]) -> Iterator[Callable[[], Any]]:
    """The test functions and methods, ready to be called, in the order of the file."""
    here = [thing for thing in list(space.values()) if getattr(thing, "__module__", None) == MODULE]
    for thing in here:
        if isinstance(thing, type) and issubclass(thing, unittest.TestCase):
            for name in unittest.defaultTestLoader.getTestCaseNames(thing):
                yield functools.partial(_run_case, thing(name))
        elif isinstance(thing, type) and thing.__name__.startswith("Test"):
            yield from mini_pytest.methods(thing, space)
        elif isinstance(thing, types.FunctionType) and thing.__name__.startswith("test"):
            yield from mini_pytest.cases(thing, space)


class _Result(unittest.TestResult):
    first: BaseException | None = None

    def addError(self, test: Any, err: Any) -> None:
        self.first = self.first or err[1]

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        self.first = self.first or (err and err[1])

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.first = self.first or AssertionError(f"{test} passes, and was expected to fail")


def _run_case(case: unittest.TestCase) -> None:
    result = _Result()
    unittest.TestSuite([case]).run(result)
    if result.first is not None:
        raise result.first
