"""Kept trajectories as flat tensors, and the part of them that a loss sees for one pack.

What follows the last token the policy sampled is never computed. Only positions that predict a policy token get a
log-probability; the others are present with ``mask`` false and zeros, so nothing a loss does can reach the model
through them. Left out: where log-probabilities come from (rows.py, policy.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlpost.algorithms.base import PackedViews, View
from rlpost.learner.attention import to_device
from rlpost.learner.offpolicy import truncated_weight
from rlpost.learner.packing import Pack
from rlpost.learner.reading import Reading
from rlpost.learner.rows import ForwardInputs, Rows
from rlpost.rollout.trajectory import Trajectory


@dataclass(slots=True)
class FlatBatch:
    """S sequences (views of kept trajectories, those of one trajectory side by side), P positions; tensors are on the
    model's device.

    Attributes:
        reading: how the model reads them.
        rows: the sequences; a position is wanted where it predicts a token that a view scores.
        response: (S,) int64 on the host, the kept trajectory that each sequence is a view of.
        policy: (P,) bool, ``rows.wanted`` on the device.
        mask: (P,) bool, what token selection left of ``policy``.
        rollout_logprobs: (P,) fp32, NaN where not policy.
        advantages: (P,) fp32.
        turn, sequence: (P,) int16 and int32: there may be many masked views of each trajectory.
        sequence_tokens: (S,) fp32, scored tokens of each sequence.
        extra: (P,) fp32 by name, for the loss.
        old_logprobs, entropies, ref_logprobs: (P,) or None; filled in by the step.
        offpolicy_cap: largest weight of a token for the lag of its rollout; None where tokens are not weighted.
    """

    reading: Reading
    rows: Rows
    response: NDArray[np.int64]
    policy: Tensor
    mask: Tensor
    rollout_logprobs: Tensor
    advantages: Tensor
    turn: Tensor
    sequence: Tensor
    sequence_tokens: Tensor
    extra: dict[str, Tensor]
    old_logprobs: Tensor | None = None
    entropies: Tensor | None = None
    ref_logprobs: Tensor | None = None
    offpolicy_cap: float | None = None

    @classmethod
    def of(
        cls,
        reading: Reading,
        trajectories: Sequence[Trajectory],
        views: Sequence[Sequence[View]],
        advantages: NDArray[np.float64],
        device: torch.device,
    ) -> FlatBatch:
        """Lay out the views of each ``learnable`` trajectory, with the trajectories' advantages at all positions."""
        ends = [learned_length(one) + 1 for one in trajectories]
        response = np.repeat(np.arange(len(trajectories)), [len(own) for own in views])
        flat = [view for own in views for view in own]
        cut = [(trajectories[index], view, ends[index]) for index, view in zip(response, flat, strict=True)]
        rows = Rows.of(
            reading,
            [one.token_ids[:end] for one, _, end in cut],
            [view.scored[:end] for _, view, end in cut],
            [None if view.masked is None else view.masked[:end] for _, view, end in cut],
        )

        def by_row(arrays: Iterable[NDArray[Any]], fill: Any) -> Tensor:
            return torch.from_numpy(np.concatenate([reading.by_row(array, fill) for array in arrays])).to(device)

        turns = [_turns(one)[:end] for one, end in zip(trajectories, ends, strict=True)]
        tokens = np.add.reduceat(rows.wanted, rows.bounds[:-1], dtype=np.float32)
        policy = torch.from_numpy(rows.wanted).to(device)
        return cls(
            reading=reading,
            rows=rows,
            response=response,
            policy=policy,
            mask=policy,
            rollout_logprobs=by_row((one.rollout_logprobs[:end].astype(np.float32) for one, _, end in cut), np.nan),
            advantages=torch.from_numpy(np.repeat(advantages[response], rows.lengths).astype(np.float32)).to(device),
            turn=by_row((turns[index].astype(np.int16) for index in response), -1),
            sequence=torch.from_numpy(np.repeat(np.arange(len(cut), dtype=np.int32), rows.lengths)).to(device),
            sequence_tokens=torch.from_numpy(tokens).to(device),
            extra={name: by_row((view.extra[name][:end] for _, view, end in cut), 0) for name in flat[0].extra},
        )

    def sequences_of(self, trajectories: Sequence[int] | NDArray[np.int64]) -> list[int]:
        """The views of these kept trajectories."""
        views: list[int] = np.flatnonzero(np.isin(self.response, trajectories)).tolist()
        return views

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
        current = logprobs.new_zeros(len(at)).index_copy(0, inputs.places, logprobs)
        members = np.array(pack.members, dtype=np.int64)
        lengths = np.diff(self.rows.bounds)[members]
        old = current.detach() if fresh or self.old_logprobs is None else self.old_logprobs[at]
        rollout, cap = self.rollout_logprobs[at], self.offpolicy_cap
        return PackedViews(
            logprobs=current,
            entropies=None if entropies is None else current.new_zeros(len(at)).index_copy(0, inputs.places, entropies),
            old_logprobs=old,
            rollout_logprobs=rollout,
            ref_logprobs=None if self.ref_logprobs is None else self.ref_logprobs[at],
            advantages=self.advantages[at],
            mask=self.mask[at],
            sequence=to_device(np.repeat(np.arange(len(members)), lengths), at.device),
            turn=self.turn[at].long(),
            sequence_tokens=self.sequence_tokens[to_device(members, at.device)],
            offpolicy_weight=None if cap is None else truncated_weight(old, rollout, self.policy[at], cap),
            response=to_device(np.unique(self.response[list(pack.members)], return_inverse=True)[1], at.device),
            extra={name: values[at] for name, values in self.extra.items()},
        )

    def per_trajectory(self, values: Tensor, trajectories: Sequence[Trajectory]) -> list[NDArray[np.float32]]:
        """(P,) values as one (T,) array a trajectory, NaN where not policy."""
        host = np.where(self.rows.wanted, values.float().cpu().numpy(), np.nan).astype(np.float32)
        arrays = []
        for index, trajectory in enumerate(trajectories):
            part = self.reading.by_token(host[self.rows.bounds[index] : self.rows.bounds[index + 1]], np.nan)
            array = np.full(len(trajectory), np.nan, dtype=np.float32)
            array[: len(part)] = part
            arrays.append(array)
        return arrays


def learnable(trajectory: Trajectory) -> bool:
    """Whether any token of the policy has something before it, without which it has no log-probability."""
    return bool(trajectory.policy_mask[1:].any())


def learned_length(trajectory: Trajectory) -> int:
    """Positions that are computed: up to the one that predicts its last policy token; 0 where it is not learnable."""
    return int(np.flatnonzero(trajectory.policy_mask)[-1]) if learnable(trajectory) else 0


def _turns(trajectory: Trajectory) -> NDArray[np.int64]:
    """(T,) index of the turn each token belongs to, -1 where not policy."""
    turns = np.full(len(trajectory), -1, dtype=np.int64)
    for index, turn in enumerate(trajectory.turns):
        turns[turn.start : turn.end] = index
    turns[~trajectory.policy_mask] = -1
    return turns
