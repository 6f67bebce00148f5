"""What a diffusion engine and the learner must do alike: which token is never drawn, and the masked states in which
both score the tokens of a probe, to be compared.

Every second token is masked, then every other: so each token is scored once, in a state where half of its sequence is
known. Left out: the scoring itself (the engine's and the learner's own, neither with a cache).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IMPOSSIBLE = -1e30
"""Logit of a token that is never drawn, the mask token: its probability is exactly 0, and times its logarithm still 0
and not NaN."""


def probe_ids(token_ids: Sequence[int], mask_token_id: int) -> NDArray[np.int32]:
    """The probe's ids, with another token in place of the mask token, which no model ever predicts."""
    ids = np.asarray(token_ids, dtype=np.int32)
    return np.where(ids == mask_token_id, np.int32(mask_token_id == 0), ids)


def probe_masks(length: int) -> list[NDArray[np.bool_]]:
    """(length,) bool each: even positions masked, then odd ones."""
    odd = np.arange(length) % 2 == 1
    return [~odd, odd]
