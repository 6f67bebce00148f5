"""Options that only save time or memory learn what the plain path learns. CUDA's own are in test_cuda.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlpost.learner.config import OptimizerConfig
from rlpost.learner.learner import Learner
from tests.learner.helpers import Clipped, batch, setup, tiny_folder, weights_of

DESCENT = OptimizerConfig(name="torch.optim:SGD", lr=0.1, clip_grad=0.0)


def moved(folder: Path, compiled: bool = False, **config: Any) -> torch.Tensor:
    """What one step of two packs or more changes, flat."""
    made = replace(setup(folder, **{"optimizer": DESCENT, "max_tokens_per_pack": 60} | config), compiled=compiled)
    learner = Learner(made, algorithm=Clipped())
    before = weights_of(learner)
    learner.score([[1, 2, 3, 4]])
    learner.learn(batch(8))
    after = weights_of(learner)
    learner.close()
    return torch.cat([torch.from_numpy(after[name] - before[name]).flatten() for name in after])


@pytest.mark.parametrize("checkpointing", [True, "offload"])
def test_checkpointing_changes_nothing(checkpointing: bool | str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m")
    plain = moved(folder)
    assert plain.norm() > 0
    torch.testing.assert_close(moved(folder, gradient_checkpointing=checkpointing), plain, rtol=0, atol=1e-6)


def test_one_rank_adds_gradients_up_over_packs_as_over_one(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", initializer_range=0.1)
    exact = moved(folder, dtype="fp32")
    many, one = (moved(folder, dtype="bf16", max_tokens_per_pack=tokens) for tokens in (60, 10_000))
    assert (many - exact).norm() < 0.05 * exact.norm()  # 8 bits of every activation
    assert (one - exact).norm() < 0.05 * exact.norm()
    assert (many - one).norm() < 0.03 * exact.norm()


@pytest.mark.slow
def test_compiled_layers_learn_the_same_and_are_compiled_once_for_all(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    folder = tiny_folder(tmp_path / "m", layers=12)
    plain = moved(folder)
    counters.clear()
    compiled = moved(folder, compiled=True)
    assert 0 < counters["stats"]["unique_graphs"] <= 8  # four pieces of a layer, with and without gradient
    assert (compiled - plain).norm() < 1e-4 * plain.norm()
