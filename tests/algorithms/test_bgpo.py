"""BGPO's bound, the ELBO's estimators, and the losses of the diffusion algorithms, against values worked out apart.

The bound is compared with the exact objective on random d; the estimators with the whole sum over all 15 masks of a
4-token response. Left out: models (tests/learner/test_diffusion.py).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from rlpost.algorithms.base import Algorithm, AlgorithmError, PackedViews, StepConstants
from rlpost.algorithms.bgpo import elbo_terms, lower_bound
from rlpost.algorithms.elbo import capped_exp, draw_masks
from rlpost.algorithms.registry import build, locate
from tests.algorithms.builders import make_group, make_trajectory

F64 = torch.float64


def exact(d: torch.Tensor, advantage: float) -> torch.Tensor:
    return d.mean().exp() * advantage


@pytest.mark.parametrize("advantage", [1.3, -1.3, 0.0])
@pytest.mark.parametrize("spread", [0.3, 2.0, 6.0])
def test_the_bound_never_exceeds_the_exact_value(advantage: float, spread: float) -> None:
    rng = torch.Generator().manual_seed(0)
    for count in (1, 2, 16):
        for _ in range(100):
            d = spread * torch.randn(count, generator=rng, dtype=F64)
            value = lower_bound(d, advantage)
            assert value.shape == ()
            assert value <= exact(d, advantage) + 1e-12


@pytest.mark.parametrize("advantage", [0.7, -0.7])
def test_value_and_gradient_are_exact_at_zero(advantage: float) -> None:
    results = []
    for value_of in (lower_bound, exact):
        d = torch.zeros(16, dtype=F64, requires_grad=True)
        value = value_of(d, advantage)
        value.backward()
        results.append((value.item(), d.grad))
    (bound, bound_gradient), (value, gradient) = results
    assert abs(bound - value) < 1e-10
    assert abs(value - advantage) < 1e-10
    torch.testing.assert_close(bound_gradient, gradient, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, torch.full((16,), advantage / 16, dtype=F64), rtol=0, atol=1e-10)


def test_the_bound_by_hand() -> None:
    d = torch.tensor([0.5, -1.0], dtype=F64)
    assert lower_bound(d, 2.0).item() == pytest.approx((1.5 + 0.0) / 2 * 2.0, abs=1e-15)
    assert lower_bound(d, -2.0).item() == pytest.approx(-(math.exp(0.5) + math.exp(-1.0)), abs=1e-15)


def test_the_gap_of_the_negative_branch_is_the_one_of_jensen() -> None:
    """exact - bound = |A| (mean exp d - exp mean d): large where d is spread, as the method's authors say."""
    d = 2 * torch.randn(16, generator=torch.Generator().manual_seed(1), dtype=F64)
    gap = exact(d, -1.3) - lower_bound(d, -1.3)
    assert gap.item() == pytest.approx(1.3 * (d.exp().mean() - d.mean().exp()).item(), rel=1e-12)
    assert gap > 1


def test_overflow_is_capped_and_keeps_its_gradient() -> None:
    d = torch.tensor([5000.0, 31.0, 1.0], requires_grad=True)
    value = lower_bound(d, -1.0)
    value.backward()
    assert torch.isfinite(value)
    assert d.grad is not None
    assert torch.isfinite(d.grad).all()
    assert d.grad[0] == d.grad[1] == pytest.approx(-math.exp(30) / 3, rel=1e-6)
    assert d.grad[2] == pytest.approx(-math.e / 3, rel=1e-6)
    assert capped_exp(torch.tensor(30.0)).item() == pytest.approx(math.exp(30), rel=1e-6)
    linear = lower_bound(torch.tensor([-50.0, 5000.0]), 1.0)  # 1 + d, not exp(log(1 + d)): d may be below -1
    assert linear.item() == pytest.approx((-49.0 + 5001.0) / 2, rel=1e-6)


# A made-up "model": log-probabilities of a 4-token response over a 6-token vocabulary, given which tokens are masked.
TOKENS = [2, 5, 0, 3]


def model(masked: tuple[bool, ...]) -> np.ndarray:
    """(4,) log p of each token: a table drawn from what is visible, so that every mask has its own."""
    visible = [6 if hidden else token for token, hidden in zip(TOKENS, masked, strict=True)]
    logits = 2 * np.random.default_rng(visible).normal(size=(4, 6))
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True)))[range(4), TOKENS]


