"""Which sequences share a forward pass, and which rank computes them.

A pack is a set of whole sequences laid end to end, so no token is padding. Everything here is a deterministic function
of the lengths: every rank computes the same answer and takes its own part. Left out: the tensors (views.py) and how
attention keeps the sequences of a pack apart (attention.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_TWICE = 1 / 16
"""Rows that may be computed twice, as a part of all, to have fewer packs: each costs the host as much as a few thousand
rows of a small model cost the GPU."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences of one forward pass.

    Attributes:
        members: indices of its sequences, longest first; empty for a dummy pack, which only keeps ranks in step.
        tokens: sum of their lengths.
    """

    members: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Kin:
    """Which sequences begin alike; a pack computes such a beginning once.

    Attributes:
        family: (S,) the same number for sequences that begin alike.
        stem: (S,) tokens of that beginning.
    """

    family: Sequence[int]
    stem: Sequence[int]


@dataclass(slots=True)
class _Unit:
    """Sequences that go into a pack together: one, or some of a family."""

    members: list[int]
    rows: int
    tokens: int

    def take(self, members: Sequence[int], rows: int, tokens: int) -> None:
        """Add sequences, which have so many rows of their own."""
        self.members += members
        self.rows += rows
        self.tokens += tokens


def pack(
    lengths: Sequence[int], max_tokens: int, members: Sequence[int] | None = None, kin: Kin | None = None
) -> list[Pack]:
    """Lay whole sequences into packs of at most ``max_tokens`` rows, first-fit decreasing, families together.

    A row is a token, but those of a beginning in common count once; counting them all, a pack has at most twice
    ``max_tokens``, since attention works on whole sequences. Where families kept together leave so much room that fewer
    packs hold them parted, they are parted, if their beginnings, computed twice then, are a small part of all.

    Args:
        lengths: tokens of each sequence.
        max_tokens: budget of a pack; a sequence longer than that gets a pack of its own.
        members: pack only these indices; absent: all.
        kin: which sequences begin alike; absent: none.

    Returns:
        Packs in the order they were opened; ties go to the lower index.
    """
    units = _units(lengths, max_tokens, range(len(lengths)) if members is None else members, kin)
    bins = _together(units, max_tokens)
    if kin is not None:
        parted = _parted(units, lengths, max_tokens, kin)
        if len(parted) < len(bins) and _rows(parted) <= _rows(bins) * (1 + _TWICE):
            bins = parted
    return [Pack(tuple(_longest_first(lengths, one.members)), one.tokens) for one in bins]


def _together(units: Sequence[_Unit], most: int) -> list[_Unit]:
    """First-fit: each unit into the first pack that holds all of it."""
    bins: list[_Unit] = []
    for unit in units:
        into = next((one for one in bins if _fits(one, unit.rows, unit.tokens, most)), None)
        if into is None:
            bins.append(into := _Unit([], 0, 0))
        into.take(unit.members, unit.rows, unit.tokens)
    return bins


def _parted(units: Sequence[_Unit], lengths: Sequence[int], most: int, kin: Kin) -> list[_Unit]:
    """Next-fit: sequence after sequence, family after family, into the last pack until it is full."""
    bins: list[_Unit] = []
    last = None
    for index in (member for unit in units for member in unit.members):
        rows = lengths[index] - (kin.stem[index] if kin.family[index] == last else 0)
        if not bins or not _fits(bins[-1], rows, lengths[index], most):
            bins.append(_Unit([], 0, 0))
            rows = lengths[index]
        bins[-1].take([index], rows, lengths[index])
        last = kin.family[index]
    return bins


def _rows(units: Sequence[_Unit]) -> int:
    return sum(unit.rows for unit in units)


def _fits(into: _Unit, rows: int, tokens: int, most: int) -> bool:
    return into.rows + rows <= most and into.tokens + tokens <= 2 * most


def _longest_first(lengths: Sequence[int], members: Iterable[int]) -> list[int]:
    return sorted(members, key=lambda index: (-lengths[index], index))


def _units(lengths: Sequence[int], most: int, members: Sequence[int], kin: Kin | None) -> list[_Unit]:
    """What is not to be parted, as far as a pack holds it; the largest first."""
    units: list[_Unit] = []
    open_: dict[int, _Unit] = {}
    for index in _longest_first(lengths, members):
        family, stem = (index, 0) if kin is None else (kin.family[index], kin.stem[index])
        unit = open_.get(family)
        if unit is None or not _fits(unit, lengths[index] - stem, lengths[index], most):
            unit = open_[family] = _Unit([], stem, 0)
            units.append(unit)
        unit.take([index], lengths[index] - stem, lengths[index])
    return sorted(units, key=lambda unit: (-unit.rows, unit.members[0]))


def pack_padded(lengths: Sequence[int], max_tokens: int, members: Sequence[int]) -> list[Pack]:
    """Packs whose sequences, all padded to the longest of them, have at most ``max_tokens`` tokens; next-fit
    decreasing, so that sequences of similar length meet."""
    bins: list[list[int]] = []
    for index in _longest_first(lengths, members):
        if bins and (len(bins[-1]) + 1) * lengths[bins[-1][0]] <= max_tokens:
            bins[-1].append(index)
        else:
            bins.append([index])
    return [Pack(tuple(own), sum(lengths[index] for index in own)) for own in bins]


def share(
    lengths: Sequence[int],
    ranks: int,
    max_tokens: int,
    members: Sequence[int] | None = None,
    kin: Kin | None = None,
    padded: bool = False,
) -> list[list[Pack]]:
    """Packs of each rank: rows balanced, and the same number of packs everywhere.

    Sequences (families, where there are several a rank) go, largest first, to the rank with the fewest rows so far;
    each rank packs its own (``padded``: by ``pack_padded``); ranks with fewer packs get empty ones, because every
    forward pass is a collective.

    Returns:
        One list of packs a rank; at least one pack each.
    """
    chosen = range(len(lengths)) if members is None else members
    whole = kin is not None and len({kin.family[index] for index in chosen}) >= 4 * ranks
    shares: list[list[int]] = [[] for _ in range(ranks)]
    rows = [0] * ranks
    for unit in _units(lengths, max_tokens, chosen, kin if whole else None):
        rank = min(range(ranks), key=lambda candidate: (rows[candidate], candidate))
        shares[rank] += unit.members
        rows[rank] += unit.rows
    packs = [pack_padded(lengths, max_tokens, own) if padded else pack(lengths, max_tokens, own, kin) for own in shares]
    most = max(1, *(len(own) for own in packs))
    return [own + [Pack((), 0)] * (most - len(own)) for own in packs]
