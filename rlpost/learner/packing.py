"""Which sequences share a forward pass, and which rank computes them.

A pack is a set of whole sequences laid end to end, so no token is padding. Everything here is a deterministic function
of the lengths: every rank computes the same answer and takes its own part. Left out: the tensors (views.py) and how
attention keeps the sequences of a pack apart (attention.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences of one forward pass.

    Attributes:
        members: indices of its sequences, longest first; empty for a dummy pack, which only keeps ranks in step.
        tokens: sum of their lengths.
    """

    members: tuple[int, ...]
    tokens: int


def pack(lengths: Sequence[int], max_tokens: int, members: Sequence[int] | None = None) -> list[Pack]:
    """Lay whole sequences into packs of at most ``max_tokens``, first-fit decreasing.

    Args:
        lengths: tokens of each sequence.
        max_tokens: budget of a pack; a sequence longer than that gets a pack of its own.
        members: pack only these indices; absent: all.

    Returns:
        Packs in the order they were opened; ties go to the lower index.
    """
    order = sorted(range(len(lengths)) if members is None else members, key=lambda index: (-lengths[index], index))
    bins: list[list[int]] = []
    room: list[int] = []
    for index in order:
        slot = next((slot for slot, left in enumerate(room) if left >= lengths[index]), None)
        if slot is None:
            bins.append([])
            room.append(max_tokens)
            slot = len(bins) - 1
        bins[slot].append(index)
        room[slot] -= lengths[index]
    return [Pack(tuple(members), sum(lengths[index] for index in members)) for members in bins]


def share(
    lengths: Sequence[int], ranks: int, max_tokens: int, members: Sequence[int] | None = None
) -> list[list[Pack]]:
    """Packs of each rank: tokens balanced, and the same number of packs everywhere.

    Sequences go, longest first, to the rank with the fewest tokens so far; each rank packs its own; ranks with fewer
    packs get empty ones, because every forward pass is a collective.

    Returns:
        One list of packs a rank; at least one pack each.
    """
    order = sorted(range(len(lengths)) if members is None else members, key=lambda index: (-lengths[index], index))
    shares: list[list[int]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for index in order:
        rank = min(range(ranks), key=lambda candidate: (tokens[candidate], candidate))
        shares[rank].append(index)
        tokens[rank] += lengths[index]
    packs = [pack(lengths, max_tokens, own) for own in shares]
    most = max(1, *(len(own) for own in packs))
    return [own + [Pack((), 0)] * (most - len(own)) for own in packs]
