"""Whether a program passes tests: the program in one sandbox, the tests in another, plain values between them.

The verdict is the tests' process's own, so a program cannot fake it: it can neither read the tests, nor replace what
they compare with, nor end them early. Left out: tests by standard input and output.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from rlpost.reward.pool import SessionPool
from rlpost.reward.sandbox import CallError, Limits, Outcome, Reason, Session


class Ending(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"  # a test raised, most often AssertionError
    BROKEN = "broken"  # the program itself raised, crashed, or left
    TIMEOUT = "timeout"
    LIMIT = "limit"  # memory, processes, output, processor time


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check; ``detail`` is the end of the traceback, or what was exceeded."""

    ending: Ending
    detail: str = ""
    wall_s: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all tests ran and none failed."""
        return self.ending is Ending.PASSED


_LIMITS = Limits(wall_s=30.0, cpu_s=10.0, memory_mib=1024, processes=32)
_JUDGE_LIMITS = Limits(wall_s=10.0, cpu_s=36_000.0, memory_mib=2048, processes=32)
_ENDINGS = {
    Reason.TIMEOUT: Ending.TIMEOUT,
    Reason.CPU: Ending.LIMIT,
    Reason.MEMORY: Ending.LIMIT,
    Reason.PROCESSES: Ending.LIMIT,
    Reason.OUTPUT: Ending.LIMIT,
}


def check(
    program: str,
    tests: str,
    *,
    prelude: str = "",
    names: Sequence[str] = (),
    limits: Limits | None = None,
    packages: Sequence[str] = (),
    unsafe: bool = False,
) -> Verdict:
    """Run a program, then tests that use what it defines. Any thread may call it.

    Args:
        program: Python text; its ``if __name__ == "__main__"`` part does not run.
        tests: Python text; they pass where it runs to its end. A name it uses is its own, else Python's, else a module
            of the standard library, else the program's.
        prelude: Python text of trusted helpers, run before the tests; its names win over the program's.
        names: names that come from the program even where the prelude or Python has them.
        limits: of the program; where None, 10 s of processor time, which a busy machine does not change. ``wall_s``
            (30 s where None) is for program and tests together.
        packages: third-party packages that both may import.
        unsafe: go on without isolation where the host gives none.

    Raises:
        SandboxUnavailable, SandboxError, ModuleNotFoundError: as ``rlpost.reward.sandbox.run``.
    """
    limits = limits or _LIMITS
    judges = _pool(tuple(packages), unsafe)
    with judges.lend() as judge, Session(limits, packages=packages, unsafe=unsafe) as candidate:
        return _Check(candidate, judge, limits).verdict(program, tests, prelude, names)


class _Check:
    def __init__(self, candidate: Session, judge: Session, limits: Limits) -> None:
        self.candidate, self.judge = candidate, judge
        self.started = time.monotonic()
        self.end = self.started + limits.wall_s
        self.lost: Outcome | None = None
        """What the program's process came to, where that was not an answer."""

    def verdict(self, program: str, tests: str, prelude: str, names: Sequence[str]) -> Verdict:
        loaded = self.candidate.execute(_install("candidate"))
        if loaded.ok:
            loaded = self.candidate.execute(f"candidate.load({program!r})", self._left())
        if not loaded.ok:
            return self._verdict(_ENDINGS.get(loaded.reason, Ending.BROKEN), loaded)
        block = f"judge.run({tests!r}, {prelude!r}, {list(names)!r}, call)"
        said = self.judge.execute(block, self._left(), self._relay)
        if self.lost is not None:  # whatever the tests made of it
            return self._verdict(_ENDINGS.get(self.lost.reason, Ending.BROKEN), self.lost)
        if said.ok:
            return self._verdict(Ending.PASSED, replace(said, stderr=""))
        return self._verdict(_ENDINGS.get(said.reason, Ending.FAILED), said)

    def _left(self) -> float:
        return max(0.01, self.end - time.monotonic())

    def _relay(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Hand a request of the tests to the program's process; its reply, as far as it is one."""
        replies: list[dict[str, Any]] = []
        block = f"candidate.answer({arguments['request']!r}, call)"
        if self.lost is None:
            outcome = self.candidate.execute(block, self._left(), lambda _, reply: replies.append(reply))
            if not outcome.ok or not replies:
                self.lost = outcome if not outcome.ok else replace(outcome, detail="the program left during a test")
        if self.lost is not None:
            raise CallError("the program gives no answer")
        return replies[-1]

    def _verdict(self, ending: Ending, outcome: Outcome) -> Verdict:
        detail = outcome.stderr.strip()[-2000:] or outcome.detail
        return Verdict(ending, detail, time.monotonic() - self.started)


@cache
def _install(side: str) -> str:
    """A block that makes ``values`` and one side importable in a session that has no files of ours."""
    texts = {
        f"rlpost.reward.code.{name}": Path(__file__).with_name(f"{name}.py").read_text() for name in ("values", side)
    }
    return f"""
import sys, types
for _name in ("rlpost", "rlpost.reward", "rlpost.reward.code"):
    sys.modules[_name] = types.ModuleType(_name)
for _name, _text in {texts!r}.items():
    sys.modules[_name] = types.ModuleType(_name)
    exec(compile(_text, _name, "exec"), sys.modules[_name].__dict__)
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
