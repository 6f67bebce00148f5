"""Digests of weights that add up over pieces: what an engine holds is compared with what the learner sent, bit for bit.

An engine fuses, splits and pads the tensors of a Hugging Face model, and no process of a tensor-parallel one has them
whole. So the digest of a tensor is a sum over its 64-bit words:

    D = sum_ij w_ij r_i c_j  (mod 2^64),   i the row, j the word in it, r_i and c_j odd pseudo-random constants.

A piece adds the words it has. The constants are odd, so one changed bit always changes D; words or tensors that changed
places change it but for a chance of 2^-63. Left out: which pieces an engine has (rollout/vllm/readback.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 24
"""Words whose constants are in memory at once."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A piece whose part of the sum, an int64 scalar, is still on its way on a device; see ``Piece``."""

    first: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    total: Tensor


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a tensor, as an engine has it.

    Attributes:
        first: row-major index, in the whole tensor, of the piece's first element.
        sizes, strides: of the piece's elements in the whole tensor.
        digest: its words' part of the sum.
    """

    first: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    digest: int

    @property
    def elements(self) -> int:
        """How many elements of the tensor it is."""
        return math.prod(self.sizes)


Held = dict[str, list[Piece]]
"""By Hugging Face name, the pieces of a tensor that one process of an engine has; a tensor it has none of is absent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A whole tensor, as the learner sent it: its digest D, and how many elements it has."""

    digest: int
    elements: int

    @classmethod
    def of(cls, tensor: Tensor) -> Sent:
        """Of a tensor, whatever its strides in memory."""
        [piece] = read([whole_piece(tensor)])
        return cls(piece.digest, piece.elements)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous tensor of this shape."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def whole_piece(tensor: Tensor) -> Unread:
    """A tensor as one piece of itself."""
    return piece_of(tensor, tensor.shape, 0, row_major(tensor.shape))


def read(pieces: Sequence[Unread]) -> list[Piece]:
    """The digests of pieces, brought from their device in one go."""
    if not pieces:
        return []
    totals = torch.stack([piece.total for piece in pieces]).tolist()
    parts = zip(pieces, totals, strict=True)
    return [Piece(piece.first, piece.sizes, piece.strides, total & _MASK) for piece, total in parts]


def piece_of(held: Tensor, whole: Sequence[int], first: int, strides: Sequence[int]) -> Unread:
    """A piece, its sum started.

    Args:
        held: the values, in any memory layout; element (i, j, ...) is the one at ``first + i strides[0] + ...`` of the
            whole tensor.
        whole: shape of the whole tensor.
        first, strides: see ``Piece``.

    Raises:
        ValueError: a piece cuts through a word.
    """
    if held.dim() == 0:
        return piece_of(held.reshape(1), (1,), first, (1,))
    order = sorted(range(held.dim()), key=lambda axis: (held.shape[axis] != 1, -strides[axis]))
    steps = [strides[axis] for axis in order]
    ordered = held.detach().permute(order).contiguous()
    elements = _elements_of_a_word(whole[-1] if whole else 1, held.element_size())
    if elements > 1 and (steps[-1] != 1 or any(n % elements for n in (first, ordered.shape[-1], *steps[:-1]))):
        raise ValueError(f"a piece of sizes {tuple(held.shape)} and strides {tuple(strides)} cuts through a word")
    words = ordered.view(_INTEGERS[held.element_size() * elements]).reshape(-1, ordered.shape[-1] // elements)
    row = whole[-1] if whole else 1
    inner = _run(first % row // elements, words.shape[-1], steps[-1] if elements == 1 else 1, row, held.device)
    outer = _rows(first // row, list(zip(ordered.shape[:-1], steps[:-1], strict=True)), row, held.device)
    total = torch.zeros((), dtype=torch.int64, device=held.device)
    rows = max(1, _CHUNK // max(1, words.shape[-1]))
    for part, constants in zip(words.split(rows), outer.split(rows), strict=True):
        total += ((part * inner).sum(-1) * constants).sum()
    return Unread(first, tuple(held.shape), tuple(strides), total)


def _elements_of_a_word(row: int, size: int) -> int:
    """Elements that are read as one 64-bit word: 1 where the tensor's rows are no whole number of words."""
    return 8 // size if row * size % 8 == 0 else 1


def _run(start: int, count: int, step: int, row: int, device: torch.device) -> Tensor:
    """c_j of ``count`` words of a row of ``row`` elements."""
    return _constants(row, 0, device)[start : start + (count - 1) * step + 1 : step]


def _rows(start: int, axes: list[tuple[int, int]], row: int, device: torch.device) -> Tensor:
    """r_i of the rows that lie ``step // row`` apart along each of the outer axes."""
    count, contiguous = 1, True
    for size, step in reversed(axes):
        contiguous = contiguous and (size == 1 or step == count * row)
        count *= size
    table = _constants(_power_above(start + sum((size - 1) * step // row for size, step in axes) + 1), 1, device)
    if contiguous:
        return table[start : start + count]
    places = torch.tensor([start], device=device)
    for size, step in axes:
        places = (places.unsqueeze(-1) + torch.arange(size, device=device) * (step // row)).flatten()
    return table[places]


def _power_above(count: int) -> int:
    return 1 << (count - 1).bit_length()


@functools.lru_cache(maxsize=256)
def _constants(count: int, kind: int, device: torch.device) -> Tensor:
    """(count,) odd pseudo-random int64; those of columns (kind 0) and of rows (1) differ."""
    places = torch.arange(count, device=device) * 2 + kind
    mixed = places * -7046029254386353131  # 2^64 / golden ratio
    mixed = (mixed ^ (mixed >> 31)) * -4658895280553007687
    return (mixed ^ (mixed >> 29)) | 1


def mismatches(sent: Mapping[str, Sent], held: Sequence[Held]) -> list[str]:
    """Where engines do not hold what was sent.

    Args:
        sent: the learner's digests, by Hugging Face name.
        held: for each process of an engine, the pieces it has of each tensor. A tensor that no process has a piece of
            (a tied head, which some engines drop) is not judged here.

    Returns:
        one line a tensor that differs.
    """
    found = []
    for name, whole in sent.items():
        parts: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {}
        pieces = [piece for process in held for piece in process.get(name, ())]
        for piece in pieces:
            place = (piece.first, piece.sizes, piece.strides)
            if parts.setdefault(place, piece.digest) != piece.digest:
                found.append(f"'{name}': two copies of one part of it differ")
                break
        else:
            elements = sum(math.prod(sizes) for _, sizes, _ in parts)
            if pieces and elements != whole.elements:
                found.append(f"'{name}': {elements} of its {whole.elements} elements arrived")
            elif pieces and sum(parts.values()) & _MASK != whole.digest:
                found.append(f"'{name}': what the engine holds is not what was sent")
    return found
