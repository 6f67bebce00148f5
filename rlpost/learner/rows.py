"""Token sequences laid end to end, cut into packs, and scored by the policy without gradient.

A position is an input token; what it predicts is the model's to say (reading.py): for a causal model the next token,
so that a sequence of T tokens has T - 1 positions. Cutting happens in NumPy on the host and a pack goes to the device
in one piece. Left out: everything a loss needs besides (views.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlpost.learner.attention import PackedLayout, owned, to_device
from rlpost.learner.packing import Kin, Pack, share
from rlpost.learner.policy import PolicyModel
from rlpost.learner.reading import Reading
from rlpost.learner.sharding import Ranks
from rlpost.learner.sharing import shared_rows


@dataclass(frozen=True, slots=True)
class ForwardInputs:
    """One pack on the device: p positions of its sequences, in n <= p rows since equal prompts stand there once.

    Attributes:
        input_ids: (1, n) int64.
        layout: where each sequence lies.
        rows: (R,) int64, the row of each position whose prediction is scored.
        targets: (R,) int64, those tokens.
        positions: (p,) int64, places among all P positions.
        places: (R,) int64, the scored ones among the p.
        scored: (R,) int64, ``positions`` at ``places``.
    """

    input_ids: Tensor
    layout: PackedLayout
    rows: Tensor
    targets: Tensor
    positions: Tensor
    places: Tensor
    scored: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """S sequences, P positions in all, on the host.

    Attributes:
        bounds: (S + 1,) where each sequence's positions start, then P.
        tokens: (P,) int64, the token at each position.
        targets: (P,) int64, the one it predicts.
        wanted: (P,) bool, whether that prediction is scored.
    """

    bounds: NDArray[np.int64]
    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    wanted: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        reading: Reading,
        sequences: Sequence[NDArray[np.int32]],
        wanted: Sequence[NDArray[np.bool_]],
        masked: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> Rows:
        """Lay out sequences of T >= 1 tokens as the model reads them; ``wanted[i]`` (T,) says which of its tokens are
        scored (those no row predicts never are), ``masked[i]`` (T,) which it does not see."""
        hidden = [None] * len(sequences) if masked is None else masked
        fed = [reading.fed(ids, places) for ids, places in zip(sequences, hidden, strict=True)]
        bounds = np.concatenate([[0], np.cumsum([len(ids) for ids in fed])]).astype(np.int64)
        return cls(
            bounds,
            np.concatenate(fed).astype(np.int64),
            np.concatenate([reading.by_row(ids, 0) for ids in sequences]).astype(np.int64),
            np.concatenate([reading.by_row(mask, False) for mask in wanted]),
        )

    @property
    def lengths(self) -> list[int]:
        """Positions of each sequence."""
        lengths: list[int] = np.diff(self.bounds).tolist()
        return lengths

    def inputs(self, pack: Pack, model: PolicyModel) -> ForwardInputs:
        """Cut out one pack; an empty one becomes a single token of which nothing is scored."""
        device = model.device
        if not pack.members:
            nothing = torch.zeros(0, dtype=torch.int64, device=device)
            token = torch.zeros(1, 1, dtype=torch.int64, device=device)
            return ForwardInputs(token, model.layout([1]), nothing, nothing, nothing, nothing, nothing)
        spans = [np.arange(self.bounds[member], self.bounds[member + 1]) for member in pack.members]
        shares = model.reading.causal and model.packs
        rows = shared_rows([self.tokens[span] for span in spans], self._stems(spans)) if shares else None
        positions = np.concatenate(spans)
        places = np.flatnonzero(self.wanted[positions])
        scored = positions[places]
        inputs = positions if rows is None else positions[owned(rows)]
        return ForwardInputs(
            input_ids=to_device(self.tokens[inputs], device)[None],
            layout=model.layout([len(span) for span in spans], rows),
            rows=to_device(places if rows is None else rows[places], device),
            targets=to_device(self.targets[scored], device),
            positions=to_device(positions, device),
            places=to_device(places, device),
            scored=to_device(scored, device),
        )

    def _stems(self, spans: Sequence[NDArray[np.int64]]) -> list[int]:
        """What stands before the first scored token is a prompt, which other sequences may have too."""
        return [min(len(span), int(np.argmax(self.wanted[span])) + 1) for span in spans]

    def packs(self, model: PolicyModel, ranks: int, max_tokens: int, members: Sequence[int]) -> list[list[Pack]]:
        """Packs of each rank, sequences with a prompt in common together; see ``packing.share``."""
        lengths = self.lengths
        if not (model.reading.causal and model.packs):
            return share(lengths, ranks, max_tokens, members, padded=model.reading.causal)
        seen: dict[bytes, int] = {}
        family, stem = list(range(len(lengths))), [0] * len(lengths)
        for index in members:
            span = np.arange(self.bounds[index], self.bounds[index + 1])
            (stem[index],) = self._stems([span])
            family[index] = seen.setdefault(self.tokens[span[: stem[index]]].tobytes(), index)
        return share(lengths, ranks, max_tokens, members, Kin(family, stem))


@torch.no_grad()
def score_rows(
    model: PolicyModel,
    ranks: Ranks,
    rows: Rows,
    max_tokens: int,
    temperature: float,
    members: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of all wanted positions (of sequences ``members``), each pack computed by one rank and
    known to all.

    Returns:
        ``(logprobs, entropies)``, both (P,), fp32 (fp64 for an fp64 model); 0 where not wanted.
    """
    lengths = rows.lengths
    whole: Tensor | None = None
    chosen = [index for index in (range(len(lengths)) if members is None else members) if lengths[index]]
    for pack in rows.packs(model, ranks.world, max_tokens, chosen)[ranks.rank]:
        inputs = rows.inputs(pack, model)
        scores = torch.stack(model(inputs.input_ids, inputs.layout, inputs.rows, inputs.targets, temperature))
        if whole is None:
            whole = scores.new_zeros(2, len(rows.tokens))
        whole[:, inputs.scored] = scores
    model.settle()
    assert whole is not None
    ranks.sum(whole)
    return whole[0], whole[1]
