"""How far the learner, at the start of a step, is from the distribution its rollouts were sampled from.

With w = exp(log p_old - log p_rollout) at a policy token: the weight of the token's policy term is min(w, cap), the
effective sample size is (Σ w)² / (n Σ w²) of the uncapped ones, and KL(rollout || old) is estimated by the mean of
w - 1 - log w, which is never negative. Left out: the difference between engine and learner at the same version (gap).
"""

from __future__ import annotations

import torch
from torch import Tensor

_LIMIT = 30.0  # e^30 tokens' worth of weight on one token is not distinguishable from infinity


def truncated_weight(old: Tensor, rollout: Tensor, policy: Tensor, cap: float) -> Tensor:
    """min(w, cap) at policy tokens and 1 elsewhere; all (P,)."""
    weight = torch.exp((old - rollout).clamp(max=_LIMIT)).clamp(max=cap)
    return torch.where(policy, weight, torch.ones_like(weight))


def offpolicy_metrics(old: Tensor, rollout: Tensor, policy: Tensor) -> dict[str, float]:
    """``offpolicy/ess`` in (0, 1] and ``offpolicy/kl`` in nats a token, over policy tokens."""
    log_weight = (old - rollout)[policy].double().clamp(max=_LIMIT)
    weight = torch.exp(log_weight)
    ess = weight.sum() ** 2 / (len(weight) * (weight**2).sum())
    kl = (weight - 1 - log_weight).mean()
    effective, divergence = torch.stack([ess, kl]).tolist()
    return {"offpolicy/ess": effective, "offpolicy/kl": divergence}
