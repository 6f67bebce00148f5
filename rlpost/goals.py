"""Task and scenario goal completion, as AppWorld defines them, over any episodes that name a scenario.

    TGC = mean over episodes of success            SGC = mean over scenarios of: all variants solved

Where a task was played several times, its i-th episode is held against the i-th of the scenario's other variants, and
a scenario counts with the mean over i. Left out: percent (these are shares in [0, 1]).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Outcome(Protocol):
    """What an episode came to; a Summary and a Trajectory are ones. Failed episodes count as not solved."""

    @property
    def task_id(self) -> str: ...
    @property
    def scenario(self) -> str: ...
    @property
    def difficulty(self) -> int: ...
    @property
    def success(self) -> bool: ...


class Played(NamedTuple):
    """An outcome in plain fields."""

    task_id: str
    scenario: str
    difficulty: int
    success: bool


def goal_completion(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """``tgc``, ``sgc``, and both for each difficulty that occurs: ``tgc/difficulty_1``. Episodes without a scenario are
    left out; empty where there is no other."""
    known = [outcome for outcome in outcomes if outcome.scenario]
    found = _completion(known, "")
    for difficulty in sorted({outcome.difficulty for outcome in known} - {0}):
        found |= _completion([one for one in known if one.difficulty == difficulty], f"/difficulty_{difficulty}")
    return found


def _completion(outcomes: list[Outcome], suffix: str) -> dict[str, float]:
    if not outcomes:
        return {}
    scenarios: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        scenarios[outcome.scenario][outcome.task_id].append(outcome.success)
    solved = [_all_variants(list(variants.values())) for variants in scenarios.values()]
    tasks = sum(outcome.success for outcome in outcomes) / len(outcomes)
    return {f"tgc{suffix}": tasks, f"sgc{suffix}": sum(solved) / len(solved)}


def _all_variants(variants: list[list[bool]]) -> float:
    rounds = min(len(episodes) for episodes in variants)
    return sum(all(episodes[i] for episodes in variants) for i in range(rounds)) / rounds
