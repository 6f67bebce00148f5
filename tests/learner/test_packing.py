"""Packs: whole sequences, deterministic, balanced over ranks."""

from __future__ import annotations

import numpy as np

from rlpost.learner.packing import Kin, Pack, pack, pack_padded, share


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


def test_families_stay_together_and_their_beginning_counts_once() -> None:
    # sequences 0, 2, 4 begin with the same 5 tokens: 5 + 3 + 2 + 1 = 11 rows; 1 and 3 have 8 and 4 of their own
    kin = Kin([0, 1, 0, 3, 0], [5, 0, 5, 0, 5])
    assert pack([8, 8, 7, 4, 6], 12, kin=kin) == [Pack((0, 2, 4), 21), Pack((1, 3), 12)]
    # a budget of 10: the third of the family begins a unit of its own, 5 + 1 rows, and 4 fit beside it
    assert pack([8, 8, 7, 4, 6], 10, kin=kin) == [Pack((0, 2), 15), Pack((1,), 8), Pack((4, 3), 10)]


def test_families_are_parted_where_fewer_packs_then_hold_them() -> None:
    # four families of three, 1 + 3 x 5 = 16 rows each, of which 27 hold one; parted: 16 + 11, 6 + 16, 16
    kin = Kin([index // 3 for index in range(12)], [1] * 12)
    parted = pack([6] * 12, 27, kin=kin)
    assert [one.members for one in parted] == [(0, 1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11)]
    # 2 + 3 x 4 = 14 rows each, of which 20 hold one; three packs would hold them in 60 rows instead of 56: too many
    kin = Kin([index // 3 for index in range(12)], [2] * 12)
    together = pack([6] * 12, 20, kin=kin)
    assert [one.members for one in together] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    # groups as of a benchmark: 32 of 8 x (190 + 256), of which 4,096 rows hold one with 1,858 to spare
    kin = Kin([index // 8 for index in range(256)], [190] * 256)
    packs = pack([446] * 256, 4096, kin=kin)
    assert len(packs) == 20  # of 13 or 14 each; 32 with a group each
    assert sorted(member for one in packs for member in one.members) == list(range(256))
    rows = [256 * len(one.members) + 190 * len({kin.family[member] for member in one.members}) for one in packs]
    assert max(rows) <= 4096
    assert sum(rows) <= (1 + 1 / 16) * (256 * 256 + 190 * 32)


def test_families_of_any_size_fill_packs_within_the_budget() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        family = np.sort(rng.integers(0, 12, 60)).tolist()
        stems = rng.integers(0, 30, 12)
        kin = Kin(family, [int(stems[one]) for one in family])
        lengths = [stem + int(rng.integers(1, 40)) for stem in kin.stem]
        packs = pack(lengths, 100, kin=kin)
        assert sorted(member for one in packs for member in one.members) == list(range(60))
        for one in packs:
            own = {kin.family[member] for member in one.members}
            rows = sum(lengths[m] - kin.stem[m] for m in one.members) + sum(int(stems[family]) for family in own)
            assert rows <= 100
            assert one.tokens == sum(lengths[member] for member in one.members) <= 200


def test_a_beginning_in_common_does_not_make_a_pack_of_more_than_twice_the_budget() -> None:
    packs = pack([90] * 20, 100, kin=Kin([0] * 20, [89] * 20))
    assert {one.tokens for one in packs} == {180}
    assert sorted(member for one in packs for member in one.members) == list(range(20))


def test_few_families_are_spread_over_ranks() -> None:
    kin = Kin([0] * 8, [10] * 8)
    assert [sum(len(one.members) for one in packs) for packs in share([20] * 8, 4, 1000, kin=kin)] == [2, 2, 2, 2]
    many = Kin([index // 4 for index in range(64)], [10] * 64)
    for packs in share([20] * 64, 4, 1000, kin=many):
        own = {many.family[member] for one in packs for member in one.members}
        assert len(own) == 4  # whole families


def test_ranks_get_equal_tokens_and_the_same_number_of_packs() -> None:
    lengths = np.random.default_rng(1).integers(1, 50, 101).tolist()
    shares = share(lengths, 4, 64)
    tokens = [sum(one.tokens for one in packs) for packs in shares]
    assert max(tokens) - min(tokens) <= 50
    assert len({len(packs) for packs in shares}) == 1
    assert sorted(m for packs in shares for one in packs for m in one.members) == list(range(101))


def test_a_rank_without_sequences_gets_empty_packs() -> None:
    assert share([5, 6], 3, 10, members=[1]) == [[Pack((1,), 6)], [Pack((), 0)], [Pack((), 0)]]


def test_padded_packs_count_every_sequence_as_long_as_the_longest() -> None:
    # 7 and 6 are 2 x 7 padded; 5, 4 and 3 are 3 x 5; 30 is beyond the budget and alone
    assert pack_padded([3, 7, 5, 30, 6, 4], 16, range(6)) == [
        Pack((3,), 30),
        Pack((1, 4), 13),
        Pack((2, 5, 0), 12),
    ]
    shares = share([3, 7, 5, 30, 6, 4], 2, 16, padded=True)
    assert sorted(member for own in shares for one in own for member in one.members) == list(range(6))
    assert len({len(own) for own in shares}) == 1
