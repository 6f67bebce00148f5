"""What algorithms with group-relative advantages share, whatever their loss: advantages, selection, the step's plan.

A subclass names its ``baseline`` and its defaults, and brings a loss. Left out: losses (policy_loss.py for causal
policies, elbo.py for diffusion).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlpost.algorithms.advantages import divide_by_std, overlong_penalty
from rlpost.algorithms.base import Algorithm, AlgorithmError, Plan
from rlpost.algorithms.policy_config import GroupedConfig
from rlpost.algorithms.selection import build_selector, selection_report
from rlpost.rollout.trajectory import Group, Trajectory


class Grouped(Algorithm):
    """Base class.

    Args:
        config: a GroupedConfig.

    Raises:
        AlgorithmError: the ``select`` options are wrong.
    """

    Config: ClassVar[type[GroupedConfig]] = GroupedConfig
    config: GroupedConfig

    def __init__(self, config: GroupedConfig | None = None) -> None:
        super().__init__(config)
        self.selector = build_selector(self.config.select)

    def baseline(self, rewards: Tensor) -> Tensor:
        """(K,) rewards of one group minus their baseline, before any scaling."""
        raise NotImplementedError

    @property
    def regularized(self) -> bool:
        """Whether the loss moves the policy also where all advantages are 0."""
        return False

    @property
    def plan(self) -> Plan:
        """Epochs and mini-batches of the recipe."""
        return Plan(self.config.epochs, self.config.minibatches)

    def check_batch(self, groups: int, group_size: int) -> None:
        """What the selector says."""
        self.selector.check_batch(groups, group_size)

    @property
    def refill_budget(self) -> int:
        """``advantage.refill``."""
        return self.config.advantage.refill

    def wants_refill(self, rewards: NDArray[np.float64]) -> bool:
        """DAPO's dynamic sampling: a group whose (K,) rewards are all equal teaches nothing."""
        return self.refill_budget > 0 and bool((rewards == rewards[0]).all())

    def advantages(self, groups: Sequence[Group]) -> list[NDArray[np.float64]]:
        """One (K,) float64 array a group.

        Raises:
            AlgorithmError: a group without trajectories, or with a reward that is not finite; names its task.
        """
        return [self._group_advantages(group) for group in groups]

    def _group_advantages(self, group: Group) -> NDArray[np.float64]:
        options = self.config.advantage
        rewards = torch.from_numpy(group.rewards)
        if options.overlong is not None:
            lengths = torch.tensor([item.policy_tokens for item in group.trajectories], dtype=torch.float64)
            length_options = options.overlong
            rewards = rewards + length_options.penalty * overlong_penalty(
                lengths, length_options.max_tokens, length_options.buffer
            )
        try:
            advantages = self.baseline(rewards)
        except AlgorithmError as error:
            raise AlgorithmError(f"task {group.task_id} (group {group.group_id}): {error}") from None
        if options.std != "none":
            advantages = divide_by_std(advantages, rewards, ddof=1 if options.std == "sample" else 0)
        return advantages.numpy()

    def select_samples(
        self, advantages: NDArray[np.float64], group_ids: NDArray[np.int64], progress: float, seed: int
    ) -> NDArray[np.int64]:
        """Reject |A| below the threshold, then let the selector choose among the rest; empty where all chosen
        advantages are 0 and nothing else in the loss would move the policy.

        Raises:
            AlgorithmError: no trajectory at all, an advantage that is not finite, or a schedule that keeps none.
        """
        if not len(advantages):
            raise AlgorithmError("this step has no usable trajectory to select from")
        if not np.isfinite(advantages).all():
            raise AlgorithmError(f"{np.sum(~np.isfinite(advantages))} of {len(advantages)} advantages are not finite")
        eligible = np.abs(advantages) >= self.config.min_abs_advantage
        chosen = self.selector.samples(advantages, group_ids, eligible, progress, seed)
        return chosen if self.regularized or advantages[chosen].any() else np.empty(0, dtype=np.int64)

    def kept_advantages(
        self,
        trajectories: Sequence[Trajectory],
        advantages: NDArray[np.float64],
        group_ids: NDArray[np.int64],
        kept: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """As they are; where the selector renormalizes, taken anew over what is kept of each group (a group of which
        one is left keeps its advantage, as there is nothing to compare with)."""
        chosen = advantages[kept]
        if self.selector.renormalize:
            for group_id in np.unique(group_ids[kept]):
                places = np.flatnonzero(group_ids[kept] == group_id)
                if len(places) == 1:
                    continue
                members = [trajectories[kept[place]] for place in places]
                chosen[places] = self._group_advantages(Group(int(group_id), members[0].task_id, members))
        return chosen

    def report(
        self, advantages: NDArray[np.float64], group_ids: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> dict[str, float]:
        """Counts, variance of the advantages before and after, share of groups without spread."""
        return selection_report(advantages, group_ids, kept)