def enumerated() -> float:
    """sum over masks of the integral over t of t^(k-1) (1-t)^(4-k), which is (k-1)! (4-k)! / 4!, times sum log p."""
    total = 0.0
    for masked in itertools.product((False, True), repeat=4):
        k = sum(masked)
        if k:
            weight = math.factorial(k - 1) * math.factorial(4 - k) / math.factorial(4)
            total += weight * model(masked)[list(masked)].sum()
    return total


def estimate(n_t: int, masks: str, rng: np.random.Generator) -> float:
    copies = draw_masks(4, n_t, masks, rng)  # type: ignore[arg-type]
    logprobs = torch.tensor(np.concatenate([model(tuple(masked))[masked] for masked, _ in copies]))
    weights = torch.tensor(np.concatenate([np.full(masked.sum(), weight) for masked, weight in copies]))
    view = torch.tensor(np.concatenate([np.full(masked.sum(), j) for j, (masked, _) in enumerate(copies)]))
    return float(elbo_terms(logprobs, weights, view, n_t).mean())


@pytest.mark.parametrize("masks", ["stratified", "iid"])
def test_the_estimator_is_unbiased_and_its_spread_falls(masks: str) -> None:
    """The spread is that of the middle half: with t ~ U(0, 1] the variance itself is infinite (1 / t, logarithmically),
    which is why stratified is the default."""
    rng, truth, spreads = np.random.default_rng(0), enumerated(), []
    for n_t, repeats in ((1, 4000), (4, 2000), (16, 1000)):
        values = np.array([estimate(n_t, masks, rng) for _ in range(repeats)])
        error = values.std() / math.sqrt(repeats)
        assert abs(values.mean() - truth) < 4 * error
        spreads.append(float(np.subtract(*np.percentile(values, [75, 25]))))
    assert spreads[0] > 1.4 * spreads[1] > 1.4**2 * spreads[2]


def test_stratified_counts_are_spread_evenly_and_uniform() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        numbers = sorted(int(masked.sum()) for masked, _ in draw_masks(8, 8, "stratified", rng))
        assert numbers == list(range(1, 9))
        assert all(weight == 8 / masked.sum() for masked, weight in draw_masks(8, 3, "stratified", rng))
    counts = np.bincount([int(draw_masks(5, 1, "stratified", rng)[0][0].sum()) for _ in range(5000)], minlength=6)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 150


def test_a_response_of_one_token_is_always_masked_and_stratified_has_no_empty_copy() -> None:
    rng = np.random.default_rng(0)
    assert all(masked.tolist() == [True] and weight == 1 for masked, weight in draw_masks(1, 16, "stratified", rng))
    assert all(masked.any() for masked, _ in draw_masks(7, 64, "stratified", rng))


def algorithm(name: str, **options: object) -> Algorithm:
    return build(locate(name), options)


@pytest.mark.parametrize("name", ["bgpo", "vrpo_ol", "vrpo_two_pass"])
def test_views_mask_the_response_only_and_are_the_same_for_one_seed(name: str) -> None:
    trajectory = make_trajectory(1.0, tokens=9)
    made = algorithm(name, n_t=5).views(trajectory, np.random.default_rng(3))
    assert len(made) == 5
    for view in made:
        assert view.masked is not None
        assert not view.masked[0]  # the prompt
        np.testing.assert_array_equal(view.scored, view.masked)
        np.testing.assert_allclose(view.extra["weight"][view.masked], 9 / view.masked.sum(), rtol=1e-6)
        assert (view.extra["weight"][~view.masked] == 0).all()
    again = algorithm(name, n_t=5).views(trajectory, np.random.default_rng(3))
    assert all((a.masked == b.masked).all() for a, b in zip(made, again, strict=True))  # type: ignore[union-attr]


def test_length_normalisation_is_off_by_default_and_divides_by_the_length() -> None:
    trajectory = make_trajectory(1.0, tokens=9)
    plain, normalized = (
        algorithm("bgpo", n_t=2, length_normalized=on).views(trajectory, np.random.default_rng(0))
        for on in (False, True)
    )
    np.testing.assert_allclose(normalized[0].extra["weight"] * 9, plain[0].extra["weight"], rtol=1e-6)
    assert not algorithm("bgpo").config.length_normalized


def test_diffu_grpo_masks_the_response_whole_and_some_of_the_prompt() -> None:
    trajectory = make_trajectory(1.0, tokens=3)
    trajectory.policy_mask[:3] = [False, False, False]
    rng = np.random.default_rng(0)
    shares = np.zeros(4)
    for _ in range(400):
        (view,) = algorithm("diffu_grpo").views(trajectory, rng)
        assert view.masked is not None
        assert view.masked[3]
        assert view.scored.tolist() == [False, False, False, True]
        shares += view.masked
    assert (np.abs(shares[:3] / 400 - 0.15) < 0.06).all()


