"""Optimizers by name, learning rates by hand, clipping."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rlpost.learner.config import OPTIMIZERS, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.optimizers import (
    clip_gradient,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)


def weights() -> list[tuple[str, nn.Parameter]]:
    return [("matrix", nn.Parameter(torch.ones(2, 3))), ("norm", nn.Parameter(torch.ones(3)))]


def test_adamw_decays_matrices_only() -> None:
    named = weights()
    optimizer = make_optimizer(named, OptimizerConfig(lr=0.1, weight_decay=0.5))
    for _, weight in named:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(named[0][1].detach(), torch.full((2, 3), 0.95))  # 1 - lr * decay
    torch.testing.assert_close(named[1][1].detach(), torch.ones(3))


def test_the_first_adamw_update_by_hand() -> None:
    named = weights()
    optimizer = make_optimizer(named, OptimizerConfig(lr=0.1, options={"eps": 1e-12}))
    for _, weight in named:
        weight.grad = torch.full_like(weight, -3.0)
    optimizer.step()  # bias-corrected m / sqrt(v) is the sign of the gradient
    torch.testing.assert_close(named[0][1].detach(), torch.full((2, 3), 1.1))


def test_a_class_by_dotted_path_gets_what_its_signature_names() -> None:
    config = OptimizerConfig(name="torch.optim:SGD", lr=0.5, options={"momentum": 0.9})
    optimizer = make_optimizer(weights(), config)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_class_of_ones_own_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "helper_of_mine.py").write_text("from torch.optim import Adagrad\n")
    (tmp_path / "my_opt.py").write_text("import helper_of_mine\n\n\nclass Mine(helper_of_mine.Adagrad):\n    pass\n")
    code = OPTIMIZERS.locate("my_opt.py:Mine", tmp_path)
    assert type(make_optimizer(weights(), OptimizerConfig(name="my_opt.py:Mine"), code)).__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamm", {}, "there is no optimizer 'adamm'; did you mean 'adamw'"),
        ("torch.optim:Nope", {}, "has no 'Nope'"),
        ("no.such:Thing", {}, "cannot import no.such"),
        ("builtins:dict", {}, "not a torch optimizer"),
        ("adamw", {"nonsense": 1}, "learner.optimizer.options"),
        ("torch.optim:SGD", {"nonsense": 1}, "learner.optimizer.options"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_optimizer(weights(), OptimizerConfig(name=name, options=options))


def rates(steps: int, **config: object) -> list[float]:
    return [learning_rate(OptimizerConfig(lr=8.0, **config), step, steps) for step in range(steps)]  # type: ignore[arg-type]


def test_learning_rates_by_hand() -> None:
    assert rates(3) == [8, 8, 8]
    assert rates(4, schedule="linear") == [8, 6, 4, 2]
    assert rates(6, schedule="linear", warmup_steps=2) == [4, 8, 8, 6, 4, 2]
    assert rates(4, schedule="cosine") == pytest.approx([8, 4 + 8**0.5, 4, 4 - 8**0.5])
    assert rates(3, warmup_steps=4) == [2, 4, 6]
    assert learning_rate(OptimizerConfig(lr=8.0, schedule="linear"), 9, 4) == 0.0  # past the end: never negative


def test_clipping_by_hand() -> None:
    (_, matrix), (_, norm) = weights()
    matrix.grad, norm.grad = torch.full((2, 3), 2.0), torch.tensor([0.0, 0.0, 5.0])  # 24 + 25 = 7²
    assert clip_gradient([matrix, norm], 0.0) == pytest.approx(7.0)
    assert norm.grad[2] == 5.0
    assert clip_gradient([matrix, norm], 14.0) == pytest.approx(7.0)
    assert norm.grad[2] == pytest.approx(5.0)
    assert clip_gradient([matrix, norm], 3.5) == pytest.approx(7.0)
    torch.testing.assert_close(norm.grad, torch.tensor([0.0, 0.0, 2.5]), rtol=1e-5, atol=0)


def test_lion_by_hand() -> None:
    named = [("matrix", nn.Parameter(torch.tensor([[1.0, -1.0]])))]
    optimizer = make_optimizer(named, OptimizerConfig(name="lion", lr=0.1, weight_decay=0.5))
    for gradient in ([[2.0, 0.0]], [[-0.1, 3.0]]):
        named[0][1].grad = torch.tensor(gradient)
        optimizer.step()
    # 1: w * 0.95 - 0.1 sign(0.1 g); m = 0.01 g = (0.02, 0). 2: c = 0.9 m + 0.1 g = (0.008, 0.3), both positive
    expected = torch.tensor([[0.95 * (0.95 - 0.1) - 0.1, 0.95 * -0.95 - 0.1]])
    torch.testing.assert_close(named[0][1].detach(), expected)


def test_stochastic_rounding_moves_bf16_weights_where_rounding_to_nearest_does_not() -> None:
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
    optimizer = make_optimizer([("matrix", weight)], OptimizerConfig(name="adamw_bf16", lr=1e-4))
    for _ in range(20):
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step()
    moved = 1.0 - weight.detach().float()
    assert moved.max() >= 2**-8  # single steps of 1e-4 are a fortieth of the spacing of bf16 below 1
    spread = 2**-8 * (20 * 1e-4 / 2**-8) ** 0.5 / 64  # about the standard error of the mean over 4,096 weights
    assert moved.mean().item() == pytest.approx(20 * 1e-4, abs=4 * spread)
    nearest = torch.ones((), dtype=torch.bfloat16)
    assert nearest - 1e-4 == nearest


def test_the_second_moment_beside_bf16_weights_does_not_stall() -> None:
    pytest.importorskip("torchao")
    weight = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = make_optimizer([("matrix", weight)], OptimizerConfig(name="adamw_bf16", lr=0.0))
    for _ in range(2000):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    # 1 - 0.999^2000; in bf16 it would stay at 0.25, where 0.001 of the rest is below half a spacing
    torch.testing.assert_close(optimizer.state[weight]["exp_avg_sq"], torch.full((4, 4), 0.8648), atol=1e-3, rtol=0)


def test_8_bit_adamw_is_close_to_adamw_and_holds_bytes() -> None:
    pytest.importorskip("torchao")
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 128, generator=generator)
    weights = [nn.Parameter(start.clone()), nn.Parameter(start.clone())]
    optimizers = [
        make_optimizer([("matrix", weight)], OptimizerConfig(name=name, lr=1e-3))
        for weight, name in zip(weights, ("adamw", "adamw_8bit"), strict=True)
    ]
    for _ in range(10):
        gradient = torch.randn(64, 128, generator=generator)
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = gradient.clone()
            set_learning_rate(optimizer, 1e-3)
            optimizer.step()
    moved, other = (weight.detach() - start for weight in weights)
    assert (moved - other).norm() < 0.05 * moved.norm()
    assert optimizers[1].state[weights[1]]["exp_avg"].codes.dtype is torch.uint8


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lion_pytorch", None)
    with pytest.raises(ModelError, match=r"'lion' needs the package lion_pytorch: pip install 'rlpost\[optimizers\]'"):
        make_optimizer(weights(), OptimizerConfig(name="lion"))
