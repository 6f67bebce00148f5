"""Levels by hand, and slopes that see an update which rounding hides from the level."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlpost.agreement import Level, slope

DRAW = np.random.default_rng(3)


def rows(scale: float, count: int = 16, length: int = 64) -> list[np.ndarray]:
    return [scale * DRAW.standard_normal(length) for _ in range(count)]


def plus(*parts: list[np.ndarray]) -> list[np.ndarray]:
    return [sum(row) for row in zip(*parts, strict=True)]


def test_levels_by_hand() -> None:
    found = Level.of([np.log([0.5, 0.25])], [np.log([0.25, 0.25])])
    assert found.logprob_abs == pytest.approx(math.log(2) / 2)
    assert found.probs_diff == pytest.approx(0.125)
    assert found.exp_abs == pytest.approx(1.5)
    assert found.k3 == pytest.approx((2 - 1 - math.log(2)) / 2)
    h = lambda x: -(x * math.log(x) + (1 - x) * math.log(1 - x))  # noqa: E731
    assert found.js == pytest.approx((h(0.375) - (h(0.5) + h(0.25)) / 2) / 2)


@pytest.mark.parametrize(
    ("follows", "noise", "wrong"),
    [(1.0, 0.0, False), (1.0, 0.01, False), (0.0, 0.01, True), (2.0, 0.01, True), (0.5, 0.01, True), (0.0, 0.0, True)],
)
def test_an_engine_that_does_not_follow_is_seen(follows: float, noise: float, wrong: bool) -> None:
    before, change = rows(1.0), rows(0.05)
    moved = [follows * one for one in change]
    noisy = [rows(noise) for _ in range(4)]
    found = slope(
        plus(before, noisy[0]), plus(before, change, noisy[1]), plus(before, noisy[2]), plus(before, moved, noisy[3])
    )
    assert found is not None
    assert found.wrong is wrong
    assert found.value == pytest.approx(follows, abs=0.1)


@pytest.mark.parametrize("size", [1e-4, 0.01, 0.02, 0.03])
def test_changes_near_the_rounding_accuse_nobody(size: float) -> None:
    for _ in range(50):
        before, change = rows(1.0), rows(size)
        noisy = [rows(0.01) for _ in range(4)]
        now = plus(before, change)
        found = slope(plus(before, noisy[0]), plus(now, noisy[1]), plus(before, noisy[2]), plus(now, noisy[3]))
        assert found is None or not found.wrong
        assert size > 0.01 or found is None


def test_without_any_change_there_is_no_slope() -> None:
    same = rows(1.0)
    assert slope(same, same, same, same) is None
