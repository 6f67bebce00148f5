"""Kept trajectories as flat tensors, and the part of them that a loss sees for one pack.

What follows the last token the policy sampled is never computed. Only positions that predict a policy token get a
log-probability; the others are present with ``mask`` false and zeros, so nothing a loss does can reach the model
through them. Left out: where log-probabilities come from (rows.py, policy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.base import PackedViews
from rlpost.learner.attention import to_device
from rlpost.learner.packing import Pack
from rlpost.learner.rows import ForwardInputs, Rows
from rollout.trajectory import Trajectory


@dataclass(slots=True)
class FlatBatch:
    """S kept sequences, P positions; tensors are on the model's device.

    Attributes:
        rows: the sequences; a position is wanted where it predicts a token the policy sampled.
        policy: (P,) bool, the same on the device.
        mask: (P,) bool, what token selection left of ``policy``.
        rollout_logprobs: (P,) fp32, NaN where not policy.
        advantages: (P,) fp32.
        turn, sequence: (P,) int64.
        sequence_tokens: (S,) fp32, policy tokens of each sequence.
        old_logprobs, entropies, ref_logprobs, offpolicy_weight: (P,) or None; filled in by the step.
    """

    rows: Rows
    policy: Tensor
    mask: Tensor
    rollout_logprobs: Tensor
    advantages: Tensor
    turn: Tensor
    sequence: Tensor
    sequence_tokens: Tensor
    old_logprobs: Tensor | None = None
    entropies: Tensor | None = None
    ref_logprobs: Tensor | None = None
    offpolicy_weight: Tensor | None = None

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory], advantages: NDArray[np.float64], device: torch.device) -> FlatBatch:
        """Lay out trajectories, each ``learnable``, with the (S,) advantages of all their positions."""
        ends = [int(np.flatnonzero(one.policy_mask)[-1]) + 1 for one in trajectories]
        masks = [one.policy_mask[:end] for one, end in zip(trajectories, ends, strict=True)]
        rows = Rows.of([one.token_ids[:end] for one, end in zip(trajectories, ends, strict=True)], masks)
        sampled = np.concatenate([one.rollout_logprobs[1:end] for one, end in zip(trajectories, ends, strict=True)])
        turns = np.concatenate([_turns(one)[1:end] for one, end in zip(trajectories, ends, strict=True)])
        sequence = np.repeat(np.arange(len(trajectories)), rows.lengths)
        policy = torch.from_numpy(rows.wanted).to(device)
        return cls(
            rows=rows,
            policy=policy,
            mask=policy,
            rollout_logprobs=torch.from_numpy(sampled.astype(np.float32)).to(device),
            advantages=torch.from_numpy(np.repeat(advantages, rows.lengths).astype(np.float32)).to(device),
            turn=torch.from_numpy(turns).to(device),
            sequence=torch.from_numpy(sequence).to(device),
            sequence_tokens=torch.tensor([int(mask[1:].sum()) for mask in masks], dtype=torch.float32, device=device),
        )

    def views(
        self, pack: Pack, inputs: ForwardInputs, logprobs: Tensor, entropies: Tensor | None, fresh: bool
    ) -> PackedViews:
        """What the loss of one pack sees.

        Args:
            pack: a pack that is not empty.
            inputs: the same, as it went into the model.
            logprobs: (R,) of the scored rows, with gradient.
            entropies: (R,) likewise, or None where the loss reads none.
            fresh: the weights are still those of the start of the step, so old log-probs are the current ones.
        """
        at = inputs.positions
        current = logprobs.new_zeros(len(at)).index_copy(0, inputs.rows, logprobs)
        members = np.array(pack.members, dtype=np.int64)
        lengths = np.diff(self.rows.bounds)[members]
        return PackedViews(
            logprobs=current,
            entropies=None if entropies is None else current.new_zeros(len(at)).index_copy(0, inputs.rows, entropies),
            old_logprobs=current.detach() if fresh or self.old_logprobs is None else self.old_logprobs[at],
            rollout_logprobs=self.rollout_logprobs[at],
            ref_logprobs=None if self.ref_logprobs is None else self.ref_logprobs[at],
            advantages=self.advantages[at],
            mask=self.mask[at],
            sequence=to_device(np.repeat(np.arange(len(members)), lengths), at.device),
            turn=self.turn[at],
            sequence_tokens=self.sequence_tokens[to_device(members, at.device)],
            offpolicy_weight=None if self.offpolicy_weight is None else self.offpolicy_weight[at],
        )

    def per_trajectory(self, values: Tensor, trajectories: Sequence[Trajectory]) -> list[NDArray[np.float32]]:
        """(P,) values as one (T,) array a trajectory, NaN where not policy."""
        host = np.where(self.rows.wanted, values.float().cpu().numpy(), np.nan).astype(np.float32)
        arrays = []
        for index, trajectory in enumerate(trajectories):
            part = host[self.rows.bounds[index] : self.rows.bounds[index + 1]]
            array = np.full(len(trajectory), np.nan, dtype=np.float32)
            array[1 : len(part) + 1] = part
            arrays.append(array)
        return arrays


def learnable(trajectory: Trajectory) -> bool:
    """Whether any token of the policy has something before it, without which it has no log-probability."""
    return bool(trajectory.policy_mask[1:].any())


def _turns(trajectory: Trajectory) -> NDArray[np.int64]:
    """(T,) index of the turn each token belongs to, -1 where not policy."""
    turns = np.full(len(trajectory), -1, dtype=np.int64)
    for index, turn in enumerate(trajectory.turns):
        turns[turn.start : turn.end] = index
    turns[~trajectory.policy_mask] = -1
    return turns
