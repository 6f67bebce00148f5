"""Programs that read standard input and write standard output, one run a case; the output is compared outside.

``judge_cases`` is the host's side, ``_RUNNER`` what happens in the sandbox session: a fork a case, with files for input
and output. Left out: interactive tasks and tasks with several right outputs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from rlpost.reward.code.check import ENDINGS, LIMITS, Ending, Verdict
from rlpost.reward.sandbox import Limits, Session

_TOLERANCE = 1e-6
_LONGEST_SITTING = 6
"""Times one case's processor time that all cases together may use."""
_RUNNER = """
def run_cases(program, inputs, cpu_s, call):
    import os, resource, sys, threading, atexit, types, builtins, linecache
    code = compile(program, "<program>", "exec", dont_inherit=True)
    linecache.cache["<program>"] = (len(program), None, program.splitlines(keepends=True), "<program>")

    def child():
        for number, (path, flags) in enumerate((("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))):
            descriptor = os.open(path, flags | (os.O_CREAT | os.O_TRUNC if number else 0), 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.closerange(3, 256)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, hard))
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", 1, closefd=False, errors="backslashreplace")
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = builtins
        status = 0
        try:
            exec(code, main.__dict__)
        except SystemExit as error:
            status = 0 if error.code is None else error.code & 255 if isinstance(error.code, int) else 1
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 1
        for step in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush):
            try:
                step()
            except BaseException:
                status = 1
        leave(status)

    leave = os._exit
    for number, text in enumerate(inputs):
        with open("in", "w") as file:
            file.write(text)
        pid = os.fork()
        if pid == 0:
            try:
                child()
            finally:
                leave(70)
        _, status, used = os.wait4(pid, 0)
        with open("out", errors="replace") as out, open("err", errors="replace") as err:
            written, said = out.read(1 << 22), err.read()[-1000:]
        signal = status & 127
        if not call("output", case=number, code=status >> 8, signal=signal, out=written, err=said):
            return
"""


def judge_cases(
    program: str,
    cases: Sequence[tuple[str, str]],
    *,
    limits: Limits | None = None,
    packages: Sequence[str] = (),
    share: bool = False,
    unsafe: bool = False,
) -> Verdict:
    """Run a program once a case.

    Args:
        program: Python text; it runs as ``__main__``.
        cases: (standard input, the output wanted) of each.
        limits: processor time is that of one case; of all cases together, six times as much.
        packages: third-party packages that it may import.
        share: go on after a failure, and say what share of the cases passed.
        unsafe: go on without isolation where the host gives none.

    Raises:
        SandboxUnavailable, SandboxError, ModuleNotFoundError: as ``rlpost.reward.sandbox.run``.
    """
    limits = limits or LIMITS
    started = time.monotonic()
    whole = replace(limits, cpu_s=limits.cpu_s * min(_LONGEST_SITTING, len(cases)) + 1)
    passed: list[bool] = []
    ending, detail = Ending.FAILED, ""

    def weigh(_: str, said: dict[str, Any]) -> bool:
        nonlocal ending, detail
        wanted, number = cases[len(passed)][1], len(passed) + 1
        clean = said.get("code") == 0 and said.get("signal") == 0
        good = clean and same_output(str(said.get("out")), wanted)
        passed.append(good)
        if not good and not detail:
            ending, detail = _why(said, number, wanted)
        return share or good

    with Session(whole, packages=packages, unsafe=unsafe) as session:
        outcome = session.execute(_RUNNER)
        inputs = [given for given, _ in cases]
        if outcome.ok:
            block = f"run_cases({program!r}, {inputs!r}, {math.ceil(limits.cpu_s)}, call)"
            outcome = session.execute(block, limits.wall_s, weigh)
    if all(passed) and len(passed) == len(cases) and outcome.ok:
        return Verdict(Ending.PASSED, "", time.monotonic() - started, 1.0, len(cases))
    if not detail:
        ending = ENDINGS.get(outcome.reason, Ending.BROKEN)
        detail = outcome.stderr.strip()[-2000:] or outcome.detail or "the program left before its cases were over"
    return Verdict(ending, detail, time.monotonic() - started, sum(passed) / len(cases) if share else 0.0, len(passed))


def _why(said: dict[str, Any], number: int, wanted: str) -> tuple[Ending, str]:
    if said.get("signal") in (24, 25, 9):
        return Ending.LIMIT, f"case {number}: it used more processor time or output than it may"
    if said.get("signal") or said.get("code"):
        return Ending.BROKEN, f"case {number}: {str(said.get('err')).strip() or said}"
    return Ending.FAILED, f"case {number}: wrote {str(said.get('out'))[:200]!r}, wanted {wanted[:200]!r}"


def same_output(written: str, wanted: str) -> bool:
    """Whether an output is the one wanted: line by line without the spaces at their ends, numbers with a decimal point
    within 1e-6 (relative or absolute), as LiveCodeBench and APPS compare."""
    ours, theirs = _lines(written), _lines(wanted)
    if ours == theirs:
        return True
    return len(ours) == len(theirs) and all(
        one == other or _same_words(one.split(), other.split()) for one, other in zip(ours, theirs, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _same_words(ours: list[str], theirs: list[str]) -> bool:
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        ours, theirs = Decimal(one), Decimal(other)
    except InvalidOperation:
        return False
    if not (ours.is_finite() and theirs.is_finite()):
        return False
    if not any(mark in other.lower() for mark in ".e"):
        return ours == theirs
    return math.isclose(float(ours), float(theirs), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
