"""Two Triton kernels for one tile of logits: its statistics in one read, and its gradient in one read and one write.

Plain torch passes over a tile a dozen times for the same numbers, which on a GPU takes longer than the matrix products
around them. Derivatives are those of logprobs.py. Left out: the matrix products (cuBLAS is at the hardware's limit),
and fp64, which stays with plain torch as the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    from triton import language as tl
except ImportError:  # builds of torch for CPUs bring no Triton
    triton = None

BLOCK = 4096


def available(logits_device: torch.device, accumulate: torch.dtype) -> bool:
    """Whether the kernels run on these logits."""
    return triton is not None and logits_device.type == "cuda" and accumulate is torch.float32


def statistics(
    logits: Tensor, targets: Tensor, temperature: float, normaliser: Tensor, logprob: Tensor, entropy: Tensor
) -> None:
    """Fill in log Σ exp(z), log p[target] and H of each row, with z = logits / temperature.

    Args:
        logits: (n, V) fp32, rows contiguous.
        targets: (n,) int64.
        temperature: T > 0.
        normaliser, logprob, entropy: (n,) fp32, overwritten.
    """
    rows, columns = logits.shape
    if rows:
        _statistics[(rows,)](
            logits,
            targets,
            normaliser,
            logprob,
            entropy,
            columns,
            logits.stride(0),
            1.0 / temperature,
            BLOCK,
            num_warps=8,
        )


def gradient(
    logits: Tensor,
    targets: Tensor,
    temperature: float,
    normaliser: Tensor,
    entropy: Tensor,
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """d/d logits of Σ grad_logprob log p[target] + Σ grad_entropy H: (n, V) in ``dtype``; ``logits`` is only read."""
    rows, columns = logits.shape
    result = torch.empty(rows, columns, dtype=dtype, device=logits.device)
    nothing = torch.zeros_like(entropy) if grad_logprob is None or grad_entropy is None else entropy
    by_logprob = nothing if grad_logprob is None else grad_logprob.contiguous()
    by_entropy = nothing if grad_entropy is None else grad_entropy.contiguous()
    if rows:
        _gradient[(rows, triton.cdiv(columns, BLOCK))](
            logits, targets, normaliser, entropy, by_logprob, by_entropy, result, columns, logits.stride(0),
            1.0 / temperature, BLOCK, num_warps=8,
        )  # fmt: skip
    return result


if triton is not None:
    _LOWEST = tl.constexpr(-1.0e30)  # stands where a row has ended; finite, so that no inf - inf arises

    @triton.jit
    def _statistics(  # type: ignore[no-untyped-def]
        logits, targets, normaliser, logprob, entropy, columns, stride, inverse_temperature, BLOCK: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64)
        start = logits + row * stride
        # Of each lane: the largest z so far, m; Σ exp(z - m); Σ exp(z - m) (z - m). The shift by m keeps the entropy
        # exact where logits are large.
        highest = tl.full([BLOCK], _LOWEST, tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        moment = tl.zeros([BLOCK], tl.float32)
        for first in range(0, columns, BLOCK):
            at = first + tl.arange(0, BLOCK)
            inside = at < columns
            z = tl.where(inside, tl.load(start + at, mask=inside, other=0.0) * inverse_temperature, _LOWEST)
            new = tl.maximum(highest, z)
            fall = highest - new
            scale = tl.exp(fall)
            weight = tl.exp(z - new)
            moment = scale * (moment + total * fall) + weight * (z - new)
            total = scale * total + weight
            highest = new
        most = tl.max(highest, axis=0)
        fall = highest - most
        scale = tl.exp(fall)
        moments = tl.sum(scale * (moment + total * fall), axis=0)
        sums = tl.sum(scale * total, axis=0)
        log_sums = tl.log(sums)
        chosen = tl.load(start + tl.load(targets + row)) * inverse_temperature
        tl.store(normaliser + row, most + log_sums)
        tl.store(logprob + row, chosen - most - log_sums)
        tl.store(entropy + row, log_sums - moments / sums)

    @triton.jit
    def _gradient(  # type: ignore[no-untyped-def]
        logits, targets, normaliser, entropy, by_logprob, by_entropy, result, columns, stride, inverse_temperature,
        BLOCK: tl.constexpr,
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < columns
        z = tl.load(logits + row * stride + at, mask=inside, other=0.0) * inverse_temperature
        logp = z - tl.load(normaliser + row)
        slope_logprob = tl.load(by_logprob + row)
        slope = slope_logprob + tl.load(by_entropy + row) * (logp + tl.load(entropy + row))
        value = tl.where(at == tl.load(targets + row), slope_logprob, 0.0) - tl.exp(logp) * slope
        tl.store(result + row * columns + at, (value * inverse_temperature).to(result.dtype.element_ty), mask=inside)
