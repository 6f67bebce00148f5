"""Log-probabilities and entropies of given tokens, without ever holding the (N, V) logits.

With z = f(h Wᵀ + b) / T, p = softmax(z), l = log p and H = -Σ p l, the derivatives of l[target] and H by z are
``onehot(target) - p`` and ``-p (l + H)``; f is a scale, or a scale and a cap (``Logits``). Both the forward and the
backward pass go over tiles of rows and recompute the tile's logits; what lives between them is (N,) log-normalisers and
entropies. What is done to a tile is plain torch here, and on a GPU the same in two fused kernels (logprob_kernels.py).
Left out: tiles over the vocabulary (a tile of 1,024 rows of 150,000 logits is 0.6 GB in fp32) and heads that do more
than one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlpost.learner import logprob_kernels
from rlpost.rollout.diffusion.states import IMPOSSIBLE

TILE_BYTES = 1 << 29
"""Logits alive at once, in fp32; a tile of more rows than 1,024 would gain nothing."""


@dataclass(frozen=True, slots=True)
class Logits:
    """What stands between the head's product y = h Wᵀ + b and the logits: f(y) = scale y, or cap tanh(scale y / cap).

    Attributes:
        scale: Cohere's ``logit_scale``, the inverse of Granite's ``logits_scaling``.
        cap: Gemma 2's ``final_logit_softcapping``.
    """

    scale: float = 1.0
    cap: float | None = None


PLAIN = Logits()


def tile_rows(vocabulary: int) -> int:
    """Rows of logits to hold at once."""
    return max(1, min(1024, TILE_BYTES // (4 * vocabulary)))


def tiled_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    tile: int = 1024,
    never: int | None = None,
    bias: Tensor | None = None,
    logits: Logits = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of the distribution it is drawn from.

    Args:
        hidden: (N, d) rows that the output head is applied to; fp64, fp32 or bf16.
        weight: (V, d) matrix of the output head, same dtype.
        targets: (N,) int64 token ids.
        temperature: T > 0; the distribution is softmax(f(hidden weightᵀ + bias) / T).
        tile: at most this many rows of logits are alive at once.
        never: a token that is never drawn (a diffusion model's mask), left out of the distribution.
        bias: (V,) of the output head, where it has one.
        logits: f.

    Returns:
        ``(logprob, entropy)``, both (N,), differentiable once; fp64 for fp64 inputs, else fp32. Reductions, and the
        gradients of ``weight`` and ``bias`` over tiles, are accumulated in that dtype too.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature of log-probs must be positive, not {temperature}")
    if logits.cap is None:  # a scale alone is a temperature
        temperature /= logits.scale
    logprob, entropy = _TiledLogprobs.apply(hidden, weight, bias, targets, temperature, tile, never, logits)
    return logprob, entropy


def _tile_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, never: int | None, shape: Logits) -> Tensor:
    """(n, V) logits in the accumulation dtype; scaled only where they are capped."""
    if hidden.dtype is torch.float64 or hidden.dtype is torch.float32:
        logits = hidden @ weight.t()
    elif hidden.is_cuda:
        logits = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    else:
        logits = (hidden @ weight.t()).float()
    if bias is not None:
        logits.add_(bias)
    if shape.cap is not None:
        logits.mul_(shape.scale / shape.cap).tanh_().mul_(shape.cap)
    if never is not None:
        logits[:, never] = IMPOSSIBLE
    return logits


class _TiledLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        tile: int,
        never: int | None,
        shape: Logits,
    ) -> tuple[Tensor, Tensor]:
        rows = hidden.shape[0]
        dtype = torch.float64 if hidden.dtype is torch.float64 else torch.float32
        logprob, entropy, normaliser = (torch.empty(rows, dtype=dtype, device=hidden.device) for _ in range(3))
        fused = logprob_kernels.available(hidden.device, dtype)
        statistics = logprob_kernels.statistics if fused else _statistics
        for start in range(0, rows, tile):
            part = slice(start, start + tile)
            logits = _tile_logits(hidden[part], weight, bias, never, shape)
            statistics(logits, targets[part], temperature, normaliser[part], logprob[part], entropy[part])
            del logits  # before the next tile's are made
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser, entropy)
        ctx.temperature, ctx.tile, ctx.never, ctx.shape, ctx.fused = temperature, tile, never, shape, fused
        ctx.set_materialize_grads(False)
        return logprob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normaliser, entropy = ctx.saved_tensors
        if grad_logprob is None and grad_entropy is None:
            return (None,) * 8
        totals = [
            torch.zeros_like(one, dtype=normaliser.dtype) if wanted else None
            for one, wanted in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
        ]
        grad_weight, grad_bias = totals
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        gradient = logprob_kernels.gradient if ctx.fused else _gradient
        for start in range(0, hidden.shape[0], ctx.tile):
            part = slice(start, start + ctx.tile)
            logits = _tile_logits(hidden[part], weight, bias, ctx.never, ctx.shape)
            slope = _cap_slope(logits, ctx.shape)
            grad_logits = gradient(
                logits,
                targets[part],
                ctx.temperature,
                normaliser[part],
                entropy[part],
                None if grad_logprob is None else grad_logprob[part],
                None if grad_entropy is None else grad_entropy[part],
                hidden.dtype if slope is None else normaliser.dtype,
            )
            del logits
            if slope is not None:
                grad_logits = grad_logits.mul_(slope).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, weight, out=grad_hidden[part])
            if grad_weight is not None:
                _add_product(grad_weight, grad_logits.t(), hidden[part])
            if grad_bias is not None:
                grad_bias.add_(grad_logits.sum(0, dtype=grad_bias.dtype))
            del grad_logits, slope
        grads = [None if total is None else total.to(weight.dtype) for total in totals]
        return grad_hidden, *grads, None, None, None, None, None


def _cap_slope(logits: Tensor, shape: Logits) -> Tensor | None:
    """f' = scale (1 - (z / cap)²) at capped logits z; None where nothing is capped. 0 where a token is impossible."""
    if shape.cap is None:
        return None
    return (logits / shape.cap).square_().neg_().add_(1.0).clamp_(min=0.0).mul_(shape.scale)


