"""Small hand-made views, groups and steps for the tests of algorithms; everything in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlpost.algorithms.base import PackedViews, StepConstants
from rlpost.rollout.trajectory import Group, StopReason, Trajectory, Turn

F64 = torch.float64


def make_views(
    ratios: Sequence[float | None],
    advantages: Sequence[float],
    sequence: Sequence[int],
    turn: Sequence[int] | None = None,
    mask: Sequence[int] | None = None,
    **fields: Tensor | None,
) -> PackedViews:
    """Views whose token ratio at each position is the given number; None stands for a prompt or observation token.

    Old log-probs are 0, so log-probs are the log-ratios; ``advantages`` is one a sequence.
    """
    policy = torch.tensor([ratio is not None for ratio in ratios])
    logprobs = torch.tensor([-3.0 if ratio is None else math.log(ratio) for ratio in ratios], dtype=F64)
    places = torch.tensor(sequence)
    turns = torch.zeros(len(ratios), dtype=torch.int64) if turn is None else torch.tensor(turn)
    return PackedViews(
        logprobs=logprobs.requires_grad_(),
        entropies=fields.get("entropies"),
        old_logprobs=torch.where(policy, 0.0, torch.nan).to(F64),
        rollout_logprobs=torch.where(policy, 0.0, torch.nan).to(F64),
        ref_logprobs=fields.get("ref_logprobs"),
        advantages=torch.tensor(advantages, dtype=F64)[places],
        mask=policy if mask is None else torch.tensor(mask, dtype=torch.bool),
        sequence=places,
        turn=torch.where(policy, turns, -1),
        sequence_tokens=torch.bincount(places[policy], minlength=len(advantages)),
        offpolicy_weight=fields.get("offpolicy_weight"),
    )


def constants_of(views: PackedViews, **changes: int) -> StepConstants:
    """Constants of an update that consists of these views alone and lost nothing."""
    values = {
        "sequences": views.sequences,
        "tokens": int(views.mask.sum()),
        "nominal_sequences": views.sequences,
        "max_tokens": 8,
        "policy_tokens": int(views.sequence_tokens.sum()),
    }
    return StepConstants(**(values | changes))


def make_trajectory(reward: float, tokens: int = 3, group_id: int = 0, index: int = 0) -> Trajectory:
    """One prompt token, then ``tokens`` policy tokens."""
    mask = np.arange(tokens + 1) > 0
    return Trajectory(
        token_ids=np.arange(tokens + 1, dtype=np.int32),
        policy_mask=mask,
        rollout_logprobs=np.where(mask, -1.0, np.nan).astype(np.float32),
        versions=np.where(mask, 0, -1).astype(np.int32),
        turns=[Turn(1, tokens + 1)],
        reward=reward,
        reward_parts={},
        success=reward >= 1,
        stop=StopReason.DONE,
        task_id=f"task-{group_id}",
        group_id=group_id,
        index=index,
        seed=index,
    )


def make_group(rewards: Sequence[float], group_id: int = 0, tokens: Sequence[int] | None = None) -> Group:
    """A group of one task with these rewards (and lengths)."""
    lengths = [3] * len(rewards) if tokens is None else tokens
    members = [
        make_trajectory(reward, length, group_id, index)
        for index, (reward, length) in enumerate(zip(rewards, lengths, strict=True))
    ]
    return Group(group_id, f"task-{group_id}", members)


def random_views(seed: int, lengths: Sequence[int], prompt: int = 2, drop: float = 0.0) -> PackedViews:
    """Random sequences of several turns with observations between them; ``drop`` of the policy tokens are unmasked."""
    rng = torch.Generator().manual_seed(seed)
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor([prompt + n for n in lengths]))
    turn = torch.cat([_turns(n, prompt) for n in lengths])
    policy = turn >= 0
    count = len(turn)
    logprobs = -torch.rand(count, generator=rng, dtype=F64) * 3
    old = logprobs + 0.3 * torch.randn(count, generator=rng, dtype=F64)
    kept = policy & (torch.rand(count, generator=rng) >= drop)
    return PackedViews(
        logprobs=logprobs.requires_grad_(),
        entropies=torch.rand(count, generator=rng, dtype=F64).requires_grad_(),
        old_logprobs=torch.where(policy, old, torch.nan),
        rollout_logprobs=torch.where(policy, old, torch.nan),
        ref_logprobs=torch.where(policy, old - 0.1, torch.nan),
        advantages=torch.randn(len(lengths), generator=rng, dtype=F64)[sequence],
        mask=kept,
        sequence=sequence,
        turn=turn,
        sequence_tokens=torch.bincount(sequence[policy], minlength=len(lengths)),
        offpolicy_weight=torch.where(policy, torch.rand(count, generator=rng, dtype=F64) * 2, torch.nan),
    )


def _turns(length: int, prompt: int) -> Tensor:
    """Turns of two tokens with an observation token (-1) after each, ``length`` positions after the prompt."""
    body = torch.arange(length)
    return torch.cat([torch.full((prompt,), -1), torch.where(body % 3 == 2, -1, body // 3)])
