"""Importance ratios at every level, and what dropping a token does to them."""

import pytest
import torch

from rlpost.algorithms.ratios import LOG_RATIO_LIMIT, RatioLevel, importance_ratio
from tests.algorithms.builders import F64, make_views

LEVELS: list[RatioLevel] = ["token", "turn", "trajectory", "gspo"]

# Two sequences; None is a prompt or observation token.
RATIOS = [None, 1.2, 0.9, None, 1.5, None, 2.0, 0.5]
SEQUENCE = [0, 0, 0, 0, 0, 1, 1, 1]
TURN = [0, 0, 0, 0, 1, 0, 0, 1]
EXPECTED: dict[str, list[float]] = {
    "token": [1, 1.2, 0.9, 1, 1.5, 1, 2.0, 0.5],
    "turn": [1, 1.08, 1.08, 1, 1.5, 1, 2.0, 0.5],  # 1.2 * 0.9 = 1.08
    "trajectory": [1.62, 1.62, 1.62, 1.62, 1.62, 1.0, 1.0, 1.0],  # 1.08 * 1.5 = 1.62; 2 * 0.5 = 1
    "gspo": [1.62 ** (1 / 3)] * 5 + [1.0] * 3,  # three policy tokens, then two
}


@pytest.mark.parametrize("level", LEVELS)
def test_values(level: RatioLevel) -> None:
    views = make_views(RATIOS, [1.0, 1.0], SEQUENCE, TURN)
    policy = views.turn >= 0
    expected = torch.tensor(EXPECTED[level], dtype=F64)
    torch.testing.assert_close(importance_ratio(views, level)[policy], expected[policy], rtol=0, atol=1e-14)


@pytest.mark.parametrize("level", LEVELS)
def test_exactly_one_where_old_is_the_current_policy(level: RatioLevel) -> None:
    views = make_views([None, 0.3, 0.7, None, 0.11], [1.0], [0] * 5, [0, 0, 0, 0, 1])
    views.old_logprobs = views.logprobs.detach()
    assert importance_ratio(views, level).tolist() == [1.0] * 5


@pytest.mark.parametrize("level", LEVELS)
def test_a_dropped_token_counts_in_the_value_but_has_no_gradient(level: RatioLevel) -> None:
    views = make_views(RATIOS, [1.0, 1.0], SEQUENCE, TURN, mask=[0, 1, 0, 0, 1, 0, 1, 1])
    ratio = importance_ratio(views, level)
    torch.testing.assert_close(ratio[1], torch.tensor(EXPECTED[level][1], dtype=F64), rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(ratio.sum(), views.logprobs)
    assert gradient[[0, 2, 3, 5]].tolist() == [0.0] * 4
    assert bool((gradient[[1, 4, 6, 7]] != 0).all())


def test_the_token_form_of_gspo_has_the_gradient_of_the_sequence_ratio() -> None:
    # d/dl_t exp(mean l) = s / 3 for each of three tokens; the mean over tokens of the token form must give the same
    views = make_views([1.2, 0.9, 1.5], [1.0], [0, 0, 0])
    (gradient,) = torch.autograd.grad(importance_ratio(views, "gspo").mean(), views.logprobs)
    torch.testing.assert_close(gradient, torch.full((3,), 1.62 ** (1 / 3) / 3, dtype=F64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("level", LEVELS)
def test_a_huge_product_is_held_and_stays_finite_in_float32(level: RatioLevel) -> None:
    views = make_views([1.0] * 2000, [1.0], [0] * 2000)
    views.logprobs = torch.full((2000,), LOG_RATIO_LIMIT * 2, dtype=torch.float32, requires_grad=True)
    views.old_logprobs = torch.zeros(2000)
    ratio = importance_ratio(views, level)
    (gradient,) = torch.autograd.grad(ratio.sum(), views.logprobs)
    assert bool(torch.isfinite(ratio).all())
    assert gradient.tolist() == [0.0] * 2000
