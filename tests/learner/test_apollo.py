"""APOLLO against its equations written out in NumPy, and the sizes of every optimizer's state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rlpost.benchmarks.studies.optimizers_convex import best, state_numel
from rlpost.learner.apollo import Apollo
from rlpost.learner.config import OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.optimizers import make_optimizer

LR, DECAY, SCALE, EPS = 0.01, 0.1, 4.0, 1e-6


def gradients(rows: int, columns: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=(rows, columns)) * 3.0**step for step in range(count)]


def projection(rank: int, rows: int, period: int) -> np.ndarray:
    """What the optimizer draws for the first weight with seed 0."""
    generator = torch.Generator().manual_seed(1_000_003 + period)
    return torch.randn(rank, rows, generator=generator).double().numpy() / rank**0.5


def reference(start: np.ndarray, grads: list[np.ndarray], rank: int, per_tensor: bool, refresh: int) -> np.ndarray:
    """The equations of the module, m <= n."""
    weight, mean, square, last = start.copy(), 0.0, 0.0, 0.0
    for step, gradient in enumerate(grads, start=1):
        projected = projection(rank, len(gradient), (step - 1) // refresh) @ gradient
        mean = 0.9 * mean + 0.1 * projected
        square = 0.999 * square + 0.001 * projected**2
        adapted = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + EPS)
        if per_tensor:
            factor = np.linalg.norm(adapted) / (np.linalg.norm(projected) + 1e-8)
        else:
            factor = np.linalg.norm(adapted, axis=0) / (np.linalg.norm(projected, axis=0) + 1e-8)
        update = gradient * factor
        norm = np.linalg.norm(update)
        if last and norm > 1.01 * last:
            update *= 1.01 * last / norm
        last = np.linalg.norm(update)
        weight = weight * (1 - LR * DECAY) - LR * SCALE**0.5 * update
    return weight


@pytest.mark.parametrize("per_tensor", [False, True], ids=["channel", "tensor"])
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
def test_apollo_follows_its_equations(per_tensor: bool, wide: bool) -> None:
    grads = gradients(6, 10, 5)
    start = np.random.default_rng(0).normal(size=(6, 10))
    expected = reference(start, grads, 2, per_tensor, refresh=2)
    turn = (lambda matrix: matrix) if wide else np.transpose
    weight = nn.Parameter(torch.tensor(np.ascontiguousarray(turn(start)), dtype=torch.float32))
    optimizer = Apollo(
        [weight], lr=LR, eps=EPS, weight_decay=DECAY, rank=2, scale=SCALE, per_tensor=per_tensor, refresh=2
    )
    for gradient in grads:
        weight.grad = torch.tensor(np.ascontiguousarray(turn(gradient)), dtype=torch.float32)
        optimizer.step()
    np.testing.assert_allclose(turn(weight.detach().numpy()), expected, rtol=2e-5, atol=2e-5)


def test_the_update_has_full_rank() -> None:
    weight = nn.Parameter(torch.zeros(32, 64))
    optimizer = Apollo([weight], rank=4)
    weight.grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert torch.linalg.matrix_rank(weight.detach()) == 32


def test_embeddings_and_vectors_get_adamw() -> None:
    names = {"embed_tokens.weight": (8, 4), "lm_head.weight": (8, 4), "norm.weight": (4,), "mlp.weight": (8, 4)}
    ours = [(name, nn.Parameter(torch.ones(*shape))) for name, shape in names.items()]
    plain = [(name, nn.Parameter(torch.ones(*shape))) for name, shape in names.items()]
    config = {"lr": 0.1, "weight_decay": 0.5}
    low_rank = make_optimizer(ours, OptimizerConfig(name="apollo", options={"rank": 2}, **config))
    adamw = make_optimizer(plain, OptimizerConfig(**config))
    for step in range(3):
        for (_, one), (_, other) in zip(ours, plain, strict=True):
            generator = torch.Generator().manual_seed(step)
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        low_rank.step()
        adamw.step()
    for (name, one), (_, other) in zip(ours, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-6) == (name != "mlp.weight"), name


@pytest.mark.parametrize("options", [{"rank": 0}, {"scale": 0.0}, {"growth": 0.5}, {"refresh": 0}, {"nonsense": 1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=r"learner\.optimizer\.options: 'apollo'"):
        make_optimizer([("m", nn.Parameter(torch.ones(2, 2)))], OptimizerConfig(name="apollo", options=options))


@pytest.mark.parametrize(
    ("name", "options", "share"),
    [("adamw", {}, 2.0), ("lion", {}, 1.0), ("apollo", {"rank": 256}, 0.25), ("apollo_mini", {}, 0.0010)],
)
def test_state_of_a_2048_by_5632_matrix(name: str, options: dict[str, int], share: float) -> None:
    weight = nn.Parameter(torch.zeros(2048, 5632))
    optimizer = make_optimizer([("matrix", weight)], OptimizerConfig(name=name, options=options))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert state_numel(optimizer) / weight.numel() == pytest.approx(share, abs=5e-5)


def test_a_convex_problem_is_solved_in_the_expected_order() -> None:
    torch.set_num_threads(1)
    loss = {name: best(name)[0] for name in ("torch.optim:SGD", "adamw", "lion", "apollo", "apollo_mini")}
    assert max(loss["adamw"], loss["lion"], loss["apollo"]) < 1e-4
    assert max(loss["adamw"], loss["lion"], loss["apollo"]) < loss["apollo_mini"] / 10
    assert loss["apollo_mini"] < loss["torch.optim:SGD"] / 5
