"""Importance ratios of the current policy to the one at the start of the step: per token, turn or trajectory.

Only policy tokens have a ratio. A policy token that token selection dropped (``mask`` false) still counts in the value
of a ratio over many tokens, because it is part of what was sampled, but it gets exactly zero gradient. Left out:
ratios to the rollout engine's own log-probs (that is ``PackedViews.offpolicy_weight``).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlpost.algorithms.base import PackedViews, sequence_sum

RatioLevel = Literal["token", "turn", "trajectory", "gspo"]

LOG_RATIO_LIMIT = 30.0
"""A log-ratio is held at this value (ratio 1e13, no gradient beyond), so that a product over thousands of tokens cannot
overflow fp32 and turn a clipped term's zero gradient into NaN."""


def policy_positions(views: PackedViews) -> Tensor:
    """(N,) bool: positions the policy sampled, before token selection."""
    return views.turn >= 0


def log_ratio(views: PackedViews) -> Tensor:
    """(N,) ``log p_theta(x_t) - log p_old(x_t)``; 0 where not policy, without gradient where not in ``mask``."""
    difference = views.logprobs - views.old_logprobs
    difference = torch.where(policy_positions(views), difference, torch.zeros_like(difference))
    return torch.where(views.mask, difference, difference.detach())


def turn_begins(views: PackedViews) -> Tensor:
    """(N,) bool: positions at which a turn of a sequence begins, or what lies between two turns."""
    begins = torch.ones_like(views.mask)
    begins[1:] = (views.sequence.diff() != 0) | (views.turn.diff() != 0)
    return begins


def turn_segments(views: PackedViews) -> Tensor:
    """(N,) int64 in 0..N-1, a number for each turn of each sequence, and for each stretch between them. Their bound is
    N, so that nobody waits for a GPU to say how many there are."""
    return turn_begins(views).cumsum(0) - 1


def importance_ratio(views: PackedViews, level: RatioLevel) -> Tensor:
    """(N,) the ratio that applies at each position.

    ``token``: ``w_t``. ``turn``: the product of ``w_t`` over the tokens of the turn. ``trajectory``: the product over
    all policy tokens of the sequence (LOOP's bandit form). ``gspo``: ``exp(mean_t log w_t)`` of the sequence, in its
    token form ``sg[s] w_t / sg[w_t]``, whose gradient summed over a sequence is that of ``s``.
    """
    delta = log_ratio(views)
    if level == "token":
        total = delta
    elif level == "turn":
        segment = turn_segments(views)
        total = sequence_sum(delta, segment, len(segment))[segment]
    elif level == "trajectory":
        total = sequence_sum(delta, views.sequence, views.sequences)[views.sequence]
    else:
        mean = sequence_sum(delta.detach(), views.sequence, views.sequences) / views.sequence_tokens.clamp(min=1)
        total = mean[views.sequence] + (delta - delta.detach())
    return torch.exp(total.clamp(max=LOG_RATIO_LIMIT))
