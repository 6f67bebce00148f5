"""BGPO: boundary-guided policy optimisation for diffusion language models, in memory that does not grow with n_t.

    R = exp(mean_j d_j) A  >=  mean_j g_j,    g_j = (1 + d_j) A  where A >= 0,    exp(d_j) A  where A < 0

(exp(x) >= 1 + x, and Jensen), with equal value and gradient at d = 0. R needs all copies of a response in one graph;
the bound is a sum, so each copy has a backward pass of its own. Left out, as in the paper: clipping and a KL. With one
update a step all d are 0 and both branches are REINFORCE on the ELBO.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpost.algorithms.base import PackedViews
from rlpost.algorithms.elbo import Elbo, ElboConfig, capped_exp, elbo_terms
from rlpost.algorithms.ratios import LOG_RATIO_LIMIT

__all__ = ["BGPO", "ElboConfig", "elbo_terms", "lower_bound"]


def bound_terms(d: Tensor, advantages: Tensor, cap: float = LOG_RATIO_LIMIT) -> Tensor:
    """``g_j`` of each copy; both (n,) or broadcastable. See ``capped_exp`` on ``cap``."""
    return torch.where(advantages >= 0, 1 + d, capped_exp(d, cap)) * advantages


def lower_bound(d: Tensor, advantage: Tensor | float, cap: float = LOG_RATIO_LIMIT) -> Tensor:
    """The bound ``mean_j g_j <= exp(mean_j d_j) A`` for one response.

    Args:
        d: (n_t,) ``l_new - l_old`` of each masked copy.
        advantage: the response's A.
        cap: beyond it exp is continued by its tangent; the bound is then no longer one.

    Returns:
        Scalar, differentiable in ``d``.
    """
    return bound_terms(d, torch.as_tensor(advantage, dtype=d.dtype, device=d.device), cap).mean()


class BGPO(Elbo):
    """Linear in d for good responses, exponential copy by copy for bad ones."""

    def objective(self, d: Tensor, views: PackedViews, advantages: Tensor) -> Tensor:
        """``g_j``."""
        return bound_terms(d, advantages, self.config.max_log_ratio)
