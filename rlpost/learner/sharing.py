"""Episodes of a group begin with the same prompt; in a pack those rows stand, and are computed, once.

A token's hidden state depends on what stands before it only, so sequences that begin alike have equal states there, and
the gradient of a shared row is the sum over the sequences that share it. Left out: beginnings in common that go on
beyond the first token the policy sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORTH = 1 / 16  # attention gathers whole sequences from shared rows, which saving fewer rows would not pay for


def shared_rows(sequences: Sequence[NDArray[np.int64]], stems: Sequence[int]) -> NDArray[np.int64] | None:
    """Lay sequences end to end with equal stems only once.

    Args:
        sequences: token ids, (L_i,) each.
        stems: how many leading tokens of each may be shared, at most L_i.

    Returns:
        (N,) row of each of the N = sum of L_i tokens, numbered as they first occur; None where that saves too little.
    """
    seen: dict[bytes, int] = {}
    rows: list[NDArray[np.int64]] = []
    free = 0
    for ids, stem in zip(sequences, stems, strict=True):
        start = seen.setdefault(ids[:stem].tobytes(), free)
        shared = min(stem, len(ids) - 1) if start < free else 0  # a row of its own even where nothing follows the stem
        own = np.arange(free, free + len(ids) - shared)
        rows += [np.arange(start, start + shared), own]
        free += len(own)
    laid = np.concatenate(rows)
    return laid if free <= len(laid) * (1 - _WORTH) else None
