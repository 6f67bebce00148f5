"""Every registered optimizer on one convex problem: does it optimise at all, and what does its state cost?

    rlpost bench optimizers_convex

f(W) = mean over ij of c_ij (W_ij - W*_ij)² / 2 with W (64, 96) and c_ij = r_i k_j, rows and columns spread over two
decades each. 600 steps, cosine decay, no noise, the best of a few learning rates. Prints a Markdown table; losses are
shares of the loss at the start. It catches broken optimizers; it does not rank sound ones. Left out: noise, language
models, and 8-bit AdamW (its blocks of 256 mix columns whose gradients differ a hundredfold).
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import nn

from rlpost.learner.config import OptimizerConfig
from rlpost.learner.optimizers import learning_rate, make_optimizer, set_learning_rate

ROWS, COLUMNS, STEPS = 64, 96, 600
RATES = {
    "torch.optim:SGD": (0.3, 1.0, 1.5, 1.9),
    "adamw": (1e-2, 3e-2, 0.1, 0.3),
    "lion": (3e-3, 1e-2, 3e-2, 0.1),
    "apollo": (3e-3, 1e-2, 3e-2, 0.1, 0.3),
    "apollo_mini": (1e-3, 3e-3, 1e-2, 3e-2, 0.1),
}
OPTIONS = {"apollo": {"rank": 16}}


def curvature(generator: torch.Generator) -> torch.Tensor:
    """(64, 96) curvatures; the largest is 1."""
    rows = torch.logspace(-2, 0, ROWS)[torch.randperm(ROWS, generator=generator)]
    columns = torch.logspace(-2, 0, COLUMNS)[torch.randperm(COLUMNS, generator=generator)]
    return rows[:, None] * columns[None]


def final_loss(name: str, rate: float, steps: int = STEPS, seed: int = 0) -> tuple[float, float]:
    """(loss after the last step as a share of the first, numbers of optimizer state a weight)."""
    generator = torch.Generator().manual_seed(seed)
    curve, goal = curvature(generator), torch.randn(ROWS, COLUMNS, generator=generator)
    weight = nn.Parameter(torch.zeros(ROWS, COLUMNS))
    config = OptimizerConfig(name=name, lr=rate, schedule="cosine", options=OPTIONS.get(name, {}))
    optimizer = make_optimizer([("matrix", weight)], config)
    for step in range(steps):
        set_learning_rate(optimizer, learning_rate(config, step, steps))
        weight.grad = curve * (weight.detach() - goal)
        optimizer.step()
    loss = float((curve * (weight.detach() - goal) ** 2).sum() / (curve * goal**2).sum())
    return loss, state_numel(optimizer) / weight.numel()


def state_numel(optimizer: torch.optim.Optimizer) -> int:
    """Numbers the optimizer keeps, step counts aside."""
    kept = (v for state in optimizer.state.values() for k, v in state.items() if k not in ("step", "norm"))
    return sum(value.numel() for value in kept if isinstance(value, torch.Tensor))


def best(name: str, steps: int = STEPS, seed: int = 0) -> tuple[float, float, float]:
    """(loss, rate, state a weight) of the best learning rate."""
    found = [(*final_loss(name, rate, steps, seed), rate) for rate in RATES[name]]
    loss, state, rate = min(one for one in found if math.isfinite(one[0]))
    return loss, rate, state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print("| optimizer | final loss, share of the first | best learning rate | state a weight |\n|---|---|---|---|")
    for name in RATES:
        loss, rate, state = best(name, steps)
        print(f"| {name} | {loss:.3g} | {rate:g} | {state:.3f} |", flush=True)


if __name__ == "__main__":
    main()
