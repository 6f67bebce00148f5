"""From the rewards of one group to advantages: baselines, scaling by the spread, and DAPO's penalty on length.

Pure functions of one group's (K,) tensors, in the floating dtype given. A group without spread has advantages of
exactly 0, rounding of the mean included. Left out: critics and per-token credit; the advantage of a trajectory is one
number that all its policy tokens share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpost.algorithms.base import AlgorithmError


def centered(rewards: Tensor) -> Tensor:
    """Group-mean baseline: ``A_k = R_k - mean(R)``.

    Args:
        rewards: (K,) of one group, floating.

    Returns:
        (K,) of the same dtype; 0 where K = 1 or all rewards are equal.

    Raises:
        AlgorithmError: not a vector of finite floating numbers, or empty.
    """
    _check(rewards)
    return torch.zeros_like(rewards) if _no_spread(rewards) else rewards - rewards.mean()


def leave_one_out(rewards: Tensor) -> Tensor:
    """Leave-one-out baseline: ``A_k = R_k - (1/(K-1)) sum_{i != k} R_i = K/(K-1) (R_k - mean(R))`` (RLOO, LOOP).

    Args:
        rewards: (K,) of one group, floating; K is what was really collected.

    Returns:
        (K,) of the same dtype; 0 where K = 1, as there is nothing to compare with.

    Raises:
        AlgorithmError: see ``centered``.
    """
    count = len(rewards)
    return centered(rewards) * (count / (count - 1)) if count > 1 else centered(rewards)


def group_normalized(rewards: Tensor, eps: float = 1e-6, ddof: int = 1) -> Tensor:
    """GRPO: ``A_k = (R_k - mean(R)) / (std(R) + eps)``.

    Args:
        rewards: (K,) of one group, floating.
        eps: added to the standard deviation.
        ddof: 1 divides the sum of squares by K - 1, 0 by K.

    Returns:
        (K,) of the same dtype; 0 where K = 1 or all rewards are equal.

    Raises:
        AlgorithmError: see ``centered``.
    """
    return divide_by_std(centered(rewards), rewards, eps, ddof)


def divide_by_std(advantages: Tensor, rewards: Tensor, eps: float = 1e-6, ddof: int = 1) -> Tensor:
    """``A_k / (std(R) + eps)``; unchanged (zeros) where the group has no spread. Shapes as in ``group_normalized``."""
    return advantages if _no_spread(rewards) else advantages / (rewards.std(correction=ddof) + eps)


def overlong_penalty(lengths: Tensor, max_tokens: int, buffer: int) -> Tensor:
    """DAPO's soft length penalty: 0 up to ``max_tokens - buffer``, then linear down to -1 at ``max_tokens`` and beyond.

    ``p(L) = clamp((max_tokens - buffer - L) / buffer, -1, 0)``

    Args:
        lengths: (K,) policy tokens of each trajectory, floating.
        max_tokens: length at which the full penalty is reached.
        buffer: tokens over which it grows, 1..max_tokens.

    Returns:
        (K,) in [-1, 0], to be scaled and added to the rewards.
    """
    return ((max_tokens - buffer - lengths) / buffer).clamp(-1.0, 0.0)


def _check(rewards: Tensor) -> None:
    if rewards.ndim != 1 or not rewards.is_floating_point():
        raise AlgorithmError(
            f"rewards of a group must be a floating (K,) tensor, not {rewards.dtype} of shape {tuple(rewards.shape)}"
        )
    if len(rewards) == 0:
        raise AlgorithmError("a group without trajectories has no advantages")
    if not bool(torch.isfinite(rewards).all()):
        raise AlgorithmError(f"the rewards {rewards.tolist()} of a group are not all finite")


def _no_spread(rewards: Tensor) -> bool:
    """K = 1 or all equal: the float mean of equal numbers may differ from them by a rounding, so compare directly."""
    return bool((rewards == rewards[0]).all())
