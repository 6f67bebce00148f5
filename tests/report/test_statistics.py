"""Wilson's interval against values worked out by hand and the properties it is chosen for."""

from __future__ import annotations

import math

import pytest

from rlpost.report.statistics import NORMAL_975, wilson_interval


def test_golden_values() -> None:
    # 2 of 4 at z = 2: centre 1/2 + 4/8 = 1, spread 2 sqrt(1/16 + 1/16) = sqrt(1/2), scale 1 + 4/4 = 2.
    root = math.sqrt(0.5)
    assert wilson_interval(2, 4, z=2.0) == (pytest.approx((1 - root) / 2, abs=1e-15), pytest.approx((1 + root) / 2))
    # 8 of 10 at 95 %: (.992073 - .313617) / 1.384146 and (.992073 + .313617) / 1.384146.
    assert wilson_interval(8, 10) == (pytest.approx(0.490162, abs=1e-6), pytest.approx(0.943318, abs=1e-6))


def test_the_quantile_is_that_of_the_normal_distribution() -> None:
    assert 0.5 * (1 + math.erf(NORMAL_975 / math.sqrt(2))) == pytest.approx(0.975, abs=1e-15)


def test_at_the_ends_it_has_a_width_and_stays_inside() -> None:
    assert wilson_interval(0, 10) == (0.0, pytest.approx(0.2775328, abs=1e-7))  # z² / (n + z²)
    assert wilson_interval(10, 10) == (pytest.approx(1 - 0.2775328, abs=1e-7), 1.0)


def test_it_is_symmetric_and_narrows() -> None:
    low, high = wilson_interval(30, 128)
    mirrored = wilson_interval(98, 128)
    assert (low, high) == (pytest.approx(1 - mirrored[1]), pytest.approx(1 - mirrored[0]))
    four_times = wilson_interval(120, 512)
    assert four_times[1] - four_times[0] < 0.52 * (high - low)


def test_no_trials_tell_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 4)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {trials}"):
        wilson_interval(successes, trials)
