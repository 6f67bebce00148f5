"""Mathematical answers: whether a text comes to the reference answer, judged by math-verify in a child process.

The child is a session of the sandbox: it is interrupted where one judgement takes too long, killed where that does not
help, and replaced. Left out: proofs, and answers that are sentences.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlpost.reward.answers import column
from rlpost.reward.pool import SessionPool
from rlpost.reward.sandbox import Limits, Session
from rlpost.reward.score import RewardError, Score

_LIMITS = Limits(wall_s=5.0, cpu_s=36_000.0, memory_mib=1024, processes=4)
_JUDGE = Path(__file__).with_name("math_judge.py").read_text()
_TRIAL = r"""
assert judge(r"\boxed{\frac12}", "0.5") and judge("It is 7.", "7") and not judge("#### 3", "4")
# math-verify says nothing where its LaTeX parser cannot be loaded: what only the parser can tell must come out right.
assert judge(r"\boxed{x + 1}", "1 + x") and judge(r"\boxed{5.0}", "5"), "its LaTeX parser does not work"
"""
_LONGEST_ANSWER = 200  # characters kept of what was found, for the log and for majority votes
_log = logging.getLogger(__name__)


def verify(answer: str, gold: str) -> bool:
    r"""Whether ``answer`` comes to ``gold``.

    The answer is what stands in its last ``\boxed{...}``, else after its last ``####``, else what math-verify finds in
    its last 4,000 characters (after "answer is", in LaTeX, or the last number). An answer whose judgement takes more
    than 5 s or 1 GiB is wrong. Any thread may call it.

    Args:
        answer: the model's whole text.
        gold: the reference: LaTeX or plain text, or a solution that ends in either mark.

    Raises:
        RewardError: ``gold`` is empty.
        SandboxError: the child cannot be started.
    """
    return _judged(answer, gold).solved


def score(completion: str, task: Mapping[str, Any]) -> Score:
    """1 where the completion comes to the reference in column ``answer`` (or else ``solution``), 0 elsewhere.

    ``parts``: ``unjudged`` is 1 where judging was given up.

    Raises:
        RewardError: neither column is there, or the reference is empty.
    """
    return _judged(completion, str(column(task, "answer", "solution")))


def gsm8k(completion: str, task: Mapping[str, Any]) -> Score:
    """As ``score``, for GSM8K's rows: their ``answer`` is a worked solution with the number after ``####``.

    Raises:
        RewardError: there is no such column or no such mark.
    """
    solution = str(column(task, "answer"))
    _, mark, number = solution.rpartition("####")
    if not mark:
        raise RewardError(f"column 'answer' has no '####', as GSM8K's has: {solution[:80]!r}")
    return _judged(completion, number.strip())


def _judged(answer: str, gold: str) -> Score:
    if not gold.strip():
        raise RewardError("the reference answer is empty")
    with _judges.lend() as session:
        outcome = session.execute(f"print(*judge_and_name({answer!r}, {gold!r}))")
    right, _, named = outcome.stdout.removesuffix("\n").partition(" ")
    if outcome.ok and right in ("True", "False"):
        return Score(float(right == "True"), {"unjudged": 0.0}, answer=named[:_LONGEST_ANSWER])
    _log.info("math-verify gave up on an answer: %s %s", outcome.reason, outcome.detail or outcome.stderr[-200:])
    return Score(0.0, {"unjudged": 1.0})


def _new_judge() -> Session:
    session = Session(_LIMITS, packages=("math_verify",), unsafe=True)  # it runs no program of the model's
    loaded = session.execute(_JUDGE + _TRIAL, wall_s=60.0)
    if not loaded.ok:
        raise RewardError(f"math-verify cannot be used: {loaded.stderr or loaded.detail}")
    return session


_judges = SessionPool(_new_judge, turns=2000)  # sympy's caches only grow
