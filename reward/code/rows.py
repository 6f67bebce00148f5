"""From a completion and a row of a code data set to a program, its tests, and a score.

A row has ``test`` with ``entry_point`` and ``prompt`` (HumanEval's shape; LeetCode's with ``Solution().name``;
BigCodeBench's unittest), ``test_list`` with ``test_setup_code`` or ``test_imports`` (MBPP's), a test file in ``test``
(KodCode's), or inputs and outputs (``cases``). Left out: loading the data sets.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rlpost.reward import sandbox
from rlpost.reward.answers import column
from rlpost.reward.code import suite
from rlpost.reward.code.cases import Cases, read_cases
from rlpost.reward.code.check import LIMITS, Ending, Verdict, check, passes_without_program
from rlpost.reward.code.extract import defines, extract_code, parsed
from rlpost.reward.code.stdio import judge_cases
from rlpost.reward.pool import at_once
from rlpost.reward.score import RewardError, Score, checked_by

_FUTURE = re.compile(r"^from __future__ import .*\n?", re.MULTILINE)
_DEFINES_CHECK = re.compile(r"^def check\(\w", re.MULTILINE)
_CANDIDATE = "__candidate__"
_LONG = 300_000
"""Characters of tests that are taken as they are: a benchmark's, long for its data."""


@dataclass(frozen=True, slots=True)
class Tests:
    """What a row says of its program.

    Attributes:
        text: the tests.
        prelude: trusted text that runs before the tests, and before the program.
        names: names that come from the program, and what each stands for.
        wanted: what the program must define, one of them at least.
        cases: inputs and outputs, where the tests are these.
    """

    text: str = ""
    prelude: str = ""
    names: tuple[tuple[str, str], ...] = ()
    wanted: tuple[str, ...] = ()
    cases: Cases | None = None


def examine(rows: Sequence[Mapping[str, Any]], packages: Sequence[str] = ("numpy",)) -> None:
    """Refuse rows whose tests would pay for nothing, before anything is trained on them.

    Raises:
        RewardError: names the first of them: it has no tests; nothing in them asserts; an empty program passes, or one
            whose functions do nothing; or they cannot be judged. Or a package is not installed.
    """
    for name in packages:
        if name != "numpy" and importlib.util.find_spec(name) is None:
            raise RewardError(f"the reward's option 'packages' names '{name}', which is not installed here")
    with ThreadPoolExecutor(at_once()) as pool:
        found = list(pool.map(lambda row: _fault(row, packages), rows))
    bad = [(number, fault) for number, fault in enumerate(found) if fault]
    if bad:
        raise RewardError(
            f"row {bad[0][0]}: {bad[0][1]} ({len(bad)} of {len(rows)} rows cannot be judged by their tests; leave them "
            "out or mend them)"
        )


def _fault(task: Mapping[str, Any], packages: Sequence[str]) -> str:
    try:
        tests = read_tests(task)
        if tests.cases is None and sandbox.isolation() is not None:
            _refuse_empty(tests, _imported(packages, tests.text))
    except RewardError as error:
        return str(error)
    return ""


@checked_by(examine)
def reward(
    completion: str,
    task: Mapping[str, Any],
    share: bool = False,
    packages: Sequence[str] = ("numpy",),
    memory_mib: int | None = None,
) -> Score:
    """1 where the program in the completion passes all tests of the row, else 0 (or the share of them that it passes).

    Args:
        completion: the model's text.
        task: the row.
        share: give the share of tests passed instead of 0.
        packages: third-party packages that programs and tests may import, where they are installed here.
        memory_mib: of a program; 1024 where neither this nor the row's column ``memory_mib`` says.

    ``parts``: ``broken`` (the program itself does not run) and ``stopped`` (out of time or another limit).

    Raises:
        RewardError: the row has no tests that could fail, or tests that cannot be judged.
        SandboxUnavailable: this host gives no isolation.
    """
    tests = read_tests(task)
    code = extract_code(completion, tests.wanted, tests.prelude)
    verdict = _judged(code, tests, share, packages, memory_mib or task.get("memory_mib"))
    if verdict.passed and tests.cases is None:
        _refuse_empty(tests, _imported(packages, tests.text))
    parts = {
        "broken": float(verdict.ending is Ending.BROKEN),
        "stopped": float(verdict.ending in (Ending.TIMEOUT, Ending.LIMIT)),
    }
    return Score(verdict.share, parts)


