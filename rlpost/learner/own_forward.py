"""The slower exact path: models that bring their own code, whose attention knows nothing of packed rows.

Each sequence goes through the model's own forward pass, and the wanted rows of its full logits are scored. Left out:
tiles, and models of which even that would not be exact (there are none: these are the model's own numbers).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from rlpost.learner.attention import PackedLayout
from rlpost.learner.policy import PolicyModel
from rlpost.rollout.diffusion.states import IMPOSSIBLE


class OwnForward(PolicyModel):
    """A policy computed sequence by sequence; arguments and results as for PolicyModel."""

    packs = False

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
