"""Expert iteration: supervised learning on the policy's own successes, step after step.

    loss = -(1/T) sum over successful rollouts, over their policy tokens, of log p(x_t)

with T the policy tokens of the update. What failed is not looked at. Left out: a search that finds better rollouts
than sampling does, and mixing in earlier steps' successes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rlpost.algorithms.base import Algorithm, LossOutput, Need, PackedViews, Plan, StepConstants
from rlpost.algorithms.selection import selection_report
from rlpost.rollout.trajectory import Group, Trajectory


class ExpertIterationConfig(BaseModel):
    """Recipe keys."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    min_reward: float = Field(1.0, description="rollouts of at least this reward are learned from")
    per_task: int | None = Field(None, ge=1, description="different successes of a task learned from, at most")
    epochs: int = Field(1, ge=1, description="passes over the kept samples of a step")
    minibatches: int = Field(1, ge=1, description="optimizer updates a pass")


class ExpertIteration(Algorithm):
    """An advantage of 1 marks a rollout to learn from, 0 one to leave out."""

    Config: ClassVar[type[ExpertIterationConfig]] = ExpertIterationConfig
    config: ExpertIterationConfig

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing: there is no ratio."""
        return frozenset()

    @property
    def plan(self) -> Plan:
        """Epochs and mini-batches of the recipe."""
        return Plan(self.config.epochs, self.config.minibatches)

    def advantages(self, groups: Sequence[Group]) -> list[NDArray[np.float64]]:
        """One (K,) array of 0 and 1 a group; where ``per_task`` is set, the first so many different successes."""
        return [np.array(self._chosen(group.trajectories), dtype=np.float64) for group in groups]

    def _chosen(self, trajectories: Sequence[Trajectory]) -> list[bool]:
        chosen: list[bool] = []
        seen: set[bytes] = set()
        for trajectory in trajectories:
            wanted = trajectory.reward >= self.config.min_reward
            if wanted and self.config.per_task is not None:
                words = trajectory.token_ids.tobytes()
                wanted = words not in seen and len(seen) < self.config.per_task
                seen |= {words} if wanted else set()
            chosen.append(wanted)
        return chosen

    def select_samples(
        self, advantages: NDArray[np.float64], group_ids: NDArray[np.int64], progress: float, seed: int
    ) -> NDArray[np.int64]:
        """Those marked; empty where nothing succeeded."""
        return np.flatnonzero(advantages)

    def report(
        self, advantages: NDArray[np.float64], group_ids: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> dict[str, float]:
        """Counts of what is kept."""
        return selection_report(advantages, group_ids, kept)

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        """Cross-entropy of the tokens that were sampled."""
        return LossOutput(-views.logprobs[views.mask].sum() / constants.tokens)
