"""The clip bound, the KL estimate and the weight of a token, by hand."""

import math

import pytest
import torch

from rlpost.algorithms.base import StepConstants
from rlpost.algorithms.objective import clip_bound, clipped_objective, k3, selection_gain, token_weights
from tests.algorithms.builders import F64, constants_of, make_views


def test_the_bound_is_a_plus_eps_times_its_size() -> None:
    advantages = torch.tensor([2.0, 0.0, -2.0], dtype=F64)
    # 2 * 1.1; 0; -2 * 0.9
    torch.testing.assert_close(clip_bound(advantages, 0.1, 0.1), torch.tensor([2.2, 0.0, -1.8], dtype=F64))
    torch.testing.assert_close(clip_bound(advantages, 0.1, 0.1), advantages + 0.1 * advantages.abs())


@pytest.mark.parametrize(
    ("ratio", "advantage", "high", "objective", "slope", "clipped"),
    [
        (1.05, 1.0, None, 1.05, 1.0, False),  # inside
        (1.30, 1.0, None, 1.10, 0.0, True),  # above the upper bound, A > 0: held at 1 + 0.1
        (1.30, 1.0, 0.28, 1.28, 0.0, True),  # clip-higher moves that bound: 1 + 0.28
        (1.20, 1.0, 0.28, 1.20, 1.0, False),
        (0.50, 1.0, None, 0.50, 1.0, False),  # below, A > 0: one-sided, so not held
        (0.95, -2.0, None, -1.90, -2.0, False),  # inside
        (0.50, -2.0, None, -1.80, 0.0, True),  # below the lower bound, A < 0: held at -2 (1 - 0.1)
        (0.50, -2.0, 0.28, -1.80, 0.0, True),  # clip-higher leaves the lower bound alone
        (1.30, -2.0, None, -2.60, -2.0, False),  # above, A < 0: not held
        (5.00, 0.0, None, 0.0, 0.0, False),
    ],
)
def test_one_sided_clipping(ratio, advantage, high, objective, slope, clipped) -> None:
    w = torch.tensor([ratio], dtype=F64, requires_grad=True)
    value, held = clipped_objective(w, torch.tensor([advantage], dtype=F64), 0.1, high)
    (gradient,) = torch.autograd.grad(value.sum(), w)
    assert value.item() == pytest.approx(objective, abs=1e-14)
    assert gradient.item() == pytest.approx(slope, abs=1e-14)
    assert held.item() is clipped


def test_it_is_the_familiar_two_sided_form() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(500, dtype=F64, generator=generator) * 2
    a = torch.randn(500, dtype=F64, generator=generator)
    familiar = torch.minimum(w * a, w.clamp(0.8, 1.28) * a)
    torch.testing.assert_close(clipped_objective(w, a, 0.2, 0.28)[0], familiar, rtol=0, atol=1e-14)


def test_without_clip_nothing_is_held() -> None:
    value, held = clipped_objective(torch.tensor([9.0]), torch.tensor([2.0]), None, None)
    assert (value.item(), held.item()) == (18.0, False)


def test_k3_by_hand() -> None:
    # q/p = 2: 2 - 1 - ln 2; q/p = 1/2: 1/2 - 1 + ln 2; q = p: 0
    d = torch.tensor([math.log(2), -math.log(2), 0.0], dtype=F64)
    expected = torch.tensor([1 - math.log(2), math.log(2) - 0.5, 0.0], dtype=F64)
    torch.testing.assert_close(k3(d), expected, rtol=0, atol=1e-15)


# One sequence of three tokens in two turns (2 + 1), one of one token; the second token of the first is dropped.
SEQUENCE, TURN, MASK = [0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("aggregate", "denominator", "level", "expected"),
    [
        # sequence, kept: 2 kept tokens of the first, 1 of the second, 2 sequences: 1/(2*2), 1/(1*2)
        ("sequence", "kept", "token", [1 / 4, 1 / 4, 1 / 2]),
        # sequence, full: 3 policy tokens, 1; nominally 4 sequences: 1/(3*4), 1/(1*4)
        ("sequence", "full", "token", [1 / 12, 1 / 12, 1 / 4]),
        # turns, kept: 1 kept token in each of 2 turns of the first: 1/(1*2*2); second 1/(1*1*2)
        ("sequence", "kept", "turn", [1 / 4, 1 / 4, 1 / 2]),
        # turns, full: turn sizes 2 and 1, 2 turns, 4 sequences: 1/(2*2*4), 1/(1*2*4); second 1/(1*1*4)
        ("sequence", "full", "turn", [1 / 16, 1 / 8, 1 / 4]),
        # token, kept: 3 kept tokens in the update
        ("token", "kept", "token", [1 / 3] * 3),
        # token, full: 4 policy tokens of 2 sequences, nominally 4 sequences: 4 * 4/2 = 8
        ("token", "full", "token", [1 / 8] * 3),
        # constant: budget 8 a sequence, 2 kept or 4 nominal sequences
        ("constant", "kept", "token", [1 / 16] * 3),
        ("constant", "full", "token", [1 / 32] * 3),
    ],
)
def test_token_weights(aggregate, denominator, level, expected) -> None:
    views = make_views([1.0] * 4, [1.0, 1.0], SEQUENCE, TURN, MASK)
    weights = token_weights(views, constants_of(views, nominal_sequences=4), aggregate, denominator, level)
    torch.testing.assert_close(weights[views.mask], torch.tensor(expected, dtype=F64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("aggregate", "denominator", "expected"),
    [
        # half the sequences and a quarter of their tokens are left: a kept token weighs 2 * 4 times as much
        ("token", "kept", 8.0),
        ("sequence", "kept", 8.0),
        ("constant", "kept", 2.0),  # the token budget does not change
        ("token", "full", 1.0),
    ],
)
def test_selection_gain(aggregate, denominator, expected) -> None:
    constants = StepConstants(sequences=5, tokens=10, nominal_sequences=10, max_tokens=8, policy_tokens=40)
    assert selection_gain(constants, aggregate, denominator) == expected


def test_without_token_selection_policy_tokens_may_be_left_out() -> None:
    constants = StepConstants(sequences=10, tokens=40, nominal_sequences=10, max_tokens=8)
    assert selection_gain(constants, "token", "kept") == 1.0
