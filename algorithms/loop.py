"""LOOP: leave-one-out PPO for interactive agents, without a critic and without scaling by the spread of rewards.

    A_k = R_k - (1/(K-1)) sum_{i != k} R_i
    loss = -(1/n) sum_k (1/|a_k|) sum_{t in a_k} min(w_t A_k, A_k + eps |A_k|)

over the policy tokens a_k of each trajectory, with n the nominal number of trajectories of an update, also where some
were rejected for |A| < 0.01 or the last mini-batch is short. ``ratio: turn`` and ``ratio: trajectory`` are the paper's
other two forms. Left out: any KL to a reference by default, as in the paper.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from rlpost.algorithms.advantages import leave_one_out
from rlpost.algorithms.objective import Denominator
from rlpost.algorithms.policy_config import PolicyConfig
from rlpost.algorithms.policy_loss import PolicyGradient


class LoopConfig(PolicyConfig):
    """Defaults of the paper and its released settings (there: 7 mini-batches of 32 of 216 trajectories)."""

    clip: float | None = Field(0.1, gt=0, lt=1, description="bound the ratio to 1 - clip .. 1 + clip; null: no bound")
    epochs: int = Field(2, ge=1, description="passes over the kept samples of a step")
    early_kl_stop: float | None = Field(
        20.0,
        gt=0,
        description="abandon the step's other updates once the KL (old, current) of a trajectory exceeds it, nats",
    )
    min_abs_advantage: float = Field(0.01, ge=0, description="reject trajectories whose absolute advantage is below it")


class Loop(PolicyGradient):
    """Leave-one-out advantages; means over the nominal number of sequences."""

    Config: ClassVar[type[PolicyConfig]] = LoopConfig
    denominator: ClassVar[Denominator] = "full"

    def baseline(self, rewards: Tensor) -> Tensor:
        """The mean of the other trajectories of the group."""
        return leave_one_out(rewards)
