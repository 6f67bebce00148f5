"""GRPO, and GSPO as a setting of it.

    A_k = (R_k - mean(R)) / (std(R) + 1e-6)
    loss = -(1/n) sum_k (1/|a_k|) sum_{t in a_k} min(w_t A_k, clip(w_t, 1 - eps, 1 + eps) A_k)

Options give its relatives: ``clip_high`` (clip-higher), ``aggregate: token``, ``advantage.overlong`` and
``advantage.refill`` are DAPO's; ``advantage: {std: none}`` with ``aggregate: constant`` is Dr.GRPO; ``kl`` is the
original's penalty. GSPO's ratio is ``(prod_t w_t)^(1/|a_k|)``, with its paper's much narrower bounds. Left out: a
reference model of its own (the KL is to the LoRA-free base).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from rlpost.algorithms.advantages import centered
from rlpost.algorithms.policy_config import AdvantageConfig, PolicyConfig, Spread
from rlpost.algorithms.policy_loss import PolicyGradient
from rlpost.algorithms.ratios import RatioLevel


class GRPOAdvantage(AdvantageConfig):
    """Advantages are scaled by default."""

    std: Spread = Field(
        "sample", description="divide by the group's standard deviation: of the sample (K - 1) or not (K)"
    )


class GRPOConfig(PolicyConfig):
    """Defaults of GRPO."""

    clip: float | None = Field(0.2, gt=0, lt=1, description="bound the ratio to 1 - clip .. 1 + clip; null: no bound")
    advantage: GRPOAdvantage = Field(default_factory=GRPOAdvantage, description="how rewards become advantages")


class GSPOConfig(GRPOConfig):
    """GRPO with GSPO's sequence ratio and bounds."""

    ratio: RatioLevel = Field(
        "gspo", description="importance ratio of a token, turn, trajectory, or gspo's geometric mean"
    )
    clip: float | None = Field(3e-4, gt=0, lt=1, description="bound the ratio to 1 - clip .. 1 + clip; null: no bound")
    clip_high: float | None = Field(
        4e-4, gt=0, description="upper bound 1 + clip_high instead of 1 + clip (clip-higher)"
    )


class GRPO(PolicyGradient):
    """Group-relative advantages; means over what is kept."""

    Config: ClassVar[type[PolicyConfig]] = GRPOConfig

    def baseline(self, rewards: Tensor) -> Tensor:
        """The mean of the group."""
        return centered(rewards)


class GSPO(GRPO):
    """GRPO with a sequence-level ratio."""

    Config: ClassVar[type[PolicyConfig]] = GSPOConfig
