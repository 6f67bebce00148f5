"""From the verdict on an AppWorld-style task to a reward, in which nothing that comes for nothing is paid.

A world that is left as it was passes tests, and so does one whose task is declared complete at once: what these two
pass is measured on each task, since a test's own label says only what the first of them passes. Left out: what
unfinished episodes get (appworld.py).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Verdict = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Tests of one task, by requirement and how many of each, that pass where nothing is done (``idle``), and where
    the task is declared complete and nothing else is done (``completed``)."""

    idle: Counter[str]
    completed: Counter[str]

    @classmethod
    def of(cls, idle: Verdict, completed: Verdict) -> Baseline:
        """From the verdicts on the two."""
        return cls(_names(idle["passes"]), _names(completed["passes"]))

    @property
    def free(self) -> Counter[str]:
        """Tests that pass for nothing."""
        return self.idle | self.completed


_measured: dict[Hashable, Baseline] = {}
_measuring: dict[Hashable, threading.Lock] = {}
_lock = threading.Lock()


def measured_once(task: Hashable, measure: Callable[[], Baseline]) -> Baseline:
    """What ``measure`` finds for a task, asked once in this process; others wait for it meanwhile."""
    with _lock:
        lock = _measuring.setdefault(task, threading.Lock())
    with lock:
        if task not in _measured:
            _measured[task] = measure()
        return _measured[task]


def no_op_excluded(verdict: Verdict, baseline: Baseline, completed: bool) -> float:
    """earned / (earned + failed), in [0, 1]: 0 for doing nothing and for giving up at once, 1 only where every test
    that counts passed, and less for damage.

    A passed test is earned unless it is free. A failed one counts unless it is free and the baseline of an episode
    that ended like this one (``completed`` or not) fails it too.
    """
    earned = _earned(verdict, baseline)
    alike = baseline.completed if completed else baseline.idle
    failed = (_names(verdict["failures"]) - (baseline.free - alike)).total()
    return earned / (earned + failed) if earned else 0.0


def paper_code(verdict: Verdict, baseline: Baseline, completed: bool) -> float:
    """passed / all tests, as LOOP's released code has it, and 0 where nothing was earned: there, doing nothing and
    giving up at once are paid."""
    passed, failed = len(verdict["passes"]), len(verdict["failures"])
    return passed / (passed + failed) if _earned(verdict, baseline) else 0.0


def _names(tests: Sequence[Mapping[str, Any]]) -> Counter[str]:
    return Counter(str(test["requirement"]) for test in tests)


def _earned(verdict: Verdict, baseline: Baseline) -> int:
    return (_names(verdict["passes"]) - baseline.free).total()


REWARDS: dict[str, Callable[[Verdict, Baseline, bool], float]] = {
    "no_op_excluded": no_op_excluded,
    "paper_code": paper_code,
}
"""By the name that ``env.options.reward`` has for them."""
