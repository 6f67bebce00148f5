"""diffu-GRPO: GRPO with one-pass log-probabilities of a masked-diffusion policy.

    log p(y^i | x) ~ log p(y^i | x with some tokens masked, y masked whole)

One forward pass gives all tokens of a response, as if they were independent; the prompt's tokens are masked with
probability ``prompt_mask``, anew each step. Cheap and biased: the baseline that BGPO is measured against. Left out: a
new prompt mask for each update of a step (old and new policy share one, as in the other algorithms here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from rlpost.algorithms.base import ModelKind, View
from rlpost.algorithms.grpo import GRPO, GRPOConfig
from rlpost.algorithms.policy_config import PolicyConfig
from rlpost.rollout.trajectory import Trajectory


class DiffuGRPOConfig(GRPOConfig):
    """GRPO's keys, without clipping."""

    clip: float | None = Field(None, gt=0, lt=1, description="bound the ratio to 1 - clip .. 1 + clip; null: no bound")


class DiffuGRPO(GRPO):
    """GRPO on views whose response is masked whole."""

    Config: ClassVar[type[PolicyConfig]] = DiffuGRPOConfig
    model: ClassVar[ModelKind] = "diffusion"
    allows_lag: ClassVar[bool] = False
    prompt_mask: ClassVar[float] = 0.15
    """Probability that a token of the prompt is masked."""

    def views(self, trajectory: Trajectory, rng: np.random.Generator) -> Sequence[View]:
        """One view: the response masked whole, and some of the prompt."""
        response = trajectory.policy_mask
        return [View(response, response | (rng.random(len(trajectory)) < self.prompt_mask))]
