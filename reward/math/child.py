"""The child process that judges: a session of the sandbox with this folder's readers and SymPy in it.

It is interrupted where one judgement takes too long, killed where that does not help, and replaced. The readers go
over as source text, since a sandbox sees no file of this project. Left out: what they do (``judge``).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from rlpost.reward.pool import SessionPool
from rlpost.reward.sandbox import Limits, Session
from rlpost.reward.score import RewardError

LIMITS = Limits(wall_s=5.0, cpu_s=36_000.0, memory_mib=1024, processes=4)
_MODULES = ("normalise", "units", "expression", "values", "compare", "extract", "judge")
_SENT = r"""
import json, sys, types
for name, source in json.loads({sources!r}):
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
from rlpost.reward.math.judge import judge, problem
def verdict(answer, references, mode):
    found = judge(answer, tuple(references), mode)
    print(json.dumps([found.right, found.name[:400], found.as_text, found.problem]))
assert judge(r"\boxed{{\frac12}}", ("0.5",)).right and judge("It is 7.", ("7",)).right
assert judge(r"\boxed{{x + 1}}", ("1 + x",)).right and not judge("#### 3", ("4",)).right
import latex2sympy2_extended
total = latex2sympy2_extended.latex2sympy(r"\sum_{{k=1}}^n k")
assert str(total) == "Sum(k, (k, 1, n))", "math-verify's LaTeX parser does not work"
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """``gave_up``: too slow or too large to judge, and so wrong."""

    right: bool
    name: str = ""
    as_text: bool = False
    problem: str = ""
    gave_up: bool = False


def judged(answer: str, references: tuple[str, ...], mode: str) -> Judged:
    """One verdict; any thread may ask.

    Raises:
        RewardError: math-verify or SymPy is not installed.
        SandboxError: the child cannot be started.
    """
    with judges.lend() as session:
        outcome = session.execute(f"verdict({answer!r}, {references!r}, {mode!r})")
    if outcome.ok:
        return Judged(*json.loads(outcome.stdout))
    _log.info("an answer could not be judged: %s %s", outcome.reason, outcome.detail or outcome.stderr[-200:])
    return Judged(False, gave_up=True)


def problems(references: list[str]) -> list[str]:
    """Why nothing can be judged by each of these; empty where it can.

    Raises:
        As ``judged``.
    """
    with judges.lend() as session:
        outcome = session.execute(f"print(json.dumps([problem(one) for one in {references!r}]))", wall_s=60.0)
    if not outcome.ok:
        if len(references) == 1:
            return [f"it cannot be read: {outcome.detail or outcome.stderr[-200:]}"]
        return [one for reference in references for one in problems([reference])]
    found: list[str] = json.loads(outcome.stdout)
    return found


def new_judge() -> Session:
    """A session with the readers loaded."""
    folder = Path(__file__).parent
    sources = [(f"{__package__}.{name}", (folder / f"{name}.py").read_text()) for name in _MODULES]
    session = Session(LIMITS, packages=("math_verify",), unsafe=True)  # it runs no program of the model's
    loaded = session.execute(_SENT.format(sources=json.dumps(sources)), wall_s=60.0)
    if not loaded.ok:
        raise RewardError(f"the mathematics judge cannot be used: {loaded.stderr or loaded.detail}")
    return session


judges = SessionPool(new_judge, turns=2000)  # sympy's caches only grow
