"""Whether a program passes tests: the program in one sandbox, the tests in another, messages between them.

The verdict is the tests' process's own, so a program cannot fake it: it can neither read the tests, nor replace what
they compare with, nor end them early. Left out: tests by standard input and output (``stdio``).
"""

from __future__ import annotations

import ast
import base64
import json
import marshal
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from rlpost.reward.pool import SessionPool
from rlpost.reward.sandbox import CallError, Limits, Outcome, Reason, SandboxError, Session
from rlpost.reward.score import RewardError


class Ending(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"  # a test raised, most often AssertionError
    BROKEN = "broken"  # the program itself raised, crashed, or left
    TIMEOUT = "timeout"
    LIMIT = "limit"  # memory, processes, output, processor time


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check.

    Attributes:
        ending: how it ended.
        detail: the end of the traceback, or what was exceeded.
        wall_s: seconds it took.
        share: the share of the tests that passed, 0 to 1; 1 or 0 unless it was asked for.
        asserted: how often something was asserted.
    """

    ending: Ending
    detail: str = ""
    wall_s: float = 0.0
    share: float = 0.0
    asserted: int = 0

    @property
    def passed(self) -> bool:
        """Whether all tests ran and none failed."""
        return self.ending is Ending.PASSED


LIMITS = Limits(wall_s=300.0, cpu_s=10.0, memory_mib=1024, processes=32)
"""Of a program: processor time decides, which a busy machine does not change; the wall clock ends what sleeps."""
_TESTS_CPU_S = 60.0
_JUDGE_LIMITS = Limits(wall_s=300.0, cpu_s=36_000.0, memory_mib=4096, processes=32)
ENDINGS = {
    Reason.TIMEOUT: Ending.TIMEOUT,
    Reason.CPU: Ending.LIMIT,
    Reason.MEMORY: Ending.LIMIT,
    Reason.PROCESSES: Ending.LIMIT,
    Reason.OUTPUT: Ending.LIMIT,
}
_LAZY = re.compile(r"\b(?:next|islice|takewhile|break|zip|anext|send)\b")
_CHANGING = frozenset(
    [
        "append",
        "add",
        "update",
        "pop",
        "popitem",
        "popleft",
        "extend",
        "clear",
        "insert",
        "remove",
        "sort",
        "reverse",
        "discard",
        "setdefault",
        "assertIs",
        "assertIsNot",
        "id",
    ]
)
_IDENTITY = re.compile(rf"\bis\b|=|\bdel\b|\b(?:{'|'.join(_CHANGING)})\(")
_LONG = 300_000
"""Characters of tests that are a benchmark's, long for their data, and not read for what they need."""
_MODULES = {"candidate": ("values", "mirror", "peer"), "judge": ("values", "mirror", "peer", "mini_pytest", "suite")}


def check(
    program: str,
    tests: str,
    *,
    prelude: str = "",
    names: Sequence[str] | dict[str, str] = (),
    limits: Limits | None = None,
    packages: Sequence[str] = (),
    share: bool = False,
    unsafe: bool = False,
) -> Verdict:
    """Run a program, then tests that use what it defines. Any thread may call it.

    Args:
        program: Python text; its ``if __name__ == "__main__"`` part does not run.
        tests: Python text: statements, test functions and classes of pytest, or cases of unittest. They pass where all
            run to their end and something was asserted. A name they use is their own, else Python's, else a module of
            the standard library, else the program's; a module that they import and nobody installed is the program.
        prelude: Python text of trusted helpers, run before the tests; its names win over the program's.
        names: names that come from the program even where the prelude or Python has them; where a dict, what each
            stands for, such as ``Solution().twoSum``.
        limits: of the program; where None, 10 s of processor time. ``wall_s`` is for program and tests together.
        packages: third-party packages that both may import.
        share: go on after a failure, and say what share of the tests passed.
        unsafe: go on without isolation where the host gives none.

    Raises:
        RewardError: the tests do what cannot be done from outside the program's process, e.g. derive from its classes.
        SandboxUnavailable, SandboxError, ModuleNotFoundError: as ``rlpost.reward.sandbox.run``.
    """
    limits = limits or LIMITS
    wanted = names if isinstance(names, dict) else {name: name for name in names}
    settings = _settings(tests, prelude) | {"share": share, "packages": list(packages), "cpu_s": _TESTS_CPU_S}
    judges = _pool(tuple(packages), unsafe)
    with judges.lend() as judge, Session(limits, packages=packages, unsafe=unsafe) as candidate:
        check = _Check(candidate, judge, limits, settings)
        verdict = check.verdict(program, tests, prelude, wanted)
    if check.refused:
        raise RewardError(f"the tests cannot be judged: {check.refused}")
    return verdict


def passes_without_program(
    tests: str,
    prelude: str,
    names: dict[str, str],
    packages: Sequence[str] = (),
    idle: bool = False,
    unsafe: bool = False,
) -> bool:
    """Whether the tests pass where the program defines nothing, or (``idle``) where all it does is give None."""
    settings = _settings(tests, prelude) | {"share": False, "packages": list(packages), "cpu_s": _TESTS_CPU_S}
    block = _block(tests, prelude, names, settings)
    for stub in (_nothing, _idle) if idle else (_nothing,):
        said: dict[str, Any] = {}

        def answer(
            name: str, arguments: dict[str, Any], stub: Callable[[str], str] = stub, said: dict[str, Any] = said
        ) -> str | None:
            if name != "ask":
                said.update(arguments)
                return None
            return stub(json.loads(arguments["text"]).get("do", ""))

        with _pool(tuple(packages), unsafe).lend() as judge:
            if judge.execute(block, callback=answer).ok and said.get("ok"):
                return True
    return False


def _nothing(_: str) -> str:
    """What a program says that defines nothing."""
    error = {"error": [0, {"builtin": "NameError"}, ["it is not defined"]]}
    return json.dumps({"raised": True, "values": [error], "changed": {}, "classes": []})


def _idle(asked: str) -> str:
    """What a program says whose names are all functions that do nothing."""
    function = {"theirs": [0, {"type": "function"}, None]}
    names = asked in ("name", "path", "get")
    return json.dumps({"values": [function if names else None], "changed": {}, "classes": []})


def _block(tests: str, prelude: str, names: dict[str, str], settings: dict[str, Any]) -> str:
    return f"judge.run({tests!r}, {prelude!r}, {names!r}, {settings!r}, call)"


@lru_cache(maxsize=256)
def _settings(tests: str, prelude: str) -> dict[str, Any]:
    """What of the tests' text decides how they are run."""
    return {
        "classes": [name for name in _classes(prelude) if re.search(rf"\b{name}\b|_", tests)],
        "lasting": _looks_at_identity(tests),
        "lazy": _LAZY.search(tests) is not None,
        "input": re.search(r"\b(?:stdin|input)\b", tests) is not None and "import" in tests,
        "output": re.search(r"stdout|capsys|capfd|\bprint\b|StringIO", tests) is not None,
    }


def _classes(prelude: str) -> list[str]:
    """Classes of the prelude whose objects are but their attributes, such as nodes of lists and trees."""
    if "class " not in prelude:
        return []
    try:
        body = ast.parse(prelude).body
    except SyntaxError:
        return []
    return [node.name for node in body if isinstance(node, ast.ClassDef) and not node.bases]


def _looks_at_identity(tests: str) -> bool:
    """Whether tests ask for identity or change what they hold: containers must then stay the same from call to call."""
    if len(tests) > _LONG or not _IDENTITY.search(tests):
        return False
    try:
        return any(map(_needs_identity, ast.walk(ast.parse(tests))))
    except SyntaxError:
        return False


def _needs_identity(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        asked = any(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops)
        return asked and not any(isinstance(side, ast.Constant) for side in [node.left, *node.comparators])
    if isinstance(node, ast.Assign | ast.Delete):
        return any(isinstance(target, ast.Subscript) for target in node.targets)
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Subscript | ast.Attribute)
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return called in _CHANGING
    return False


class _TestsOver(Exception):
    """Nothing more is asked of the program; ends its session."""


class _Check:
    """One check: the program's session answers in a thread of its own, the tests' in the caller's."""

    def __init__(self, candidate: Session, judge: Session, limits: Limits, settings: dict[str, Any]) -> None:
        self.candidate, self.judge, self.settings = candidate, judge, settings
        self.started = time.monotonic()
        self.end = self.started + limits.wall_s
        self.lost: Outcome | None = None
        """What the program's process came to, where that was not an answer."""
        self.failed: SandboxError | None = None
        self.refused = ""
        self.found: dict[str, Any] = {}
        self._asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def verdict(self, program: str, tests: str, prelude: str, names: dict[str, str]) -> Verdict:
        loaded = self.candidate.execute(_install("candidate"))
        if loaded.ok:
            loaded = self.candidate.execute(f"candidate.load({program!r})", self._left())
        if not loaded.ok:
            return self._verdict(ENDINGS.get(loaded.reason, Ending.BROKEN), loaded)
        server = threading.Thread(target=self._serve, daemon=True)
        server.start()
        try:
            self._said.get()
            said = self.judge.execute(_block(tests, prelude, names, self.settings), self._left(), self._relay)
        finally:
            self._asked.put(None)
            server.join()
        if self.failed is not None:
            raise self.failed
        if self.lost is not None:  # whatever the tests made of it
            return self._verdict(ENDINGS.get(self.lost.reason, Ending.BROKEN), self.lost)
        if said.ok and self.found.get("ok") and self.found["asserted"]:
            return self._verdict(Ending.PASSED, replace(said, stderr=""))
        if said.ok:
            return self._verdict(Ending.FAILED, replace(said, stderr="the tests ended before they asserted anything"))
        return self._verdict(ENDINGS.get(said.reason, Ending.FAILED), said)

    def _left(self) -> float:
        return max(0.01, self.end - time.monotonic())

    def _serve(self) -> None:
        """Let the program's side answer until nothing more is asked, or it is lost."""
        block = f"candidate.serve(call, {self.settings!r})"
        try:
            outcome = self.candidate.execute(block, self._left(), self._hand_over)
            self.lost = outcome if not outcome.ok else replace(outcome, detail="the program left during a test")
        except _TestsOver:
            pass
        except SandboxError as error:
            self.failed = error
        finally:
            self._said.put(None)

    def _hand_over(self, _: str, arguments: dict[str, Any]) -> str:
        """What the program's side says goes to the tests' side; the next question comes back."""
        self._said.put(str(arguments.get("text")))
        asked = self._asked.get()
        if asked is None:
            raise _TestsOver
        return asked

    def _relay(self, name: str, arguments: dict[str, Any]) -> str | None:
        """Hand a message of the tests' side to the program's side, and its next one back."""
        if name == "verdict":
            self.found = arguments
        elif name == "refused":
            self.refused = str(arguments["why"])
        elif self.lost is None:
            self._asked.put(arguments["text"])
            said = self._said.get()
            if said is not None:
                return said
        if name == "ask":
            raise CallError("the program gives no answer")
        return None

    def _verdict(self, ending: Ending, outcome: Outcome) -> Verdict:
        detail = outcome.stderr.strip()[-2000:] or outcome.detail
        asserted, total = int(self.found.get("asserted", 0)), int(self.found.get("total", 0))
        share = float(ending is Ending.PASSED)
        if self.settings["share"] and total and asserted:
            share = int(self.found["passed"]) / total
        return Verdict(ending, detail, time.monotonic() - self.started, share, asserted)


@cache
def _install(side: str) -> str:
    """A block that makes one side and what it needs importable in a session that has no files of ours."""
    names = [f"rlpost.reward.code.{name}" for name in (*_MODULES[side], side)]
    folder = Path(__file__).parent
    texts = {name: (folder / f"{name.rpartition('.')[2]}.py").read_text() for name in names}
    codes = [(name, compile(text, f"<{name}>", "exec", optimize=2)) for name, text in texts.items()]
    packed = base64.b64encode(marshal.dumps(codes)).decode()
    return f"""
import base64, marshal, sys, types
for _name in ("rlpost", "rlpost.reward", "rlpost.reward.code"):
    sys.modules[_name] = types.ModuleType(_name)
for _name, _code in marshal.loads(base64.b64decode({packed!r})):
    sys.modules[_name] = types.ModuleType(_name)
    exec(_code, sys.modules[_name].__dict__)
    setattr(sys.modules["rlpost.reward.code"], _name.rpartition(".")[2], sys.modules[_name])
{side} = sys.modules["rlpost.reward.code.{side}"]
"""


@cache
def _pool(packages: tuple[str, ...], unsafe: bool) -> SessionPool:
    """Sessions for tests: these are the data set's, so one session may run many."""

    def make() -> Session:
        session = Session(_JUDGE_LIMITS, packages=packages, unsafe=unsafe)
        installed = session.execute(_install("judge"))
        assert installed.ok, installed.stderr
        return session

    return SessionPool(make, turns=200)
