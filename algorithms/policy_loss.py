"""The policy-gradient algorithm that LOOP, GRPO, GSPO and RLOO are settings of: one loss, one selection path.

    loss = -sum_t c_t u_t min(w_t A_t, g(A_t)) + kl sum_t c_t k3_t - entropy sum_t c_t H_t

over counted tokens t, with the ratio w (ratios.py), the bound g, constant weights c (objective.py) and the off-policy
weight u. Left out: critics, and a second copy of the policy (the KL reference is the LoRA-free base).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.advantages import divide_by_std, overlong_penalty
from algorithms.base import Algorithm, AlgorithmError, LossOutput, Need, PackedViews, Plan, StepConstants
from algorithms.objective import Denominator, clipped_objective, k3, selection_gain, token_weights
from algorithms.policy_config import PolicyConfig
from algorithms.ratios import importance_ratio, log_ratio
from algorithms.selection import build_selector, selection_report
from rollout.trajectory import Group, Trajectory


class PolicyGradient(Algorithm):
    """Base of the policy-gradient algorithms: a subclass names its ``baseline`` and its defaults.

    Args:
        config: a PolicyConfig.

    Raises:
        AlgorithmError: the ``select`` options are wrong.
    """

    Config: ClassVar[type[PolicyConfig]] = PolicyConfig
    denominator: ClassVar[Denominator] = "kept"
    """What means in the loss are taken over where samples or tokens were dropped, unless the selector says."""
    config: PolicyConfig

    def __init__(self, config: PolicyConfig | None = None) -> None:
        super().__init__(config)
        self.selector = build_selector(self.config.select)

    def baseline(self, rewards: Tensor) -> Tensor:
        """(K,) rewards of one group minus their baseline, before any scaling."""
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[Need]:
        """Old log-probs always; entropies for a selector of tokens; reference log-probs for the KL."""
        needs: set[Need] = {"old_logprobs"}
        if self.selector.needs_entropies:
            needs.add("entropies")
        if self.config.kl > 0:
            needs.add("ref_logprobs")
        return frozenset(needs)

    @property
    def loss_entropies(self) -> bool:
        """Whether there is an entropy bonus."""
        return self.config.entropy > 0

    @property
    def plan(self) -> Plan:
        """Epochs and mini-batches of the recipe."""
        return Plan(self.config.epochs, self.config.minibatches)

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
        advantages are 0 and neither KL nor entropy would move the policy.

        Raises:
            AlgorithmError: no trajectory at all, an advantage that is not finite, or a schedule that keeps none.
        """
        if not len(advantages):
            raise AlgorithmError("this step has no usable trajectory to select from")
        if not np.isfinite(advantages).all():
            raise AlgorithmError(f"{np.sum(~np.isfinite(advantages))} of {len(advantages)} advantages are not finite")
        eligible = np.abs(advantages) >= self.config.min_abs_advantage
        chosen = self.selector.samples(advantages, group_ids, eligible, progress, seed)
        regularized = self.config.kl > 0 or self.config.entropy > 0
        return chosen if regularized or advantages[chosen].any() else np.empty(0, dtype=np.int64)

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

    def select_tokens(
        self, advantages: Tensor, entropies: Tensor | None, mask: Tensor, sequence: Tensor, progress: float
    ) -> Tensor:
        """What the selector says; ``mask`` itself where it drops none."""
        return self.selector.tokens(advantages, entropies, mask, sequence, progress)

    def report(
        self, advantages: NDArray[np.float64], group_ids: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> dict[str, float]:
        """Counts, variance of the advantages before and after, share of groups without spread."""
        return selection_report(advantages, group_ids, kept)

    def stop(self, metrics: Mapping[str, float]) -> bool:
        """LOOP's rule: stop when ``|mean over trajectories of sum_t (log p_old - log p)|`` exceeds the bound."""
        if self.config.early_kl_stop is None or not metrics.get("sequences_per_token"):
            return False
        return abs(metrics["kl_old_k1"] / metrics["sequences_per_token"]) > self.config.early_kl_stop

    def loss(self, views: PackedViews, constants: StepConstants) -> LossOutput:
        """See the head of this file. Sums (each a sum over counted tokens unless said otherwise): ``clip_fraction``
        counts clipped tokens; ``kl_old`` is k3 of KL(old || current); ``kl_old_k1`` sums log p_old - log p over all
        policy tokens; ``sequences_per_token`` counts sequences; ``selection_gain``; ``kl_ref`` where there is a KL.

        Raises:
            AlgorithmError: the KL or the entropy bonus is on and the views lack what it reads.
        """
        config, denominator = self.config, self._denominator
        counted = views.mask.nonzero().squeeze(1)
        ratio = importance_ratio(views, config.ratio)[counted]
        objective, clipped = clipped_objective(ratio, views.advantages[counted], config.clip, config.clip_high)
        if views.offpolicy_weight is not None:
            objective = objective * views.offpolicy_weight[counted]
        weights = token_weights(views, constants, config.aggregate, denominator, config.ratio)[counted]
        loss = -(weights * objective).sum()
        drift = log_ratio(views).detach()
        gain = selection_gain(constants, config.aggregate, denominator)
        sums = {
            "clip_fraction": clipped.sum(dtype=drift.dtype),
            "kl_old": k3(drift[counted]).sum(),
            "kl_old_k1": -drift.sum(),
            "sequences_per_token": drift.new_tensor(views.sequences),
            "selection_gain": drift.new_tensor(gain * len(counted)),
        }
        if config.kl > 0:
            estimate = k3(_present(views.ref_logprobs, "kl", "ref_logprobs")[counted] - views.logprobs[counted])
            loss = loss + config.kl * (weights * estimate).sum()
            sums["kl_ref"] = estimate.detach().sum()
        if config.entropy > 0:
            loss = loss - config.entropy * (weights * _present(views.entropies, "entropy", "entropies")[counted]).sum()
        return LossOutput(loss, sums)

    @property
    def _denominator(self) -> Denominator:
        return self.denominator if self.selector.denominator == "base" else self.selector.denominator

    def describe(self) -> dict[str, Any]:
        """Bounds of the ratio, updates a step, and the selector's own facts."""
        clip, high = self.config.clip, self.config.clip_high
        bounds = "none" if clip is None else f"{1 - clip:g} .. {1 + (clip if high is None else high):g}"
        updates = self.config.epochs * self.config.minibatches
        facts = {"ratio": self.config.ratio, "ratio bounds": bounds, "updates a step": updates}
        return facts | {"loss divides by": self._denominator} | self.selector.describe()


def _present(values: Tensor | None, option: str, name: str) -> Tensor:
    if values is None:
        raise AlgorithmError(f"algorithm.{option} is on, but the learner gave the loss no {name}", key=option)
    return values
