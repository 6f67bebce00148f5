"""From a completion and a row of a code benchmark to a program, its tests, and a score.

A row has ``test`` with ``entry_point`` and ``prompt`` (HumanEval's shape), or ``test_list`` with ``test_setup_code`` or
``test_imports`` (MBPP's). Left out: loading the benchmarks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.reward.answers import column
from rlpost.reward.code.check import Ending, check
from rlpost.reward.score import RewardError, Score

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


def extract_code(completion: str) -> str:
    """What the last fenced block marked as Python holds, else the last one of no language; else the text as it is."""
    blocks: dict[str, str] = {language.lower(): code for language, code in _FENCE.findall(completion)}
    for language in ("python", "python3", "py", ""):
        if language in blocks:
            return blocks[language]
    return completion


def reward(completion: str, task: Mapping[str, Any]) -> Score:
    """1 where the program in the completion passes all tests of the row, else 0.

    ``parts``: ``broken`` (the program itself does not run) and ``stopped`` (out of time or another limit).

    Raises:
        RewardError: the row has no tests.
        SandboxUnavailable: this host gives no isolation.
    """
    code = extract_code(completion)
    if "entry_point" in task:
        entry = str(task["entry_point"])
        prelude = str(task.get("prompt", ""))
        prelude = prelude if defines(prelude, entry) else ""
        # a completion that goes on with the prompt's function, or one that writes it anew
        program = f"{prelude}\n{code}" if defines(code, entry) else f"{prelude}{code}"
        tests = f"{column(task, 'test', 'tests')}\ncheck({entry})"
        verdict = check(program, tests, prelude=prelude, names=[entry], packages=_packages(tests))
    else:
        tests = _listed_tests(task)
        verdict = check(code, tests, names=_wanted(str(task.get("code", "")), tests), packages=_packages(tests))
    parts = {
        "broken": float(verdict.ending is Ending.BROKEN),
        "stopped": float(verdict.ending in (Ending.TIMEOUT, Ending.LIMIT)),
    }
    return Score(float(verdict.passed), parts)


def defines(text: str, name: str) -> bool:
    """Whether a text defines a function of this name at its outermost level."""
    return re.search(rf"^(?:async )?def {re.escape(name)}\b", text, re.MULTILINE) is not None


def _packages(tests: str) -> tuple[str, ...]:
    """EvalPlus' tests compare with numpy; of a task whose tests do, the program may use it too."""
    return ("numpy",) if re.search(r"^\s*(?:import|from) numpy\b", tests, re.MULTILINE) else ()


def _wanted(reference: str, tests: str) -> list[str]:
    """What the reference solution defines and the tests use; it may have the name of a built-in function."""
    defined = re.findall(r"^(?:def|class)\s+(\w+)", reference, re.MULTILINE)
    return [name for name in defined if re.search(rf"\b{name}\b", tests)]


def _listed_tests(task: Mapping[str, Any]) -> str:
    listed = column(task, "test_list", "tests", "test")
    setup = [str(task[name]) for name in ("test_setup_code",) if task.get(name)]
    imports = [str(line) for line in task.get("test_imports") or ()]
    lines = [listed] if isinstance(listed, str) else listed
    if not isinstance(lines, Sequence) or not any(str(line).strip() for line in lines):
        raise RewardError(f"the task's tests are empty: {listed!r}")
    return "\n".join([*imports, *setup, *map(str, lines)])
