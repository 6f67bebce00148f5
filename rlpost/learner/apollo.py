"""APOLLO and APOLLO-Mini (arXiv 2412.05270): AdamW's scaling, learned in a small random projection of the gradient.

With G (m, n) a matrix's gradient, m <= n (else its transpose), and P (r, m) ~ N(0, 1/r), drawn every ``refresh`` steps:

    R = P G,   M, V = moments of R and R²,   R~ = M^ / (sqrt(V^) + eps)
    s_j = |R~[:, j]| / |R[:, j]|  (a column each)   or   s = |R~| / |R|  (Mini: one for the matrix, r = 1)
    U = s G, its norm at most ``growth`` times the last one's;   W <- W - lr sqrt(scale) U - lr decay W

The raw gradient is scaled, so the update has full rank. P is drawn anew from (seed, weight, period) and never stored:
the state of a matrix is 2 r n numbers and one norm. Experts that share one tensor (E, m, n) are E matrices, each with
its own P, factors and norm. Left out: quantised weights. A sharded weight is treated shard by shard, each as a matrix
(or some of the experts) of its own, so its state belongs to a number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

TINY = 1e-8
"""Keeps a column whose projection is zero from dividing by it."""


class Apollo(torch.optim.Optimizer):
    """The optimizer.

    Args:
        params: parameters or groups. A group whose ``kind`` is not ``matrices`` gets plain AdamW (embeddings, output
            head, norms, biases); without ``kind``, what has two or three dimensions is projected.
        lr, betas, eps, weight_decay: as AdamW's; the decay is decoupled.
        rank: r; at most the matrix's smaller side.
        scale: alpha; updates are multiplied by its root.
        per_tensor: one scaling factor a matrix (Mini) instead of one a column.
        refresh: T, steps between two draws of the projection.
        growth: gamma, the most an update's norm may grow by from one step to the next.
        seed: of all projections.

    Raises:
        ValueError: a rank, scale, refresh or growth that makes no sense.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        rank: int = 256,
        scale: float = 1.0,
        per_tensor: bool = False,
        refresh: int = 200,
        growth: float = 1.01,
        seed: int = 0,
    ) -> None:
        if rank < 1 or scale <= 0 or refresh < 1 or growth < 1:
            raise ValueError(
                f"rank ({rank}) and refresh ({refresh}) must be 1 or more, scale ({scale}) positive, growth ({growth}) "
                "1 or more"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.rank, self.scale, self.per_tensor = rank, scale, per_tensor
        self.refresh, self.growth, self.seed = refresh, growth, seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        number = 0
        for group in self.param_groups:
            for weight in group["params"]:
                number += 1
                if weight.grad is None:
                    continue
                state = self.state[weight]
                state["step"] = state.get("step", 0) + 1
                if weight.ndim in (2, 3) and group.get("kind", "matrices") == "matrices":
                    self._scaled(weight, state, group, number)
                else:
                    _adamw(weight, state, group)
        return loss

    def _scaled(self, weight: Tensor, state: dict[str, Any], group: dict[str, Any], number: int) -> None:
        """One APOLLO update of one matrix or of (E, m, n) matrices, each for itself (of this rank's shard of it)."""
        own, gradient = _local(weight), _local(weight.grad).float()
        if own.numel() == 0:  # a rank without any of the experts
            return
        flat = gradient if gradient.shape[-2] <= gradient.shape[-1] else gradient.mT
        projected = self._projection(flat, number, state["step"]) @ flat
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(projected)
            state["exp_avg_sq"] = torch.zeros_like(projected)
            state["norm"] = projected.new_zeros(math.prod(flat.shape[:-2]))
        adapted = _moments(projected, state, group)
        over = (-2, -1) if self.per_tensor else (-2,)
        factor = adapted.norm(dim=over, keepdim=True) / (projected.norm(dim=over, keepdim=True) + TINY)
        update = flat * factor
        norm, last = update.norm(dim=(-2, -1), keepdim=True), state["norm"].view(*flat.shape[:-2], 1, 1)
        limit = torch.where(last > 0, (self.growth * last / norm.clamp_min(TINY)).clamp(max=1.0), 1.0)
        last.copy_(torch.where(norm > 0, norm * limit, last))  # an expert without a token keeps its bound
        update = update.mul_(limit)
        own.mul_(1 - group["lr"] * group["weight_decay"])
        own.add_((update if flat is gradient else update.mT).to(own.dtype), alpha=-group["lr"] * math.sqrt(self.scale))

    def _projection(self, flat: Tensor, number: int, step: int) -> Tensor:
        """(..., r, m) normal with variance 1/r, the same for all steps of a period."""
        period = (step - 1) // self.refresh
        generator = torch.Generator(device=flat.device)
        generator.manual_seed((self.seed * 1_000_003 + number) * 1_000_003 + period)
        *experts, wide, _ = flat.shape
        rank = min(self.rank, wide)
        drawn = torch.randn(*experts, rank, wide, generator=generator, device=flat.device, dtype=torch.float32)
        return drawn.div_(math.sqrt(rank))


def _adamw(weight: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """A plain AdamW update with moments in fp32."""
    if "exp_avg" not in state:
        state["exp_avg"] = torch.zeros_like(weight, dtype=torch.float32)
        state["exp_avg_sq"] = torch.zeros_like(weight, dtype=torch.float32)
    own = _local(weight)
    update = _moments(_local(weight.grad).float(), state, group)
    own.mul_(1 - group["lr"] * group["weight_decay"])
    own.add_(update.to(own.dtype), alpha=-group["lr"])


def _moments(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Take the gradient into the moments; mean / (root of the second moment + eps), both corrected for their start."""
    (beta1, beta2), step = group["betas"], state["step"]
    mean, square = _local(state["exp_avg"]), _local(state["exp_avg_sq"])
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    spread = square.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
    return mean.div(1 - beta1**step).div_(spread)


def _local(tensor: Any) -> Tensor:
    """This rank's part of a sharded tensor; itself otherwise."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
