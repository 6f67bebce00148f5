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


def reference(
    start: np.ndarray,
    grads: list[np.ndarray],
    rank: int,
    per_tensor: bool,
    refresh: int,
    drawn: np.ndarray | None = None,
) -> np.ndarray:
    """The equations of the module, m <= n; with the projection ``drawn`` where one is given."""
    weight, mean, square, last = start.copy(), 0.0, 0.0, 0.0
    for step, gradient in enumerate(grads, start=1):
        own = projection(rank, len(gradient), (step - 1) // refresh) if drawn is None else drawn
        projected = own @ gradient
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


@pytest.mark.parametrize("per_tensor", [False, True], ids=["channel", "tensor"])
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
def test_experts_in_one_tensor_are_projected_each_for_itself(per_tensor: bool, wide: bool) -> None:
    """(E, m, n) is stepped as E matrices with the same draws would be: factors and growth bounds of their own."""
    rng = np.random.default_rng(0)
    turn = (lambda array: array) if wide else (lambda array: np.ascontiguousarray(array.swapaxes(-1, -2)))
    start = rng.normal(size=(3, 6, 10))
    grads = [rng.normal(size=(3, 6, 10)) * np.array([1.0, 5.0, 0.01])[:, None, None] * 2.0**step for step in range(4)]
    weight = nn.Parameter(torch.tensor(turn(start), dtype=torch.float32))
    options = {"lr": LR, "eps": EPS, "weight_decay": DECAY, "rank": 2, "scale": SCALE, "per_tensor": per_tensor}
    optimizer = Apollo([weight], **options)
    for gradient in grads:
        weight.grad = torch.tensor(turn(gradient), dtype=torch.float32)
        optimizer.step()
    drawn = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(1_000_003)).double().numpy() / 2**0.5
    for expert in range(3):
        own = [gradient[expert] for gradient in grads]
        expected = reference(start[expert], own, 2, per_tensor, 200, drawn[expert])
        np.testing.assert_allclose(turn(weight.detach().numpy())[expert], expected, rtol=0, atol=2e-5)
    assert state_numel(optimizer) <= 3 * (2 * 2 * 10 + 1) + 1


def test_mini_projects_experts_and_leaves_their_biases_to_adamw() -> None:
    named = [
        ("layers.0.experts.down_proj", torch.ones(3, 6, 10)),
        ("layers.0.experts.down_proj_bias", torch.ones(3, 6)),
    ]
    weights = [(name, nn.Parameter(one)) for name, one in named]
    optimizer = make_optimizer(weights, OptimizerConfig(name="apollo_mini", weight_decay=0.1))
    for _, weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    experts, biases = (optimizer.state[weight]["exp_avg"] for _, weight in weights)
    assert experts.shape == (3, 1, 10)
    assert biases.shape == (3, 6)
    assert {group["kind"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "matrices": 0.1,
        "others": 0.0,
    }
