"""The exact subset of largest variance, against every subset there is."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from rlpost.algorithms.base import AlgorithmError
from rlpost.algorithms.variance_subset import max_variance_subset

F64 = torch.float64


def subsets(m: int, n: int) -> torch.Tensor:
    return torch.tensor(list(combinations(range(m), n)))


@pytest.mark.parametrize("m", range(1, 10))
def test_equal_to_brute_force_with_ties(m: int) -> None:
    """4,500 cases in all: binary and small whole numbers (many ties), and real numbers."""
    rng = torch.Generator().manual_seed(m)
    for n in range(1, m + 1):
        every = subsets(m, n)
        for trial in range(100):
            draws = [
                torch.randint(0, 2, (m,), generator=rng),
                torch.randint(-2, 3, (m,), generator=rng),
                torch.randn(m, dtype=F64, generator=rng),
            ]
            values = draws[trial % 3].to(F64)
            chosen = max_variance_subset(values, n, rng)
            best = values[every].var(dim=1, correction=0).max()
            torch.testing.assert_close(values[chosen].var(correction=0), best, rtol=0, atol=1e-13)
            assert chosen.tolist() == sorted(set(chosen.tolist()))
            assert len(chosen) == n


def test_by_hand() -> None:
    # of {-3, 0, 1, 5}: pairs' variances are (difference / 2)^2, largest for -3 and 5
    assert max_variance_subset(torch.tensor([0.0, 5.0, 1.0, -3.0]), 2).tolist() == [1, 3]
    # triples: {-3, 5, x} with x nearest an end: 0 is 3 from -3 and 5 from 5, 1 is 4 from both; so {-3, 0, 5}
    # (means 2/3 and 1; sums of squares 34 - 4/3 = 32.67 and 35 - 3 = 32)
    assert max_variance_subset(torch.tensor([0.0, 5.0, 1.0, -3.0]), 3).tolist() == [0, 1, 3]


def test_a_large_offset_does_not_hide_the_spread() -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        values = torch.randint(-9, 10, (8,), generator=rng).to(F64)
        chosen = max_variance_subset(values + 1e9, 3, rng)
        assert values[chosen].var().item() == pytest.approx(values[subsets(8, 3)].var(dim=1).max().item(), rel=1e-12)


def test_all_of_them_in_order() -> None:
    assert max_variance_subset(torch.tensor([3.0, 1.0, 2.0]), 3).tolist() == [0, 1, 2]


def test_ties_are_drawn_and_the_draw_is_seeded() -> None:
    values = torch.tensor([1.0] * 6 + [0.0] * 6)

    def draw(seed: int) -> tuple[int, ...]:
        return tuple(max_variance_subset(values, 4, torch.Generator().manual_seed(seed)).tolist())

    assert draw(3) == draw(3)
    drawn = {draw(seed) for seed in range(400)}
    assert len(drawn) > 150  # of 15 * 15 = 225 equally good ones
    assert {index for chosen in drawn for index in chosen} == set(range(12))
    assert max_variance_subset(values, 4).tolist() == max_variance_subset(values, 4).tolist()


def test_equally_good_splits_are_drawn_too() -> None:
    # of {0, 0, 1, 1} three: {0, 0, 1} and {0, 1, 1} have the same variance 2/9
    values = torch.tensor([0.0, 0.0, 1.0, 1.0])
    sums = {
        values[max_variance_subset(values, 3, torch.Generator().manual_seed(seed))].sum().item() for seed in range(40)
    }
    assert sums == {1.0, 2.0}


def test_a_large_case_beats_random_subsets() -> None:
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(20_000, dtype=F64, generator=rng)
    best = values[max_variance_subset(values, 8_000, rng)].var()
    ends = values.sort().values
    assert best >= torch.cat([ends[:4_000], ends[-4_000:]]).var() - 1e-12  # near the optimum by symmetry
    assert best >= values.var()  # some subset is always at least as spread as the whole


@pytest.mark.parametrize(
    ("values", "n", "words"),
    [
        (torch.zeros(3), 4, "cannot choose 4 of 3"),
        (torch.zeros(3), 0, "cannot choose 0 of 3"),
        (torch.zeros(0), 1, "cannot choose 1 of 0"),
        (torch.zeros(2, 2), 1, "must be a vector"),
        (torch.tensor([0.0, torch.nan]), 1, "not finite"),
    ],
)
def test_bad_input_is_refused_in_words(values: torch.Tensor, n: int, words: str) -> None:
    with pytest.raises(AlgorithmError, match=words):
        max_variance_subset(values, n)
