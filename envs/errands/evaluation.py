"""Judging a finished world: what was to change has changed, nothing else has, and the answer is right.

    requirement of the task          a world in which nothing was done   label
    each expected change             fails                               no_op_fail
    the answer, where one is asked   fails                               no_op_fail
    no answer, where none is asked   fails: the task is not completed    no_op_fail
    no other change                  passes                              no_op_pass

As in AppWorld the answers are compared once the task is completed, and so a solver that completes such a task at once
passes a test that doing nothing fails. Left out: how reward is made of it (envs/appworld_reward.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlpost.envs.errands.state import Row, Snapshot

Kind = Literal["added", "removed", "updated"]
NOT_COMPARED = frozenset({"id", "updated_at"})
"""Columns that may differ as they like in a change that was expected."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row that differs: ``before`` is empty where added, ``after`` where removed."""

    table: str
    kind: Kind
    before: Row
    after: Row


@dataclass(frozen=True, slots=True)
class Expected:
    """One change the task asks for.

    Attributes:
        requirement: it in words.
        row_id: of the row that changes or goes; None for one to be added.
        values: columns of the new row, or those that change (all others must stay); a value may be a predicate.
    """

    requirement: str
    table: str
    kind: Kind
    row_id: int | None = None
    values: Mapping[str, Any | Callable[[Any], bool]] = field(default_factory=dict)

    def fits(self, change: Change) -> bool:
        """Whether a change is this one."""
        if (change.table, change.kind) != (self.table, self.kind):
            return False
        if self.row_id is not None and change.before.get("id") != self.row_id:
            return False
        if self.kind == "updated":
            differing = {name for name in change.after if change.after[name] != change.before[name]}
            if differing - NOT_COMPARED != set(self.values):
                return False
        return all(_agrees(change.after.get(name), wanted) for name, wanted in self.values.items())


@dataclass(slots=True)
class Verdict:
    """Tests passed and failed, as an AppWorld server lists them."""

    difficulty: int
    passes: list[dict[str, str]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def success(self) -> bool:
        """Whether all tests passed."""
        return not self.failures

    @property
    def num_tests(self) -> int:
        """How many tests there are."""
        return len(self.passes) + len(self.failures)

    def add(self, requirement: str, label: Literal["no_op_fail", "no_op_pass"], trace: str = "") -> None:
        """Note a test: failed where ``trace`` says why."""
        if trace:
            self.failures.append({"requirement": requirement, "trace": trace, "label": label})
        else:
            self.passes.append({"requirement": requirement, "label": label})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "success": self.success,
            "difficulty": self.difficulty,
            "num_tests": self.num_tests,
            "passes": self.passes,
            "failures": self.failures,
        }


def difference(before: Snapshot, after: Snapshot) -> list[Change]:
    """Every row that was added, removed or updated."""
    changes = []
    for table, old in before.items():
        new = after[table]
        changes += [Change(table, "removed", old[row_id], {}) for row_id in old.keys() - new.keys()]
        changes += [Change(table, "added", {}, new[row_id]) for row_id in new.keys() - old.keys()]
        both = old.keys() & new.keys()
        changes += [Change(table, "updated", old[i], new[i]) for i in both if old[i] != new[i]]
    return changes


def judge(
    difficulty: int,
    expected: Sequence[Expected],
    changes: Sequence[Change],
    wanted_answer: Any,
    answer: Any,
    completed: bool,
) -> Verdict:
    """The verdict on one episode, ``completed`` or not. Each change counts for one expectation at most."""
    verdict = Verdict(difficulty)
    left = list(changes)
    for expectation in expected:
        found = next((change for change in left if expectation.fits(change)), None)
        if found is not None:
            left.remove(found)
        verdict.add(expectation.requirement, "no_op_fail", "" if found else "AssertionError: there is no such change")
    others = ", ".join(sorted(f"{change.kind} a row of {change.table}" for change in left))
    verdict.add("Nothing else is changed.", "no_op_pass", f"AssertionError: {others}" if left else "")
    right = answer is None if wanted_answer is None else same_answer(answer, wanted_answer)
    wrong = f"AssertionError: {answer!r}" if completed else "AssertionError: the task is not completed"
    verdict.add("The answers match.", "no_op_fail", "" if right and completed else wrong)
    return verdict


def same_answer(given: Any, wanted: Any) -> bool:
    """Numbers by value, words without regard to case and surrounding space."""
    if given is None:
        return False
    left, right = (str(value).strip().lower().removeprefix("$") for value in (given, wanted))
    try:
        return math.isclose(float(left), float(right), abs_tol=1e-6)
    except ValueError:
        return left == right


def _agrees(value: Any, wanted: Any) -> bool:
    return bool(wanted(value)) if callable(wanted) else value == wanted
