"""The whole loss of each variant: values and gradients worked out by hand, both signs of A, clipped and not."""

import math

import pytest
import torch

from rlpost.algorithms.base import AlgorithmError, PackedViews, StepConstants
from rlpost.algorithms.policy_loss import PolicyGradient
from rlpost.algorithms.registry import build, locate
from tests.algorithms.builders import F64, constants_of, make_views, random_views


def make(name: str, **options) -> PolicyGradient:
    algorithm = build(locate(name), options)
    assert isinstance(algorithm, PolicyGradient)
    return algorithm


def check(
    algorithm: PolicyGradient, views: PackedViews, constants: StepConstants, loss: float, gradient: list[float]
) -> None:
    output = algorithm.loss(views, constants)
    (actual,) = torch.autograd.grad(output.loss, views.logprobs)
    assert output.loss.item() == pytest.approx(loss, abs=1e-14)
    torch.testing.assert_close(actual, torch.tensor(gradient, dtype=F64), rtol=0, atol=1e-14)


# First sequence A = 1 with ratios 1.05 and 1.3, second A = -0.5 with 0.8, 1.3 and 1.0; a prompt token before each.
TWO = ([None, 1.05, 1.3, None, 0.8, 1.3, 1.0], [1.0, -0.5], [0, 0, 0, 1, 1, 1, 1])


def test_loop_token() -> None:
    # eps 0.1. A = 1: 1.05; 1.3 held at 1.1. A = -0.5: 0.8 -> -0.4 held at -0.45; 1.3 -> -0.65; 1.0 -> -0.5.
    # nominally 4 sequences: -(1/4) ((1.05 + 1.1)/2 + (-0.45 - 0.65 - 0.5)/3)
    loss = -(2.15 / 2 - 1.6 / 3) / 4
    # -w A / (|a| 4) where not held
    gradient = [0, -1.05 / 8, 0, 0, 0, 0.65 / 12, 0.5 / 12]
    views = make_views(*TWO)
    check(make("loop"), views, constants_of(views, nominal_sequences=4), loss, gradient)


def test_grpo_divides_by_the_sequences_there_are() -> None:
    # eps 0.2: 1.05; 1.3 held at 1.2; 0.8 -> -0.4 not above the bound -0.5 * 0.8; 1.3 -> -0.65; 1.0 -> -0.5
    loss = -(2.25 / 2 - 1.55 / 3) / 2
    views = make_views(*TWO)
    output = make("grpo").loss(views, constants_of(views, nominal_sequences=4))
    assert output.loss.item() == pytest.approx(loss, abs=1e-14)


def test_clip_higher_and_token_mean_of_dapo() -> None:
    # bounds 0.8 and 1.28, mean over 5 tokens: -(1.05 + 1.28 - 0.4 - 0.65 - 0.5)/5; the 0.8 stands on its bound,
    # so move it to 0.7: held at -0.4
    views = make_views([None, 1.05, 1.3, None, 0.7, 1.3, 1.0], [1.0, -0.5], TWO[2])
    gradient = [0, -1.05 / 5, 0, 0, 0, 0.65 / 5, 0.5 / 5]
    check(make("grpo", clip_high=0.28, aggregate="token"), views, constants_of(views), -0.78 / 5, gradient)


def test_dr_grpo_constant() -> None:
    # sums over tokens / (8 tokens x 2 sequences), eps 0.2, with 0.7 as above: -(1.05 + 1.2 - 0.4 - 0.65 - 0.5)/16
    views = make_views([None, 1.05, 1.3, None, 0.7, 1.3, 1.0], [1.0, -0.5], TWO[2])
    gradient = [0, -1.05 / 16, 0, 0, 0, 0.65 / 16, 0.5 / 16]
    check(make("grpo", aggregate="constant"), views, constants_of(views), -0.7 / 16, gradient)


# One sequence: a turn of ratios 1.2 and 0.9 (product 1.08), an observation, a turn of 1.5; in all 1.62.
TURNS = ([1.2, 0.9, None, 1.5], [0, 0, 0, 0], [0, 0, 0, 1])


