"""Digests of tensors: sums over pieces, sensitive to every bit and every place."""

from __future__ import annotations

import pytest
import torch

from rlpost.rollout.digest import Piece, Sent, mismatches, piece_of, read, row_major

MASK = (1 << 64) - 1


def constant(i: int, kind: int) -> int:
    """c_i (kind 0) or r_i (1) by Python's integers."""

    def signed(x: int) -> int:
        return (x & MASK) - (1 << 64) if x & (1 << 63) else x & MASK

    mixed = signed((2 * i + kind) * -7046029254386353131)
    mixed = signed((mixed ^ (mixed >> 31)) * -4658895280553007687)
    return (mixed ^ (mixed >> 29)) | 1


@pytest.mark.parametrize(("shape", "dtype", "elements"), [((3, 8), torch.bfloat16, 4), ((2, 5), torch.float32, 1)])
def test_by_hand(shape: tuple[int, ...], dtype: torch.dtype, elements: int) -> None:
    tensor = torch.randn(shape).to(dtype)
    kind = {4: torch.int64, 1: torch.int32}[elements]
    rows = tensor.view(kind).tolist()
    terms = [word * constant(i, 1) * constant(j, 0) for i, row in enumerate(rows) for j, word in enumerate(row)]
    assert Sent.of(tensor).digest == sum(terms) & MASK
    assert Sent.of(tensor.t().contiguous().t()) == Sent.of(tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_bit_is_seen_anywhere(dtype: torch.dtype) -> None:
    tensor = torch.randn(6, 12).to(dtype)
    before, bits = Sent.of(tensor), tensor.view(torch.int16 if dtype is torch.bfloat16 else torch.int32).flatten()
    for place in range(0, len(bits), 5):
        for bit in (0, 7, 14):
            bits[place] ^= 1 << bit
            assert Sent.of(tensor) != before
            bits[place] ^= 1 << bit
    assert Sent.of(tensor) == before


def pieces_of(tensor: torch.Tensor, part: torch.Tensor) -> Piece:
    """A view of ``tensor``, copied elsewhere, as a piece."""
    return read([piece_of(part.clone(), tensor.shape, part.storage_offset(), part.stride())])[0]


def test_pieces_add_up_whatever_their_order() -> None:
    tensor = torch.randn(8, 16, 24).bfloat16()
    cuts = [tensor[:3], tensor[3:, :4], tensor[3:, 4:, :8], tensor[3:, 4:, 8:].transpose(0, 1)]
    parts = [pieces_of(tensor, cut) for cut in cuts]
    sent = {"w": Sent.of(tensor)}
    assert mismatches(sent, [{"w": parts[:2]}, {"w": parts[2:] + parts[:1]}]) == []
    assert mismatches(sent, [{"w": parts[:3]}]) == [f"'w': {8 * 16 * 24 - 5 * 12 * 16} of its 3072 elements arrived"]
    wrong = tensor.clone()
    wrong[0, 0, 0] += 1
    assert "two copies" in mismatches(sent, [{"w": parts}, {"w": [pieces_of(wrong, wrong[:3])]}])[0]
    assert "is not what was sent" in mismatches(sent, [{"w": [pieces_of(wrong, wrong)]}])[0]
    assert mismatches(sent, [{}]) == []


def test_two_tensors_that_changed_places_are_seen() -> None:
    a, b = torch.randn(2, 16, 16).unbind()
    sent = {"a": Sent.of(a), "b": Sent.of(b)}
    assert len(mismatches(sent, [{"a": [pieces_of(b, b - 0)], "b": [pieces_of(a, a - 0)]}])) == 2


def test_a_piece_that_cuts_through_a_word_is_refused() -> None:
    tensor = torch.randn(4, 8).bfloat16()
    with pytest.raises(ValueError, match="cuts through a word"):
        piece_of(tensor[:, 1:5], (4, 8), 1, row_major((4, 8)))


def test_a_square_matrix_is_told_from_its_transpose() -> None:
    tensor = torch.randn(8, 8)
    assert mismatches({"w": Sent.of(tensor)}, [{"w": [pieces_of(tensor, tensor.t())]}]) == []
    (transposed,) = read([piece_of(tensor.t().clone(), (8, 8), 0, row_major((8, 8)))])
    assert mismatches({"w": Sent.of(tensor)}, [{"w": [transposed]}])
