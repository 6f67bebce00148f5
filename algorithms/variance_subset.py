"""The subset of given size with the largest variance, exactly, in O(M log M).

A best subset of size n consists of the k largest and the n - k smallest values for some k (moving any inner member to
an end of the sorted order never lowers the variance), so one sort, prefix sums and a scan over k find it. Left out:
anything about advantages; see d3s.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpost.algorithms.base import AlgorithmError

TIE = 1e-12
"""Subsets whose variances differ by less than this, relative to the largest, are equally good."""


def max_variance_subset(values: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices of n of the M values whose variance is the largest possible.

    Args:
        values: (M,) finite numbers of any dtype, compared in float64 on the CPU.
        n: size of the subset, 1..M.
        generator: draws among equally good subsets and equal values; None is one seeded with 0.

    Returns:
        (n,) int64, ascending, on the device of ``values``; ``arange(M)`` where n = M.

    Raises:
        AlgorithmError: not a vector, a value that is not finite, or n outside 1..M.
    """
    if values.ndim != 1:
        raise AlgorithmError(f"the values to choose from must be a vector, not of shape {tuple(values.shape)}")
    if not 1 <= n <= len(values):
        raise AlgorithmError(f"cannot choose {n} of {len(values)} values: n must lie between 1 and their number")
    if not bool(torch.isfinite(values).all()):
        raise AlgorithmError("cannot choose by variance: some of the values are not finite")
    if n == len(values):
        return torch.arange(n, device=values.device)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    numbers = values.detach().to("cpu", torch.float64)
    shuffled = torch.randperm(len(numbers), generator=generator)
    order = shuffled[torch.argsort(numbers[shuffled], stable=True)]  # equal values stand in random order
    largest = _best_split(numbers[order] - numbers.mean(), n, generator)
    chosen = torch.cat([order[: n - largest], order[len(order) - largest :]])
    return chosen.sort().values.to(values.device)


def _best_split(ascending: Tensor, n: int, generator: torch.Generator) -> int:
    """How many of the n to take from the upper end; drawn among equally good ones. Values are about centred."""
    largest = torch.arange(n + 1)
    spread = _ends(ascending**2, n, largest) - _ends(ascending, n, largest) ** 2 / n
    best = (spread >= spread.max() - TIE * spread.max().abs()).nonzero().squeeze(1)
    return int(best[torch.randint(len(best), (1,), generator=generator)])


def _ends(ascending: Tensor, n: int, largest: Tensor) -> Tensor:
    """(n+1,) sum of the n - k first and the k last entries, for each k in ``largest``."""
    prefix = torch.cat([torch.zeros(1, dtype=ascending.dtype), ascending.cumsum(0)])
    return prefix[n - largest] + prefix[-1] - prefix[len(ascending) - largest]
