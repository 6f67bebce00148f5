"""The record all parts exchange: Turn, Trajectory, Group.

One episode is one contiguous token sequence, and what was sampled is what is trained on: model text is never
tokenised again. All arrays are NumPy (Ray's object store moves them without a copy; torch tensors are ten times
slower there). Left out: advantages and losses (algorithms), and text templates (the driver's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class StopReason(StrEnum):
    """Why an episode ended."""

    DONE = "done"  # the environment said so
    TURN_LIMIT = "turn_limit"
    TOKEN_LIMIT = "token_limit"  # the context or the token budget of the last turn ran out
    CANCELLED = "cancelled"  # straggler cut-off
    ENV_FAILED = "env_failed"  # the environment raised
    ENV_TIMEOUT = "env_timeout"  # the environment missed a deadline
    ENGINE_FAILED = "engine_failed"


FAILED = frozenset({StopReason.ENV_FAILED, StopReason.ENV_TIMEOUT, StopReason.ENGINE_FAILED})


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn: policy tokens are ``token_ids[start:end]`` of its trajectory; ``truncated`` where the
    turn hit its token budget before a stop token."""

    start: int
    end: int
    truncated: bool = False


@dataclass(slots=True)
class Trajectory:
    """One episode, T tokens long.

    Attributes:
        token_ids: (T,) int32, prompt and observations included.
        policy_mask: (T,) bool, true where the policy sampled the token (its stop token included).
        rollout_logprobs: (T,) float32, log-probability under the distribution sampled from; NaN where not policy.
        versions: (T,) int32, version of the weights that sampled the token; -1 where not policy.
        turns: the assistant turns, in order.
        reward: scalar reward; NaN for a failed or cancelled episode.
        reward_parts: named parts of the reward.
        success: whether the task was solved.
        stop: why it ended.
        task_id, group_id, index: the task, its group within the run, and this episode's place in the group.
        seed: the seed every random draw of this episode came from.
        source: the data source of the task.
        scenario, difficulty: copied from the task.
        metrics: the environment's own numbers.
        error: what went wrong, for a failed episode.
        wall_s: seconds from start to score.
        answer: what the reward took the episode to answer; empty where it names nothing.
    """

    token_ids: NDArray[np.int32]
    policy_mask: NDArray[np.bool_]
    rollout_logprobs: NDArray[np.float32]
    versions: NDArray[np.int32]
    turns: list[Turn]
    reward: float
    reward_parts: dict[str, float]
    success: bool
    stop: StopReason
    task_id: str
    group_id: int
    index: int
    seed: int
    source: str = ""
    scenario: str = ""
    difficulty: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    wall_s: float = 0.0
    answer: str = ""

    @property
    def failed(self) -> bool:
        """Whether the episode was lost to a fault of the environment or the engine."""
        return self.stop in FAILED

    @property
    def usable(self) -> bool:
        """Whether it may be trained on: neither failed nor cancelled, and the policy sampled something."""
        return not self.failed and self.stop is not StopReason.CANCELLED and bool(self.policy_mask.any())

    @property
    def policy_tokens(self) -> int:
        """Number of tokens the policy sampled."""
        return int(self.policy_mask.sum())

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(slots=True)
class Group:
    """All usable episodes of one task in one step; K = ``len(group)`` is what was really collected."""

    group_id: int
    task_id: str
    trajectories: Sequence[Trajectory]

    @property
    def rewards(self) -> NDArray[np.float64]:
        """(K,) float64."""
        return np.array([trajectory.reward for trajectory in self.trajectories], dtype=np.float64)

    def __len__(self) -> int:
        return len(self.trajectories)
