"""The recipe keys that algorithms share: group-relative ones, and among them policy-gradient ones.

Each algorithm sets its own defaults in a subclass. Left out: what the keys do (advantages.py, ratios.py, objective.py,
selection.py).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlpost.algorithms.objective import Aggregate
from rlpost.algorithms.ratios import RatioLevel

Spread = Literal["none", "sample", "population"]


class Overlong(BaseModel):
    """DAPO's soft length penalty, added to the reward before advantages are taken."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_tokens: int = Field(ge=1, description="policy tokens of a trajectory at which the whole penalty is reached")
    buffer: int = Field(ge=1, description="tokens before max_tokens over which the penalty grows from 0")
    penalty: float = Field(1.0, gt=0, description="the whole penalty, in units of reward")

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.buffer > self.max_tokens:
            raise ValueError(f"buffer {self.buffer} is larger than max_tokens {self.max_tokens}")
        return self


class AdvantageConfig(BaseModel):
    """How the rewards of a group become advantages."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    std: Spread = Field(
        "none", description="divide by the group's standard deviation: of the sample (K - 1) or not (K)"
    )
    overlong: Overlong | None = Field(None, description="penalty on length")
    refill: int = Field(0, ge=0, description="groups a step may draw anew in place of groups with all rewards equal")


class GroupedConfig(BaseModel):
    """Keys of every algorithm with group-relative advantages."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epochs: int = Field(1, ge=1, description="passes over the kept samples of a step")
    minibatches: int = Field(1, ge=1, description="optimizer updates a pass")
    min_abs_advantage: float = Field(0.0, ge=0, description="reject trajectories whose absolute advantage is below it")
    advantage: AdvantageConfig = Field(default_factory=AdvantageConfig, description="how rewards become advantages")
    select: dict[str, Any] | None = Field(None, description="down-sampling: name (d3s, or your own) and its keys")


class PolicyConfig(GroupedConfig):
    """Keys of every policy-gradient algorithm."""

    ratio: RatioLevel = Field(
        "token", description="importance ratio of a token, turn, trajectory, or gspo's geometric mean"
    )
    clip: float | None = Field(None, gt=0, lt=1, description="bound the ratio to 1 - clip .. 1 + clip; null: no bound")
    clip_high: float | None = Field(
        None, gt=0, description="upper bound 1 + clip_high instead of 1 + clip (clip-higher)"
    )
    aggregate: Aggregate = Field(
        "sequence", description="sequence: mean of sequence means; token: mean over tokens; constant: Dr.GRPO"
    )
    early_kl_stop: float | None = Field(
        None,
        gt=0,
        description="abandon the step's other updates once the KL (old, current) of a trajectory exceeds it, nats",
    )
    kl: float = Field(0.0, ge=0, description="weight of the KL to the LoRA-free base (k3 estimate)")
    entropy: float = Field(0.0, ge=0, description="weight of the entropy bonus")

    @model_validator(mode="after")
    def _clip_high_needs_clip(self) -> Self:
        if self.clip_high is not None and self.clip is None:
            raise ValueError("clip_high needs clip, the lower bound")
        return self
