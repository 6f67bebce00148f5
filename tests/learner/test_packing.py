"""Packs: whole sequences, deterministic, balanced over ranks."""

from __future__ import annotations

import numpy as np

from rlpost.learner.packing import Pack, pack, share


def test_first_fit_decreasing_by_hand() -> None:
    # 7 opens a pack, 5 another, 4 goes beside the 5, 3 beside the 7, 2 opens a third
    assert pack([3, 7, 2, 5, 4], 10) == [Pack((1, 0), 10), Pack((3, 4), 9), Pack((2,), 2)]


def test_a_sequence_longer_than_the_budget_has_a_pack_of_its_own() -> None:
    assert pack([3, 30, 3], 10) == [Pack((1,), 30), Pack((0, 2), 6)]


def test_every_sequence_is_in_exactly_one_pack_of_bounded_size() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    packs = pack(lengths, 64)
    assert sorted(member for one in packs for member in one.members) == list(range(200))
    assert all(one.tokens == sum(lengths[m] for m in one.members) <= 64 for one in packs)
    assert len(packs) <= 1.3 * sum(lengths) / 64


def test_ranks_get_equal_tokens_and_the_same_number_of_packs() -> None:
    lengths = np.random.default_rng(1).integers(1, 50, 101).tolist()
    shares = share(lengths, 4, 64)
    tokens = [sum(one.tokens for one in packs) for packs in shares]
    assert max(tokens) - min(tokens) <= 50
    assert len({len(packs) for packs in shares}) == 1
    assert sorted(m for packs in shares for one in packs for m in one.members) == list(range(101))


def test_a_rank_without_sequences_gets_empty_packs() -> None:
    assert share([5, 6], 3, 10, members=[1]) == [[Pack((1,), 6)], [Pack((), 0)], [Pack((), 0)]]
