"""RLOO: REINFORCE with a leave-one-out baseline, one update a step, a trajectory as one action.

    loss = -(1/n) sum_k A_k prod_{t in a_k} w_t,   A_k = R_k - (1/(K-1)) sum_{i != k} R_i

With its one update the ratio is exactly 1 and the gradient is ``-(1/n) sum_k A_k grad sum_t log p(x_t)``. Left out:
clipping and several updates, which make it LOOP.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from rlpost.algorithms.advantages import leave_one_out
from rlpost.algorithms.policy_config import PolicyConfig
from rlpost.algorithms.policy_loss import PolicyGradient
from rlpost.algorithms.ratios import RatioLevel


class RLOOConfig(PolicyConfig):
    """One update a step is what makes it RLOO."""

    ratio: RatioLevel = Field("trajectory", description="a whole trajectory is one action; token gives a token mean")
    epochs: Literal[1] = Field(1, description="always 1; several make it LOOP")
    minibatches: Literal[1] = Field(1, description="always 1; several make it LOOP")


class RLOO(PolicyGradient):
    """Leave-one-out advantages without clipping; means over what is kept."""

    Config: ClassVar[type[PolicyConfig]] = RLOOConfig

    def baseline(self, rewards: Tensor) -> Tensor:
        """The mean of the other trajectories of the group."""
        return leave_one_out(rewards)