def _statistics(
    logits: Tensor, targets: Tensor, temperature: float, normaliser: Tensor, logprob: Tensor, entropy: Tensor
) -> None:
    """Fill in log Σ exp(z), log p[target] and H of each row, z = logits / temperature; ``logits`` is overwritten."""
    if temperature != 1.0:
        logits.div_(temperature)
    torch.logsumexp(logits, dim=-1, out=normaliser)
    logprobs = logits.sub_(normaliser[:, None])
    logprob.copy_(logprobs.gather(1, targets[:, None])[:, 0])
    entropy.copy_(torch.exp(logprobs).mul_(logprobs).sum(dim=-1).neg_())


def _gradient(
    logits: Tensor,
    targets: Tensor,
    temperature: float,
    normaliser: Tensor,
    entropy: Tensor,
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """g_lp (onehot - p) + g_H (-p (log p + H)), over T: (n, V) in ``dtype``; ``logits`` is overwritten."""
    if temperature != 1.0:
        logits.div_(temperature)
    logprobs = logits.sub_(normaliser[:, None])
    probs = torch.exp(logprobs)
    if grad_entropy is None:
        assert grad_logprob is not None
        gradient = probs.mul_(grad_logprob[:, None]).neg_()
    else:
        slope = logprobs.add_(entropy[:, None]).mul_(grad_entropy[:, None])
        gradient = probs.mul_(slope if grad_logprob is None else slope.add_(grad_logprob[:, None])).neg_()
    if grad_logprob is not None:
        gradient.scatter_add_(1, targets[:, None], grad_logprob[:, None])
    return gradient.div_(temperature).to(dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, accumulated in the dtype of ``total``."""
    if total.dtype is right.dtype:
        total.addmm_(left, right)
    elif right.is_cuda and _adds_in_place(right.dtype):
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    elif right.is_cuda:
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
    else:
        total.add_(left @ right)


@cache
def _adds_in_place(dtype: torch.dtype) -> bool:
    """Whether this torch adds a half-precision product to an fp32 matrix without a matrix in between."""
    ones = torch.ones(16, 16, dtype=dtype, device="cuda")
    total = torch.ones(16, 16, device="cuda")
    try:
        torch.addmm(total, ones, ones, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 17).all())
