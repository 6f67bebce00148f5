"""The slower exact path: the model's own attention, each sequence in a row of its own.

``PaddedRows`` is for causal models whose attention does more than packed attention can (sinks, caps, position biases,
windows that only the mask knows of), or takes no layout: a pack becomes a batch of right-padded rows, whose padding a
causal model's real tokens never see, and the output head stays tiled. ``OwnForward`` is for masked-diffusion models
that bring their own code: sequence by sequence, with full logits. Left out: prompts shared between sequences, and
compiled layers.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from rlpost.learner.attention import PackedLayout, PaddedGroup, to_device
from rlpost.learner.policy import PolicyModel
from rlpost.rollout.diffusion.states import IMPOSSIBLE


class PaddedRows(PolicyModel):
    """A causal policy that computes with its own attention; arguments and results as for PolicyModel.

    Args:
        attention: transformers' name of it, "sdpa" or "eager".
    """

    packs = False

    def __init__(
        self, model: PreTrainedModel, compute: torch.dtype, tile: int | None = None, attention: str = "eager"
    ) -> None:
        self.attention = attention
        super().__init__(model, compute, tile)

    def layout(self, lengths: list[int], rows: NDArray[np.int64] | None = None) -> PackedLayout:
        """All sequences as one group of padded rows: one forward pass, so that ranks stay in step."""
        sizes = np.asarray(lengths, dtype=np.int64)
        starts, width = np.cumsum(sizes) - sizes, int(sizes.max())
        within = np.arange(width)[None]
        gather = (starts[:, None] + np.minimum(within, sizes[:, None] - 1)).ravel()
        group = PaddedGroup(
            len(sizes),
            width,
            0,
            to_device(gather, self.device),
            to_device(np.flatnonzero(within < sizes[:, None]), self.device),
        )
        positions = to_device(np.arange(sizes.sum()) - np.repeat(starts, sizes), self.device)[None]
        ends = to_device(np.append(starts, sizes.sum()).astype(np.int32), self.device)
        return PackedLayout(positions, ends, width, True, (group,))

    def hidden(self, input_ids: Tensor, layout: PackedLayout, rows: Tensor) -> Tensor:
        """(R, d) at ``rows`` of the pack, through padded rows."""
        (group,) = layout.groups
        assert group.gather is not None
        assert group.keep is not None
        states = self._body(input_ids[0].index_select(0, group.gather).view(group.rows, group.width))
        return states.flatten(0, 1).index_select(0, group.keep.index_select(0, rows))


class OwnForward(PolicyModel):
    """A policy computed sequence by sequence; arguments and results as for PolicyModel."""

    packs = False

    def use_attention(self) -> None:
        """The model's own code decides."""

    def forward(
        self, input_ids: Tensor, layout: PackedLayout, rows: Tensor, targets: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """See PolicyModel.forward; ``rows`` are ascending."""
        parts = []
        for start, end in pairwise(layout.cu_seqlens.tolist()):
            logits = self.model(input_ids=input_ids[:, start:end]).logits[0]
            parts.append(logits[rows[(rows >= start) & (rows < end)] - start])
        logits = torch.cat(parts)
        logits = (logits if logits.dtype is torch.float64 else logits.float()) / temperature
        if self.reading.mask_token_id is not None:
            never = torch.tensor([self.reading.mask_token_id], device=logits.device)
            logits = logits.index_fill(1, never, IMPOSSIBLE)
        logprobs = torch.log_softmax(logits, dim=-1)
        return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)