def turns_with(advantage: float) -> PackedViews:
    return make_views(TURNS[0], [advantage], TURNS[1], TURNS[2])


def test_loop_turn_with_positive_advantage() -> None:
    # mean over turns: (1.08 + held 1.1)/2; each token of the first turn gets d(1.08/2)/dl = 0.54
    views = turns_with(1.0)
    check(make("loop", ratio="turn"), views, constants_of(views), -(1.08 + 1.1) / 2, [-0.54, -0.54, 0, 0])


def test_loop_turn_with_negative_advantage() -> None:
    # neither is below 0.9: (1.08 + 1.5)/2
    views = turns_with(-1.0)
    check(make("loop", ratio="turn"), views, constants_of(views), (1.08 + 1.5) / 2, [0.54, 0.54, 0, 0.75])


def test_loop_trajectory() -> None:
    # A = 1: 1.62 held at 1.1, no gradient. A = -1: min(-1.62, -0.9) = -1.62, gradient 1.62 for every policy token
    views = turns_with(1.0)
    check(make("loop", ratio="trajectory"), views, constants_of(views), -1.1, [0, 0, 0, 0])
    views = turns_with(-1.0)
    check(make("loop", ratio="trajectory"), views, constants_of(views), 1.62, [1.62, 1.62, 0, 1.62])


def test_gspo() -> None:
    # s = 1.62^(1/3) = 1.1745. A = 1: held at 1 + 4e-4. A = -2: 2 s, gradient 2 s / 3 for every policy token
    s = 1.62 ** (1 / 3)
    views = turns_with(1.0)
    check(make("gspo"), views, constants_of(views), -(1 + 4e-4), [0, 0, 0, 0])
    views = turns_with(-2.0)
    check(make("gspo"), views, constants_of(views), 2 * s, [2 * s / 3, 2 * s / 3, 0, 2 * s / 3])


def test_rloo_is_reinforce_of_whole_trajectories() -> None:
    # one update: ratio 1, loss -(1/2)(1 - 0.5), gradient -A/2 for every policy token, whatever the length
    views = make_views(*TWO)
    views.old_logprobs = views.logprobs.detach()
    check(make("rloo"), views, constants_of(views), -0.25, [0, -0.5, -0.5, 0, 0.25, 0.25, 0.25])


def test_gradient_where_old_is_the_current_policy() -> None:
    # exactly -A / (|a| n), clip on: the REINFORCE gradient
    views = make_views(*TWO)
    views.old_logprobs = views.logprobs.detach()
    output = make("loop").loss(views, constants_of(views))
    (gradient,) = torch.autograd.grad(output.loss, views.logprobs)
    assert gradient.tolist() == [0.0, -0.25, -0.25, 0.0, 0.5 / 6, 0.5 / 6, 0.5 / 6]
    assert output.sums["clip_fraction"].item() == 0
    assert output.sums["kl_old"].item() == 0


def test_the_offpolicy_weight_multiplies_the_policy_term_alone() -> None:
    weight = torch.tensor([0.5, 2.0], dtype=F64)
    reference = torch.tensor([math.log(2), 0.0], dtype=F64)
    views = make_views([1.0, 1.0], [1.0], [0, 0], offpolicy_weight=weight, ref_logprobs=reference)
    # policy: -(0.5 + 2)/2; KL: k3(ln 2) = 1 - ln 2, mean over 2 tokens, times 0.1, not weighted
    # gradients: -0.5/2 + 0.1 (1 - 2)/2; -2/2 + 0.1 (1 - 1)/2
    loss = -1.25 + 0.1 * (1 - math.log(2)) / 2
    check(make("loop", kl=0.1), views, constants_of(views), loss, [-0.25 - 0.05, -1.0])


def test_entropy_bonus() -> None:
    entropies = torch.tensor([1.0, 2.0], dtype=F64, requires_grad=True)
    views = make_views([1.0, 1.0], [1.0], [0, 0], entropies=entropies)
    output = make("loop", entropy=0.01).loss(views, constants_of(views))
    # -(1 + 1)/2 - 0.01 (1 + 2)/2
    assert output.loss.item() == pytest.approx(-1 - 0.015, abs=1e-14)
    (gradient,) = torch.autograd.grad(output.loss, entropies)
    assert gradient.tolist() == pytest.approx([-0.005, -0.005], abs=1e-16)


