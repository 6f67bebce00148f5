"""One step's row of metrics.jsonl: the keys every run has, then the environment's and the algorithm's own.

Left out: writing it (report/).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlpost.goals import goal_completion
from rlpost.learner.batch import LearnResult
from rlpost.recipe import Recipe
from rlpost.rollout.specs import Summary
from rlpost.store import StepRollouts
from rlpost.verify import Gap

LEARNER_KEYS = ("loss", "grad_norm", "kl_old", "clip_fraction", "entropy", "offpolicy/ess", "offpolicy/kl")
"""Always in the row; null where the step was skipped."""


def step_row(
    step: int, recipe: Recipe, rollouts: StepRollouts, result: LearnResult, gap: Gap, times: dict[str, float]
) -> dict[str, Any]:
    """The row of one step; counts are of this step, times are seconds."""
    # Of all that was played: without the replaced groups a run would look better, or worse, than its policy.
    usable = [summary for summary in rollouts.summaries if summary.usable]
    rewards = np.array([summary.reward for summary in usable])
    row: dict[str, Any] = {
        "step": step,
        "policy_version": step + 1,
        "lag": step - rollouts.oldest_version,
        "reward/mean": float(rewards.mean()),
        "reward/std": float(rewards.std()),
        "success/mean": float(np.mean([summary.success for summary in usable])),
        **gap.metrics(),
        **dict.fromkeys(LEARNER_KEYS),
        **result.metrics,
        **times,
        "tokens/rollout": sum(summary.policy_tokens for summary in rollouts.summaries),
        "episodes": len(rollouts.summaries),
        "episodes/failed": rollouts.failed,
        "episodes/turns": float(np.mean([summary.turns for summary in usable])),
        "groups/no_signal": sum(float(np.ptp(group.rewards)) == 0.0 for group in rollouts.groups),
        "groups/redrawn": rollouts.redrawn,
    }
    row.update({f"stop/{reason}": count for reason, count in sorted(rollouts.stops.items())})
    row.update({f"goals/{name}": value for name, value in goal_completion(rollouts.summaries).items()})
    row.update(environment_means(rollouts.summaries))
    return row


def unsolved_reward(row: dict[str, Any]) -> str:
    """A warning where a step's reward is all for form: its part ``exact`` says that no episode solved its task, and yet
    the mean reward is not 0. Empty where there is no such part, or nothing to warn of."""
    if row.get("reward/exact") != 0.0 or not row["reward/mean"] > 0:
        return ""
    return (
        f"the mean reward {row['reward/mean']:.3g} hides that none of {row['episodes']} episodes was exact: all of it "
        "was earned without solving a task. Watch reward/exact, not reward/mean"
    )


def environment_means(summaries: Sequence[Summary]) -> dict[str, float]:
    """Means over usable episodes of the environment's numbers and of the reward's parts."""
    seen: dict[str, list[float]] = defaultdict(list)
    for summary in summaries:
        if summary.usable:
            for name, value in summary.metrics.items():
                seen[f"env/{name}"].append(value)
            for name, value in summary.reward_parts.items():
                seen[f"reward/{name}"].append(value)
    return {name: float(np.mean(values)) for name, values in sorted(seen.items())}


class EngineMetrics:
    """What the engines did since the last call, from their running totals."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}

    def since(self, engines: Sequence[dict[str, float]]) -> dict[str, float]:
        """``engine/prefix_cache_hit_rate``: share of prompt tokens found in the cache; ``engine/tokens_a_step``: tokens
        sampled in an engine step, so how many of its slots were busy. Empty for engines without such numbers.

        Args:
            engines: every worker's totals. One that was restarted begins anew; that step's numbers are then left out.
        """
        totals = {name: sum(engine.get(name, 0.0) for engine in engines) for name in _TOTALS}
        new = {name: value - self._before.get(name, 0.0) for name, value in totals.items()}
        self._before = totals
        found = {}
        if new["prompt_tokens"] > 0 <= new["cached_tokens"]:
            found["engine/prefix_cache_hit_rate"] = new["cached_tokens"] / new["prompt_tokens"]
        if new["steps"] > 0 <= new["tokens"]:
            found["engine/tokens_a_step"] = new["tokens"] / new["steps"]
        return found


_TOTALS = ("prompt_tokens", "cached_tokens", "tokens", "steps")
