"""One step's row of metrics.jsonl: the keys every run has, then the environment's and the algorithm's own.

Left out: writing it (report/).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from rlpost.learner.batch import LearnResult
from rlpost.recipe import Recipe
from rlpost.store import StepRollouts
from rlpost.weights import Gap

LEARNER_KEYS = ("loss", "grad_norm", "kl_old", "clip_fraction", "entropy", "offpolicy/ess", "offpolicy/kl")
"""Always in the row; null where the step was skipped."""


def step_row(
    step: int, recipe: Recipe, rollouts: StepRollouts, result: LearnResult, gap: Gap, times: dict[str, float]
) -> dict[str, Any]:
    """The row of one step; counts are of this step, times are seconds."""
    rewards = np.concatenate([group.rewards for group in rollouts.groups])
    usable = [summary for summary in rollouts.summaries if summary.usable]
    row: dict[str, Any] = {
        "step": step,
        "policy_version": step + 1,
        "lag": step - rollouts.oldest_version,
        "reward/mean": float(rewards.mean()),
        "reward/std": float(rewards.std()),
        "success/mean": float(np.mean([summary.success for summary in usable])),
        "gap/logprob_abs": gap.logprob_abs,
        "gap/kl": gap.kl,
        **dict.fromkeys(LEARNER_KEYS),
        **result.metrics,
        **times,
        "tokens/rollout": sum(summary.policy_tokens for summary in rollouts.summaries),
        "episodes": len(rollouts.summaries),
        "episodes/failed": rollouts.failed,
        "episodes/turns": float(np.mean([summary.turns for summary in usable])),
        "groups/no_signal": sum(float(np.ptp(group.rewards)) == 0.0 for group in rollouts.groups),
    }
    row.update({f"stop/{reason}": count for reason, count in sorted(rollouts.stops.items())})
    row.update(_means(rollouts))
    return row


def _means(rollouts: StepRollouts) -> dict[str, float]:
    """Means over usable episodes of the environment's numbers and of the reward's parts."""
    seen: dict[str, list[float]] = defaultdict(list)
    for summary in rollouts.summaries:
        if summary.usable:
            for name, value in summary.metrics.items():
                seen[f"env/{name}"].append(value)
            for name, value in summary.reward_parts.items():
                seen[f"reward/{name}"].append(value)
    return {name: float(np.mean(values)) for name, values in sorted(seen.items())}