@pytest.mark.parametrize(("option", "name"), [("kl", "ref_logprobs"), ("entropy", "entropies")])
def test_a_missing_input_is_named(option: str, name: str) -> None:
    views = make_views([1.0], [1.0], [0])
    with pytest.raises(AlgorithmError, match=f"algorithm.{option}: it is on.*no {name}"):
        make("loop", **{option: 0.1}).loss(views, constants_of(views))


def test_sums() -> None:
    views = make_views(*TWO)
    sums = make("loop").loss(views, constants_of(views)).sums
    ratios = [1.05, 1.3, 0.8, 1.3, 1.0]
    assert sums["clip_fraction"].item() == 2  # 1.3 with A > 0, and 0.8 with A < 0
    # k3 of KL(old || current): w - 1 - log w
    assert sums["kl_old"].item() == pytest.approx(sum(w - 1 - math.log(w) for w in ratios), abs=1e-14)
    assert sums["kl_old_k1"].item() == pytest.approx(-sum(math.log(w) for w in ratios), abs=1e-14)
    assert sums["sequences_per_token"].item() == 2
    assert sums["selection_gain"].item() == 5  # a gain of 1 at each of five tokens
    assert not any(value.requires_grad for value in sums.values())


ALL = [
    ("loop", {}),
    ("loop", {"ratio": "turn"}),
    ("loop", {"ratio": "trajectory"}),
    ("loop", {"aggregate": "token", "kl": 0.1, "entropy": 0.01}),
    ("grpo", {"kl": 0.1, "entropy": 0.01}),
    ("grpo", {"aggregate": "token", "clip_high": 0.28}),
    ("grpo", {"aggregate": "constant"}),
    ("grpo", {"ratio": "turn", "clip": None}),
    ("gspo", {"clip": 0.1, "clip_high": None}),
    ("rloo", {}),
]


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("drop", [0.0, 0.6])
def test_positions_that_do_not_count_get_exactly_zero_gradient(name: str, options: dict, drop: float) -> None:
    views = random_views(3, [7, 4, 1, 9, 5, 8], drop=drop)
    output = make(name, **options).loss(views, constants_of(views))
    gradients = torch.autograd.grad(output.loss, [views.logprobs, views.entropies], allow_unused=True)
    for gradient in gradients:
        if gradient is not None:
            assert bool(torch.isfinite(gradient).all())
            assert gradient[~views.mask].tolist() == [0.0] * int((~views.mask).sum())
    assert bool((gradients[0][views.mask] != 0).any())


@pytest.mark.parametrize(("name", "options"), ALL)
def test_gradients_agree_with_finite_differences(name: str, options: dict) -> None:
    views = random_views(5, [4, 2])
    # gspo's token form has the gradient of the sequence ratio only summed over a sequence, so move whole sequences
    algorithm, constants = make(name, **options), constants_of(views)
    (gradient,) = torch.autograd.grad(algorithm.loss(views, constants).loss, views.logprobs)
    base, step = views.logprobs.detach().clone(), 1e-6
    for number in range(views.sequences):
        direction = (views.sequence == number).to(F64)
        values = []
        for sign in (1, -1):
            views.logprobs = (base + sign * step * direction).requires_grad_()
            values.append(algorithm.loss(views, constants).loss.item())
        along = (values[0] - values[1]) / (2 * step)
        assert along == pytest.approx((gradient * direction).sum().item(), abs=1e-8)


def test_a_micro_batch_without_counted_tokens_gives_a_zero_that_can_be_differentiated() -> None:
    views = make_views([1.0, 1.1], [1.0], [0, 0], mask=[0, 0])
    output = make("grpo", aggregate="token").loss(views, StepConstants(4, 9, 4, 8))
    (gradient,) = torch.autograd.grad(output.loss, views.logprobs)
    assert output.loss.item() == 0
    assert gradient.tolist() == [0.0, 0.0]