@lru_cache(maxsize=1024)
def _refuse_empty(tests: Tests, packages: tuple[str, ...]) -> None:
    idle = bool(tests.prelude)  # an empty answer goes on with its function's head
    if passes_without_program(tests.text, tests.prelude, dict(tests.names), packages, idle):
        raise RewardError("the row's tests pass where there is no program, or where its functions do nothing")


def _judged(code: str, tests: Tests, share: bool, packages: Sequence[str], memory_mib: Any) -> Verdict:
    limits = LIMITS if memory_mib is None else replace(LIMITS, memory_mib=int(memory_mib))
    used = _imported(packages, f"{tests.text}\n{code}")
    if tests.cases is not None and not tests.cases.function:
        return judge_cases(code, tests.cases.pairs, limits=limits, packages=used, share=share)
    names = dict(tests.names)
    if tests.cases is not None:
        names = {"__function__": _callee(code, tests.cases.function)}
    program = assemble(code, tests.prelude, tests.wanted)
    return check(program, tests.text, prelude=tests.prelude, names=names, limits=limits, packages=used, share=share)


def assemble(code: str, prelude: str, wanted: Sequence[str]) -> str:
    """The program: the prelude (without the tests' helpers it would lack names), then the code, which defines what is
    wanted or goes on with the prelude's last function."""
    if not prelude:
        return code
    anew = defines(code, wanted) or parsed(prelude + code) is None
    futures = "".join(_FUTURE.findall(code))
    return f"{futures}{prelude}\n{_FUTURE.sub('', code)}" if anew else prelude + code


def read_tests(task: Mapping[str, Any]) -> Tests:
    """What a row says of its program.

    Raises:
        RewardError: it has no tests, or none that can be run.
    """
    try:
        cases = read_cases(task)
    except (KeyError, TypeError) as error:
        raise RewardError(f"the row's inputs and outputs cannot be read: {type(error).__name__}: {error}") from error
    if cases is not None:
        if not cases.function and not any(wanted.strip() for _, wanted in cases.pairs):
            raise RewardError("every case of the row wants an empty output: a program that does nothing passes")
        wanted = (cases.function, "Solution") if cases.function else ()
        starter = _prelude(task.get("starter_code"), needs="import")
        return Tests(cases.tests() if cases.function else "", starter, (), wanted, cases)
    entry = str(task.get("entry_point") or _last_function(task))
    tests = _with_entry(task, entry) if entry else _listed(task)
    _refuse_silent(tests.text)
    return tests


def _last_function(task: Mapping[str, Any]) -> str:
    """What tests with a ``check(candidate)`` and no ``entry_point`` are about: the last function of the prompt."""
    tests, prompt = task.get("test", task.get("tests")), task.get("prompt")
    if not isinstance(tests, str) or not isinstance(prompt, str) or not _DEFINES_CHECK.search(tests):
        return ""
    return next(iter(re.findall(r"^def\s+(\w+)", prompt, re.MULTILINE)[::-1]), "")


def _with_entry(task: Mapping[str, Any], entry: str) -> Tests:
    text = _code(task, "test", "tests")
    plain = entry.isidentifier()
    name = entry if plain and entry != "check" else _CANDIDATE
    if _DEFINES_CHECK.search(text) and not re.search(r"^check\(", text, re.MULTILINE):
        text = f"{text}\ncheck({name})"
    prelude = _prelude(task.get("prompt"), needs="")
    wanted = (entry,) if plain else tuple(re.findall(r"\w+", entry)[:1])
    return Tests(text, prelude, ((name, entry),), wanted)


