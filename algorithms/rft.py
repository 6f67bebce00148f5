"""Rejection fine-tuning: sample many rollouts from the starting policy once, keep the successes, fine-tune on them.

It is one step of expert iteration with a large batch and several epochs: set ``steps: 1`` and as many tasks and
rollouts as there is time for. So that easy tasks do not drown the others, each task gives a few *different* successes
only. Left out: further rounds (that is expert iteration), and sampling at several temperatures.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rlpost.algorithms.expert_iteration import ExpertIteration, ExpertIterationConfig


class RFTConfig(ExpertIterationConfig):
    """Defaults for a single large step."""

    per_task: int | None = Field(4, ge=1, description="different successes of a task learned from, at most")
    epochs: int = Field(4, ge=1, description="passes over the kept samples of a step")


class RFT(ExpertIteration):
    """Expert iteration with RFT's defaults."""

    Config: ClassVar[type[ExpertIterationConfig]] = RFTConfig
