"""The terms of a policy-gradient loss and the constant weight of each token: small pure functions.

A loss is ``-sum_t c_t u_t min(w_t A_t, g(A_t))`` over the counted tokens, with a constant weight ``c_t`` that depends
only on the token's own sequence and on constants of the whole optimizer update, and the off-policy weight ``u_t``.
Left out: ratios (ratios.py) and the sum itself (policy_loss.py).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlpost.algorithms.base import PackedViews, StepConstants, sequence_sum
from rlpost.algorithms.ratios import LOG_RATIO_LIMIT, RatioLevel, policy_positions, turn_begins, turn_segments

Aggregate = Literal["sequence", "token", "constant"]
Denominator = Literal["kept", "full"]


def clip_bound(advantages: Tensor, low: float, high: float) -> Tensor:
    """``g(A)``: ``(1 + high) A`` where A >= 0, ``(1 - low) A`` below; ``low = high = eps`` is ``A + eps |A|``."""
    return torch.where(advantages >= 0, (1 + high) * advantages, (1 - low) * advantages)


def clipped_objective(
    ratio: Tensor, advantages: Tensor, low: float | None, high: float | None
) -> tuple[Tensor, Tensor]:
    """One-sided pessimistic objective ``min(w A, g(A))`` of PPO, GRPO and LOOP.

    Args:
        ratio: (n,) with gradient.
        advantages: (n,).
        low, high: clip widths below and above 1; ``low`` None means no clipping, ``high`` None means ``low``.

    Returns:
        (n,) the objective, and (n,) bool, true where the bound holds (no gradient there).
    """
    objective = ratio * advantages
    if low is None:
        return objective, torch.zeros_like(objective, dtype=torch.bool)
    bound = clip_bound(advantages, low, low if high is None else high)
    clipped = objective.detach() > bound
    return torch.where(clipped, bound, objective), clipped


def k3(log_difference: Tensor) -> Tensor:
    """Low-variance estimate of KL(p || q) from samples of p: ``exp(d) - 1 - d`` with ``d = log q - log p``; >= 0."""
    d = log_difference.clamp(max=LOG_RATIO_LIMIT)
    return torch.exp(d) - 1 - d


def token_weights(
    views: PackedViews, constants: StepConstants, aggregate: Aggregate, denominator: Denominator, level: RatioLevel
) -> Tensor:
    """(N,) the constant weight ``c_t`` of each position (meaningful where ``mask`` is true).

    ``sequence``: mean over a sequence's tokens (with turn ratios: over a turn's tokens, then over turns), then over
    sequences (LOOP, GRPO). ``token``: mean over all tokens of the update (DAPO). ``constant``: sum over tokens divided
    by ``max_tokens`` and the number of sequences (Dr.GRPO).

    ``denominator`` decides what means are taken over where samples or tokens were dropped: ``kept`` counts what is
    left, ``full`` what there was (nominal sequences, and tokens before selection).
    """
    full = denominator == "full"
    sequences = max(1, constants.nominal_sequences if full else constants.sequences)
    if aggregate == "constant":
        return torch.full_like(views.advantages, 1.0 / (constants.max_tokens * sequences))
    if aggregate == "token":
        tokens = _tokens_before_selection(constants) * sequences / max(1, constants.sequences)
        return torch.full_like(views.advantages, 1.0 / max(1.0, tokens if full else constants.tokens))
    counted = (policy_positions(views) if full else views.mask).to(views.advantages.dtype)
    if level == "turn":
        segment = turn_segments(views)
        in_turn = sequence_sum(counted, segment, len(segment))[segment]
        first = (turn_begins(views) & (in_turn > 0)).to(counted.dtype)
        size = in_turn * sequence_sum(first, views.sequence, views.sequences)[views.sequence]
    else:
        size = sequence_sum(counted, views.sequence, views.sequences)[views.sequence]
    return 1.0 / (size.clamp(min=1) * sequences)


def selection_gain(constants: StepConstants, aggregate: Aggregate, denominator: Denominator) -> float:
    """How much more a kept token weighs than it would had nothing been dropped (average): the effective change of the
    learning rate that selection brings; 1 with ``denominator="full"``."""
    if denominator == "full":
        return 1.0
    samples = constants.nominal_sequences / max(1, constants.sequences)
    return (
        samples if aggregate == "constant" else samples * _tokens_before_selection(constants) / max(1, constants.tokens)
    )


def _tokens_before_selection(constants: StepConstants) -> int:
    return constants.policy_tokens or constants.tokens