def copies(d: torch.Tensor, advantages: list[float], n_t: int) -> tuple[PackedViews, StepConstants]:
    """Views of one masked token each whose weighted log-ratio is d (responses x n_t)."""
    flat = d.flatten()
    count = len(flat)
    views = PackedViews(
        logprobs=flat / 2,
        entropies=None,
        old_logprobs=torch.zeros(count, dtype=F64),
        rollout_logprobs=torch.zeros(count, dtype=F64),
        ref_logprobs=None,
        advantages=torch.tensor(advantages, dtype=F64).repeat_interleave(n_t),
        mask=torch.ones(count, dtype=torch.bool),
        sequence=torch.arange(count),
        turn=torch.zeros(count, dtype=torch.int64),
        sequence_tokens=torch.ones(count),
        response=torch.arange(len(advantages)).repeat_interleave(n_t),
        extra={"weight": torch.full((count,), 2.0, dtype=F64)},
    )
    return views, StepConstants(count, count, count, 8)


def loss_and_gradient(name: str, d: torch.Tensor, advantages: list[float]) -> tuple[float, torch.Tensor]:
    d = d.clone().requires_grad_()
    made = algorithm(name, n_t=d.shape[1])
    views, constants = copies(d, advantages, d.shape[1])
    if made.preview:
        with torch.no_grad():
            views.extra |= made.preview_extra(views)
    loss = made.loss(views, constants).loss
    loss.backward()
    assert d.grad is not None
    return loss.item(), d.grad


ADVANTAGES = [1.2, -0.8, 0.0]


def test_losses_are_minus_the_mean_over_responses() -> None:
    d = 0.5 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    bound, _ = loss_and_gradient("bgpo", d, ADVANTAGES)
    assert bound == pytest.approx(-sum(lower_bound(d[i], a).item() for i, a in enumerate(ADVANTAGES)) / 3, abs=1e-12)
    value, gradient = loss_and_gradient("vrpo_ol", d, ADVANTAGES)
    assert value == pytest.approx(-sum(exact(d[i], a).item() for i, a in enumerate(ADVANTAGES)) / 3, abs=1e-12)
    assert value <= bound
    _, two_pass = loss_and_gradient("vrpo_two_pass", d, ADVANTAGES)
    torch.testing.assert_close(two_pass, gradient, rtol=0, atol=1e-14)


def test_all_losses_agree_on_policy() -> None:
    results = [
        loss_and_gradient(name, torch.zeros(3, 4, dtype=F64), ADVANTAGES)
        for name in ("bgpo", "vrpo_ol", "vrpo_two_pass")
    ]
    for value, gradient in results[1:]:
        assert value == pytest.approx(results[0][0], abs=1e-10)
        torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=1e-10)


def test_capped_copies_are_counted() -> None:
    d = torch.tensor([[0.0, 50.0], [40.0, -3.0]], dtype=F64)
    views, constants = copies(d, [-1.0, -1.0], 2)
    output = algorithm("bgpo", n_t=2).loss(views, constants)
    assert torch.isfinite(output.loss)
    assert output.sums["capped"] / constants.tokens == 2  # the learner divides by tokens


def test_advantages_are_divided_by_the_spread_of_the_group() -> None:
    (advantages,) = algorithm("bgpo").advantages([make_group([0.0, 1.0, 1.0, 0.0])])
    np.testing.assert_allclose(advantages, np.array([-0.5, 0.5, 0.5, -0.5]) / (np.std([0, 1, 1, 0], ddof=1) + 1e-6))


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        ({"n_t": 0}, "n_t", "greater than or equal to 1"),
        ({"masks": "random"}, "masks", "'stratified' or 'iid'"),
        ({"clip": 0.2}, "clip", "algorithm.clip: unknown key"),
        ({"select": {"name": "d3s"}}, "select", "set tokens: 100"),
    ],
)
def test_wrong_options_are_refused(options: dict, key: str, words: str) -> None:
    with pytest.raises(AlgorithmError, match=words) as caught:
        algorithm("bgpo", **options)
    assert caught.value.key == key


def test_samples_can_be_selected() -> None:
    assert algorithm("bgpo", select={"name": "d3s", "tokens": 100}).model == "diffusion"


def test_who_allows_older_rollouts() -> None:
    allowed = {name: algorithm(name).allows_lag for name in ("bgpo", "vrpo_ol", "vrpo_two_pass", "diffu_grpo")}
    assert allowed == {"bgpo": True, "vrpo_ol": True, "vrpo_two_pass": False, "diffu_grpo": False}
