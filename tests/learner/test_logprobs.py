"""Tiled log-probs against the plain formula in fp64: values, gradients, memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlpost.learner.logprobs import PLAIN, Logits, tiled_logprobs


def naive(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    bias: Tensor | None = None,
    shape: Logits = PLAIN,
) -> tuple[Tensor, Tensor]:
    logits = torch.nn.functional.linear(hidden, weight, bias) * shape.scale
    if shape.cap is not None:
        logits = shape.cap * torch.tanh(logits / shape.cap)
    logs = torch.log_softmax(logits / temperature, dim=-1)
    return logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1)


def inputs(rows: int, vocabulary: int, width: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (rows,), generator=generator)


@pytest.mark.parametrize(("rows", "tile"), [(37, 8), (16, 16), (5, 100), (1, 1), (0, 8)])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_values_and_gradients_match_log_softmax(rows: int, tile: int, temperature: float) -> None:
    hidden, weight, targets = inputs(rows, 19, 6)
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    ours, theirs = (
        tiled_logprobs(hidden, weight, targets, temperature, tile),
        naive(hidden, weight, targets, temperature),
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    own = torch.autograd.grad(a @ ours[0] + b @ ours[1], (hidden, weight))
    expected = torch.autograd.grad(a @ theirs[0] + b @ theirs[1], (hidden, weight))
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("output", [0, 1])
def test_each_output_alone_has_the_right_gradient(output: int) -> None:
    hidden, weight, targets = inputs(11, 7, 5)
    own = torch.autograd.grad(tiled_logprobs(hidden, weight, targets, 0.9, 4)[output].sum(), (hidden, weight))
    expected = torch.autograd.grad(naive(hidden, weight, targets, 0.9)[output].sum(), (hidden, weight))
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [PLAIN, Logits(0.25), Logits(cap=2.0), Logits(3.0, 1.5)])
@pytest.mark.parametrize("biased", [False, True])
def test_heads_with_a_bias_a_scale_or_a_cap(shape: Logits, biased: bool) -> None:
    hidden, weight, targets = inputs(23, 17, 6)
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 23, generator=generator, dtype=torch.float64)
    bias = torch.randn(17, generator=generator, dtype=torch.float64).requires_grad_() if biased else None
    leaves = (hidden, weight) if bias is None else (hidden, weight, bias)
    ours = tiled_logprobs(hidden, weight, targets, 0.7, 8, bias=bias, logits=shape)
    theirs = naive(hidden, weight, targets, 0.7, bias, shape)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    own = torch.autograd.grad(a @ ours[0] + b @ ours[1], leaves)
    expected = torch.autograd.grad(a @ theirs[0] + b @ theirs[1], leaves)
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-8)


def test_an_impossible_token_of_a_capped_head_has_no_gradient() -> None:
    hidden, weight, targets = inputs(5, 4, 3)
    logprob, entropy = tiled_logprobs(hidden, weight, targets % 3, never=3, logits=Logits(cap=2.0))
    (gradient,) = torch.autograd.grad(logprob.sum() + entropy.sum(), weight)
    assert gradient.isfinite().all()
    assert gradient[3].count_nonzero() == 0


def test_gradcheck() -> None:
    hidden, weight, targets = inputs(5, 4, 3)
    assert torch.autograd.gradcheck(lambda h, w: tiled_logprobs(h, w, targets, 0.8, 2), (hidden, weight))


def test_golden_values() -> None:
    hidden, weight = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0986123]])  # logits (0, ln 3) and (0, 0)
    logprob, entropy = tiled_logprobs(hidden, weight, torch.tensor([1, 0]))
    torch.testing.assert_close(logprob, torch.tensor([-0.2876821, -0.6931472]))  # ln 3/4, ln 1/2
    torch.testing.assert_close(entropy, torch.tensor([0.5623351, 0.6931472]))  # -(3/4 ln 3/4 + 1/4 ln 1/4), ln 2


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, targets = inputs(6, 9, 3, torch.float32)
    logprob, entropy = tiled_logprobs(hidden * 1e4, weight, targets, tile=4)
    gradient = torch.autograd.grad(logprob.sum() + entropy.sum(), weight)[0]
    assert logprob.isfinite().all()
    assert entropy.isfinite().all()
    assert gradient.isfinite().all()


def test_bf16_is_reduced_in_fp32() -> None:
    hidden, weight, targets = inputs(300, 64, 16, torch.bfloat16)
    logprob, entropy = tiled_logprobs(hidden, weight, targets, tile=32)
    expected = naive(hidden.double(), weight.double(), targets, 1.0)
    assert logprob.dtype is entropy.dtype is torch.float32
    torch.testing.assert_close(logprob.double(), expected[0], rtol=0, atol=0.1)  # logits of up to 16 in 8 bits
    own = torch.autograd.grad(logprob.sum(), weight)[0]
    exact = torch.autograd.grad(expected[0].sum(), weight)[0]
    assert own.dtype is torch.bfloat16
    assert (own.double() - exact.double()).norm() < 0.01 * exact.double().norm()


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        tiled_logprobs(*inputs(2, 3, 4), temperature=0.0)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else [out]:
            if isinstance(made, Tensor):
                self.elements = max(self.elements, made.numel())
        return out


def test_no_tensor_of_all_rows_times_vocabulary_is_ever_made() -> None:
    rows, vocabulary, tile = 256, 512, 16
    hidden, weight, targets = inputs(rows, vocabulary, 4, torch.float32)
    with Largest() as seen:
        logprob, entropy = tiled_logprobs(hidden, weight, targets, 0.7, tile)
        (logprob.sum() + entropy.sum()).backward()
    assert seen.elements == tile * vocabulary
