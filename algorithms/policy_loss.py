"""The policy-gradient loss that LOOP, GRPO, GSPO and RLOO are settings of.

    loss = -sum_t c_t u_t min(w_t A_t, g(A_t)) + kl sum_t c_t k3_t - entropy sum_t c_t H_t

over counted tokens t, with the ratio w (ratios.py), the bound g, constant weights c (objective.py) and the off-policy
weight u. Left out: critics, and a second copy of the policy (the KL reference is the LoRA-free base).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlpost.algorithms.base import AlgorithmError, LossOutput, Need, PackedViews, StepConstants
from rlpost.algorithms.grouped import Grouped
from rlpost.algorithms.objective import Denominator, clipped_objective, k3, selection_gain, token_weights
from rlpost.algorithms.policy_config import PolicyConfig
from rlpost.algorithms.ratios import importance_ratio, log_ratio


class PolicyGradient(Grouped):
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
    def regularized(self) -> bool:
        """Whether there is a KL or an entropy bonus."""
        return self.config.kl > 0 or self.config.entropy > 0

    def select_tokens(
        self, advantages: Tensor, entropies: Tensor | None, mask: Tensor, sequence: Tensor, progress: float
    ) -> Tensor:
        """What the selector says; ``mask`` itself where it drops none."""
        return self.selector.tokens(advantages, entropies, mask, sequence, progress)

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
        config, denominator, mask = self.config, self._denominator, views.mask

        def counted(values: Tensor) -> Tensor:
            """0 elsewhere, rather than the counted values alone: for their number the host would wait for a GPU."""
            return torch.where(mask, values, 0.0)

        ratio = importance_ratio(views, config.ratio)
        objective, clipped = clipped_objective(ratio, counted(views.advantages), config.clip, config.clip_high)
        if views.offpolicy_weight is not None:
            objective = objective * counted(views.offpolicy_weight)
        weights = counted(token_weights(views, constants, config.aggregate, denominator, config.ratio))
        loss = -(weights * objective).sum()
        drift = log_ratio(views).detach()
        gain = selection_gain(constants, config.aggregate, denominator)
        sums = {
            "clip_fraction": (clipped & mask).sum(dtype=drift.dtype),
            "kl_old": counted(k3(drift)).sum(),
            "kl_old_k1": -drift.sum(),
            "sequences_per_token": drift.new_full((), views.sequences),
            "selection_gain": gain * mask.sum(dtype=drift.dtype),
        }
        if config.kl > 0:
            reference = _present(views.ref_logprobs, "kl", "ref_logprobs")
            estimate = k3(counted(reference - views.logprobs))
            loss = loss + config.kl * (weights * estimate).sum()
            sums["kl_ref"] = estimate.detach().sum()
        if config.entropy > 0:
            entropies = counted(_present(views.entropies, "entropy", "entropies"))
            loss = loss - config.entropy * (weights * entropies).sum()
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
        redrawn = {"groups drawn anew": f"up to {self.refill_budget} a step"} if self.refill_budget else {}
        return facts | {"loss divides by": self._denominator} | redrawn | self.selector.describe()


def _present(values: Tensor | None, option: str, name: str) -> Tensor:
    if values is None:
        raise AlgorithmError(f"it is on, but the learner gave the loss no {name}", key=option)
    return values
