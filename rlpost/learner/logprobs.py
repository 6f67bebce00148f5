"""Log-probabilities and entropies of given tokens, without ever holding the (N, V) logits.

With z = h Wᵀ / T, p = softmax(z), l = log p and H = -Σ p l, the derivatives of l[target] and H by z are
``onehot(target) - p`` and ``-p (l + H)``. Both the forward and the backward pass go over tiles of rows and recompute
the tile's logits; what lives between them is (N,) log-normalisers and entropies. Left out: tiles over the vocabulary
(a tile of 1,024 rows of 150,000 logits is 0.6 GB in fp32) and heads that do more than one matrix product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_BYTES = 1 << 29
"""Logits alive at once, in fp32; a tile of more rows than 1,024 would gain nothing."""


def tile_rows(vocabulary: int) -> int:
    """Rows of logits to hold at once."""
    return max(1, min(1024, TILE_BYTES // (4 * vocabulary)))


def tiled_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, tile: int = 1024
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of the distribution it is drawn from.

    Args:
        hidden: (N, d) rows that the output head is applied to; fp64, fp32 or bf16.
        weight: (V, d) matrix of the output head, same dtype.
        targets: (N,) int64 token ids.
        temperature: T > 0; the distribution is softmax(hidden weightᵀ / T).
        tile: at most this many rows of logits are alive at once.

    Returns:
        ``(logprob, entropy)``, both (N,), differentiable once; fp64 for fp64 inputs, else fp32. Reductions, and the
        gradient of ``weight`` over tiles, are accumulated in that dtype too.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature of log-probs must be positive, not {temperature}")
    logprob, entropy = _TiledLogprobs.apply(hidden, weight, targets, temperature, tile)
    return logprob, entropy


def _tile_logprobs(hidden: Tensor, weight: Tensor, normaliser: Tensor | None, temperature: float) -> Tensor:
    """(n, V) log-probabilities, or scaled logits where ``normaliser`` is None, in the accumulation dtype."""
    if hidden.dtype is torch.float64 or hidden.dtype is torch.float32:
        logits = hidden @ weight.t()
    elif hidden.is_cuda:
        logits = torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    else:
        logits = (hidden @ weight.t()).float()
    if temperature != 1.0:
        logits.div_(temperature)
    return logits if normaliser is None else logits.sub_(normaliser[:, None])


class _TiledLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, tile: int
    ) -> tuple[Tensor, Tensor]:
        rows = hidden.shape[0]
        dtype = torch.float64 if hidden.dtype is torch.float64 else torch.float32
        logprob, entropy, normaliser = (torch.empty(rows, dtype=dtype, device=hidden.device) for _ in range(3))
        for start in range(0, rows, tile):
            part = slice(start, start + tile)
            logits = _tile_logprobs(hidden[part], weight, None, temperature)
            normaliser[part] = torch.logsumexp(logits, dim=-1)
            logprobs = logits.sub_(normaliser[part, None])
            logprob[part] = logprobs.gather(1, targets[part, None])[:, 0]
            entropy[part] = torch.exp(logprobs).mul_(logprobs).sum(dim=-1).neg_()
        ctx.save_for_backward(hidden, weight, targets, normaliser, entropy)
        ctx.temperature, ctx.tile = temperature, tile
        ctx.set_materialize_grads(False)
        return logprob, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, targets, normaliser, entropy = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        if grad_logprob is None and grad_entropy is None:
            return None, None, None, None, None
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=normaliser.dtype) if wants_weight else None
        for start in range(0, hidden.shape[0], ctx.tile):
            part = slice(start, start + ctx.tile)
            logprobs = _tile_logprobs(hidden[part], weight, normaliser[part], ctx.temperature)
            grad_logits = _logit_gradient(
                logprobs,
                targets[part],
                None if grad_logprob is None else grad_logprob[part],
                None if grad_entropy is None else grad_entropy[part],
                entropy[part],
            )
            grad_logits = grad_logits.div_(ctx.temperature).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, weight, out=grad_hidden[part])
            if grad_weight is not None:
                _add_product(grad_weight, grad_logits.t(), hidden[part])
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _logit_gradient(
    logprobs: Tensor, targets: Tensor, grad_logprob: Tensor | None, grad_entropy: Tensor | None, entropy: Tensor
) -> Tensor:
    """g_lp (onehot - p) + g_H (-p (log p + H)), (n, V); ``logprobs`` is overwritten."""
    probs = torch.exp(logprobs)
    if grad_entropy is None:
        assert grad_logprob is not None
        gradient = probs.mul_(grad_logprob[:, None]).neg_()
    else:
        slope = logprobs.add_(entropy[:, None]).mul_(grad_entropy[:, None])
        gradient = probs.mul_(slope if grad_logprob is None else slope.add_(grad_logprob[:, None])).neg_()
    if grad_logprob is not None:
        gradient.scatter_add_(1, targets[:, None], grad_logprob[:, None])
    return gradient


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, accumulated in the dtype of ``total``."""
    if total.dtype is right.dtype:
        total.addmm_(left, right)
    elif right.is_cuda:
        total.add_(torch.mm(left, right, out_dtype=total.dtype))
    else:
        total.add_(left @ right)
