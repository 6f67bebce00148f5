"""pass@k, majority@n and intervals, against values worked out by hand and against plain enumeration."""

from __future__ import annotations

import itertools
import math

import pytest

from rlpost.eval.results import summarise
from rlpost.eval.samples import Sample
from rlpost.eval.scores import majority, mean_interval, paired_difference, pass_at_k, student_975
from rlpost.report.statistics import wilson_interval


@pytest.mark.parametrize(
    ("n", "right", "k", "value"),
    [
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),
        (4, 2, 2, 5 / 6),
        (5, 2, 3, 0.9),
        (4, 0, 4, 0.0),
        (4, 1, 4, 1.0),
        (32, 32, 8, 1.0),
    ],
)
def test_pass_at_k_by_hand(n: int, right: int, k: int, value: float) -> None:
    assert pass_at_k(n, right, k) == pytest.approx(value, abs=1e-12)


def test_pass_at_k_is_the_share_of_all_draws_of_k_with_a_right_one() -> None:
    for n in range(1, 8):
        for right in range(n + 1):
            for k in range(1, n + 1):
                draws = list(itertools.combinations([True] * right + [False] * (n - right), k))
                share = sum(any(draw) for draw in draws) / len(draws)
                assert pass_at_k(n, right, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_is_exact_for_many_samples() -> None:
    expected = 1.0 - math.prod((1000 - 3 - i) / (1000 - i) for i in range(100))  # the same product, another way
    assert pass_at_k(1000, 3, 100) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "right", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_refuses_the_impossible(n: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        pass_at_k(n, right, k)


@pytest.mark.parametrize(
    ("answers", "right", "value"),
    [
        (["4", "5", "4"], [True, False, True], 1.0),
        (["4", "5", "5"], [True, False, False], 0.0),
        (["4", "5"], [True, False], 0.5),  # a tie: the mean over the leaders
        (["", "", "4"], [False, False, True], 1.0),  # no answer, no vote
        (["", ""], [False, False], 0.0),
        (["7", "8", "9"], [True, False, False], 1 / 3),
    ],
)
def test_majority(answers: list[str], right: list[bool], value: float) -> None:
    assert majority(answers, right) == pytest.approx(value)


def test_one_sample_a_question_gives_wilsons_interval() -> None:
    mean, low, high = mean_interval([1.0] * 7 + [0.0] * 13)
    assert (mean, low, high) == pytest.approx((0.35, *wilson_interval(7, 20)), abs=1e-12)


def test_many_samples_of_alike_questions_count_as_trials_of_their_own() -> None:
    # 10 questions, 4 samples each, all at one half: nothing differs between questions, so there were 40 trials
    _, low, high = mean_interval([0.5] * 10, 4)
    assert (low, high) == pytest.approx(wilson_interval(20, 40), abs=1e-12)


def test_samples_of_one_question_do_not_make_questions_of_each_other() -> None:
    # 4 samples each, but every question is all right or all wrong: 20 trials, not 80
    _, low, high = mean_interval([1.0] * 7 + [0.0] * 13, 4)
    assert (low, high) == pytest.approx(wilson_interval(7, 20), abs=1e-12)


def test_all_right_still_has_a_width() -> None:
    assert mean_interval([1.0] * 10, 8)[1:] == pytest.approx(wilson_interval(10, 10))


def test_paired_difference_by_hand() -> None:
    # differences 1, 0, 0, 1: mean 0.5, s = sqrt(1/3), t(3) = 3.18245 -> half width 0.918694
    mean, low, high = paired_difference([0, 1, 0, 0], [1, 1, 0, 1])
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.5 - 0.918694, 0.5 + 0.918694), abs=2e-3)


def test_paired_difference_knows_what_is_shared() -> None:
    """The same two success rates: paired answers that agree give a narrower interval than those that do not."""
    first = [1.0, 0.0] * 20
    agreeing = paired_difference(first, [*first[:-1], 1.0])
    crossing = paired_difference(first, [0.0, 1.0] * 19 + [1.0, 1.0])
    assert agreeing[0] == crossing[0] == 0.025
    assert agreeing[2] - agreeing[1] < 0.2 * (crossing[2] - crossing[1])


@pytest.mark.parametrize("sizes", [(1, 1), (3, 2)])
def test_pairs_need_partners(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([0.0] * sizes[0], [1.0] * sizes[1])


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (5, 2.57058), (29, 2.04523), (1000, 1.96234)]
)
def test_students_quantile_as_tables_have_it(freedom: int, value: float) -> None:
    assert student_975(freedom) == pytest.approx(value, rel=1.4e-3)


def test_pass_at_1_and_the_score_are_one_number_with_one_interval() -> None:
    samples = [
        Sample("b", f"t{task}", i, 0, i < task % 5, float(i < task % 5), "", "done", False, 1, "")
        for task in range(10)
        for i in range(4)
    ]
    found = summarise(samples, (1, 4))
    assert (found["score"], found["ci95"]) == (found["pass@1"]["value"], found["pass@1"]["ci95"])
