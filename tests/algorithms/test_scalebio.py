"""ScaleBiO's mathematics: the gradient by autograd, a bilevel problem with a known answer, weights that cannot die."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rlpost.algorithms.base import AlgorithmError, PackedViews, StepConstants
from rlpost.algorithms.registry import build, locate
from rlpost.algorithms.scalebio import (
    LOWEST,
    ScaleBiO,
    SourceWeights,
    source_gradient,
    source_means,
    token_mean_coefficients,
    train_coefficients,
)
from rlpost.benchmarks.studies.scalebio_quadratic import answer, learn


@pytest.mark.parametrize("seed", range(5))
def test_the_source_gradient_is_autograds(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(7, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    delta = torch.randn(7, generator=generator, dtype=torch.float64)
    (12.5 * (logits.softmax(0) * delta).sum()).backward()
    probs = logits.detach().softmax(0)
    torch.testing.assert_close(source_gradient(probs, delta, 12.5), logits.grad, rtol=0, atol=1e-10)
    np.testing.assert_allclose(source_gradient(probs.numpy(), delta.numpy(), 12.5), logits.grad, rtol=0, atol=1e-10)


def test_the_source_gradient_by_hand() -> None:
    # p delta = (-1, 0, 1/2), so the mean is -1/2; 4 p (delta - mean) = 4 (1/2 * -3/2, 1/4 * 1/2, 1/4 * 5/2)
    found = source_gradient(np.array([0.5, 0.25, 0.25]), np.array([-2.0, 0.0, 2.0]), 4.0)
    assert found.tolist() == [-3.0, 0.5, 2.5]
    assert found.sum() == 0.0


def test_coefficients_by_hand() -> None:
    sources = np.array([0, 2, 0, 2, 2, 0])
    assert train_coefficients(np.array([0.3, 0.1, 0.6]), sources) == pytest.approx([0.1, 0.2, 0.1, 0.2, 0.2, 0.1])
    assert token_mean_coefficients(np.array([1, 3, 4])).tolist() == [0.125, 0.375, 0.5]
    means = source_means(np.array([1.0, 2.0, 3.0, 4.0, 9.0, 5.0]), sources, 3)
    assert means[[0, 2]].tolist() == [3.0, 5.0]
    assert np.isnan(means[1])


def test_a_source_missing_from_a_batch_gets_no_gradient_and_the_others_are_compared() -> None:
    weights = SourceWeights(3)
    gradient = weights.update(np.array([-1.0, np.nan, 1.0]), 10.0, 0.1)
    assert gradient == pytest.approx([-10 / 3, 0.0, 10 / 3])
    assert weights.probs[0] > weights.probs[1] > weights.probs[2] > 0
    assert np.isfinite(weights.probs).all()


def test_weights_do_not_underflow_and_come_back() -> None:
    weights = SourceWeights(3)
    for _ in range(400):
        weights.update(np.array([-1.0, 0.0, 1.0]), 100.0, 5.0)  # AdamW would move the logits by thousands
    assert np.isfinite(weights.probs).all()
    assert weights.probs.sum() == pytest.approx(1.0)
    assert 0.9 * LOWEST < weights.probs.min() < 1e-3
    for _ in range(400):
        weights.update(np.array([1.0, 0.0, -1.0]), 100.0, 1.0)
    assert weights.probs[2] > 0.9


def test_a_weight_of_exactly_zero_is_lifted() -> None:
    weights = SourceWeights(2)
    weights.logits.data = torch.tensor([0.0, -2000.0], dtype=torch.float64)
    assert weights.probs[1] == 0.0
    weights.update(np.array([0.5, -0.5]), 10.0, 0.01)
    assert weights.probs[1] == pytest.approx(LOWEST, rel=0.02)


def test_weights_resume_exactly() -> None:
    one, other = SourceWeights(3), SourceWeights(3)
    one.update(np.array([0.3, -0.2, 0.1]), 10.0, 0.05)
    other.restore(one.state())
    for weights in (one, other):
        weights.update(np.array([0.1, 0.2, -0.5]), 10.0, 0.05)
    assert (one.probs == other.probs).all()


def test_a_quadratic_problem_converges_to_its_known_weights() -> None:
    errors = [np.abs(learn(alpha, steps=6000) - answer()).max() for alpha in (10.0, 100.0, 1000.0)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]  # the bias is O(1 / alpha)
    assert errors[2] < 2e-3


def test_the_loss_is_the_weighted_sum_of_mean_losses() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0], requires_grad=True)
    mask = torch.tensor([False, True, True, True, True])
    coefficients = torch.tensor([0.25, 0.25, 0.25, 0.75, 0.75])
    nothing = torch.zeros(5)
    sequence = torch.tensor([0, 0, 0, 1, 1])
    views = PackedViews(
        logprobs, None, nothing, nothing, None, coefficients, mask, sequence, sequence, torch.tensor([2.0, 2.0])
    )
    loss = ScaleBiO.loss(ScaleBiO.__new__(ScaleBiO), views, StepConstants(2, 4, 2, 5)).loss
    assert loss.item() == pytest.approx(0.25 * 2.5 + 0.75 * 4.5)
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [0.0, -0.125, -0.125, -0.375, -0.375]


GOOD = {"sources": ["a.jsonl", {"name": "b", "data": "b.jsonl"}], "validation": "v.jsonl"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (GOOD | {"sources": ["a.jsonl"]}, "single source .'a'. is always 1"),
        (GOOD | {"sources": []}, "algorithm.sources"),
        (GOOD | {"sources": ["x/a.jsonl", "y/a.json.gz"]}, "two sources are called 'a'"),
        (GOOD | {"sources": [{"name": "a", "data": "x"}, {"name": "a", "data": "y"}]}, "two sources are called 'a'"),
        ({"sources": ["a", "b"]}, "validation"),
        (GOOD | {"alpha": 0}, "algorithm.alpha"),
        (GOOD | {"alfa": 1}, "did you mean 'alpha'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(AlgorithmError, match=message):
        build(locate("scalebio"), options)


def test_good_options_and_what_explain_says() -> None:
    made: Callable[..., ScaleBiO] = build(locate("scalebio"), GOOD)  # type: ignore[assignment]
    assert made.trainer == "bilevel"
    assert [source.label for source in made.config.sources] == ["a", "b"]
    assert made.describe()["sources"] == "a, b"
    by_column = build(locate("scalebio"), GOOD | {"sources": [{"data": "all.jsonl", "column": "source"}]})
    assert by_column.describe()["sources"] == "all.jsonl by source"
    assert len(type(made.config).model_fields) <= 12