def _prelude(prompt: Any, needs: str) -> str:
    """A prompt, as far as it is Python that may run: definitions, imports and constants."""
    text = prompt if isinstance(prompt, str) and needs in prompt else ""
    tree = parsed(text) if re.search(r"^(?:async def|def|class|import|from|@)\b", text, re.MULTILINE) else None
    harmless = (
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
    )
    if tree is None or not all(isinstance(node, harmless) or _is_text(node) for node in tree.body):
        return ""
    return text if text.endswith("\n") else f"{text}\n"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _listed(task: Mapping[str, Any]) -> Tests:
    setup = [str(task[name]) for name in ("test_setup_code",) if task.get(name)]
    imports = [str(line) for line in task.get("test_imports") or ()]
    text = "\n".join([*imports, *setup, _code(task, "test_list", "tests", "test")])
    reference = str(task.get("code") or task.get("solution") or task.get("canonical_solution") or "")
    defined = re.findall(r"^(?:async def|def|class)\s+(\w+)", reference, re.MULTILINE)
    used = [name for name in defined if re.search(rf"\b{name}\b", text)]
    hidden = [(name, name) for name in used if not _defines_itself(text, name)]
    if _DEFINES_CHECK.search(text) and not re.search(r"^\s*check\(", text, re.MULTILINE):
        raise RewardError("the row's tests define 'check(candidate)' and nothing calls it: it needs 'entry_point'")
    wanted = tuple(used) or _names_asked_for(text)
    return Tests(text, "", tuple(hidden) if not re.search(r"\bimport (?:\w+, )*\*|^from ", text, re.M) else (), wanted)


def _defines_itself(text: str, name: str) -> bool:
    return re.search(rf"^(?:def|class)\s+{name}\b", text, re.MULTILINE) is not None


def _code(task: Mapping[str, Any], *names: str) -> str:
    """Test code in one of these columns: a text, a list of texts, or such a list as JSON."""
    given = column(task, *names)
    if isinstance(given, str) and given.lstrip().startswith("["):
        listed = parsed(given)
        given = ast.literal_eval(given) if listed and isinstance(listed.body[0], ast.Expr) else given
    lines = [given] if isinstance(given, str) else given
    if not isinstance(lines, Sequence) or not all(isinstance(line, str) for line in lines):
        raise RewardError(f"the task's tests are neither code nor a list of code: {given!r:.80}")
    text = "\n".join(lines)
    if not text.strip():
        raise RewardError(f"the task's tests are empty: {given!r:.80}")
    return text


@lru_cache(maxsize=256)
def _refuse_silent(text: str) -> None:
    """Refuse tests in which nothing asserts, whatever the program, and those that cannot be judged from outside it."""
    if len(text) > _LONG:
        return
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise RewardError(f"the row's tests are not Python: {error}") from None
    if not any(suite.asserts(node) for node in ast.walk(tree)):
        raise RewardError(f"nothing in the row's tests asserts anything: {text.strip()!r:.120}")
    ours = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)} | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = str(getattr(node, "module", None) or node.names[0].name).partition(".")[0]
            known = module in sys.stdlib_module_names or module in ("pytest", "numpy")
            ours |= {alias.asname or alias.name for alias in node.names} if known else set()
    for node in ast.walk(tree):
        foreign = [base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name) and base.id not in ours]
        if isinstance(node, ast.ClassDef) and foreign:
            raise RewardError(
                f"the row's tests cannot be judged: line {node.lineno} derives the class '{node.name}' from the "
                f"program's '{foreign[0]}', whose methods would run in the program's process"
            )


def _names_asked_for(text: str) -> tuple[str, ...]:
    """What tests use and neither they nor Python define: the program's."""
    tree = parsed(text) if len(text) < _LONG else None
    if tree is None:
        return ()
    foreign: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] not in sys.stdlib_module_names:
            foreign += [alias.name for alias in node.names if node.module != "pytest" and alias.name != "*"]
    if foreign:
        return tuple(foreign)
    bound = {name for node in ast.walk(tree) for name in _binds(node)}
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    known = bound | set(dir(builtins)) | set(sys.stdlib_module_names) | {"pytest", "np", "numpy"}
    return tuple(dict.fromkeys(name for name in used if name not in known))


def _binds(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return [node.name] if isinstance(node, ast.ExceptHandler) and node.name else []


def _callee(code: str, function: str) -> str:
    """A function of that name, or else a method of the class ``Solution``."""
    return function if defines(code, [function]) or not defines(code, ["Solution"]) else f"Solution().{function}"


def _imported(packages: Sequence[str], text: str) -> tuple[str, ...]:
    """Those of the packages that a text imports and that are installed."""
    used = [name for name in packages if re.search(rf"^\s*(?:import|from)\s+{re.escape(name)}\b", text, re.MULTILINE)]
    return tuple(name for name in used if importlib.util.find_spec(name) is not None)
