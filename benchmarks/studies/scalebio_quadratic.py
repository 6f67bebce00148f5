"""ScaleBiO's update on a bilevel problem whose answer is known.

    rlpost bench scalebio_quadratic

Three sources with losses l_i(x) = (x - c_i)' H_i (x - c_i) / 2 in space, validation loss L1(x) = |x - v|² / 2. The
training optimum is x(p) = (sum p_i H_i)^-1 sum p_i H_i c_i, so the best weights minimise L1(x(p)): the answer, found by
L-BFGS through this formula. v lies off the surface of all x(p), so a finite alpha is biased, by O(1/alpha). u, w and
lambda take plain gradient steps, one each at a time (single loop). Prints a Markdown table. Left out: noise and AdamW.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from rlpost.algorithms.scalebio import source_gradient

CENTRES = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 1.0], [0.0, 4.0, -1.0]])
CURVATURES = np.array([[1.0, 0.5, 0.3], [0.4, 1.0, 0.6], [0.7, 0.3, 1.0]])
"""Diagonals of the H_i."""
GOAL = np.array([0.8, 1.2, -1.0])


def optimum(probs: torch.Tensor) -> torch.Tensor:
    """(3,) x(p)."""
    curves = torch.from_numpy(CURVATURES)
    return (probs @ (curves * torch.from_numpy(CENTRES))) / (probs @ curves)


def validation_loss(probs: NDArray[np.float64]) -> float:
    """L1 at the training optimum of these weights."""
    return float(((optimum(torch.from_numpy(probs)) - torch.from_numpy(GOAL)) ** 2).sum() / 2)


def answer() -> NDArray[np.float64]:
    """(3,) the best weights."""
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss = ((optimum(logits.softmax(0)) - torch.from_numpy(GOAL)) ** 2).sum() / 2
        loss.backward()
        return loss

    search.step(closure)
    found: NDArray[np.float64] = logits.detach().softmax(0).numpy()
    return found


def losses(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) l_i(x)."""
    found: NDArray[np.float64] = (CURVATURES * (x - CENTRES) ** 2).sum(axis=1) / 2
    return found


def learn(alpha: float, steps: int = 20000) -> NDArray[np.float64]:
    """The weights after ``steps`` of (u, w, lambda)."""
    logits, u, w = np.zeros(3), np.zeros(3), np.zeros(3)
    for step in range(steps):
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        slope_u, slope_w = (probs @ (CURVATURES * (x - CENTRES)) for x in (u, w))
        gradient = source_gradient(probs, losses(w) - losses(u), alpha)
        u = u - 0.5 * slope_u
        w = w - 0.5 / (1 + 1 / alpha) * (slope_w + (w - GOAL) / alpha)
        logits = logits - 0.05 * (1 - step / steps) * gradient
    return probs


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    best = answer()
    print("| alpha | weights | largest error | validation loss at their optimum |\n|---|---|---|---|")
    for alpha in (0.1, 1.0, 10.0, 100.0, 1000.0):
        probs = learn(alpha)
        shown = ", ".join(f"{value:.4f}" for value in probs)
        error = np.abs(probs - best).max()
        print(f"| {alpha:g} | {shown} | {error:.1e} | {validation_loss(probs):.5f} |", flush=True)
    print(f"| answer | {', '.join(f'{value:.4f}' for value in best)} | | {validation_loss(best):.5f} |")


if __name__ == "__main__":
    main()
