"""Options that only save time or memory learn what the plain path learns. CUDA's own are in test_cuda.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlpost.learner import attention, model
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


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_one_rank_learns_the_same_whether_fsdp_wraps_layers_or_the_whole(optimizer: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", initializer_range=0.1)
    descent = OptimizerConfig(name=optimizer, lr=1e-3)
    whole, layers = (
        moved(folder, dtype="bf16", optimizer=descent, gradient_checkpointing=frugal) for frugal in (False, True)
    )
    assert whole.norm() > 0
    torch.testing.assert_close(whole, layers, rtol=0, atol=0)


@pytest.mark.slow
def test_compiled_layers_learn_the_same_and_are_compiled_once_for_all(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    folder = tiny_folder(tmp_path / "m", layers=12)
    plain = moved(folder)
    counters.clear()
    compiled = moved(folder, compiled=True)
    assert 0 < counters["stats"]["unique_graphs"] <= 8  # four pieces of a layer, with and without gradient
    assert (compiled - plain).norm() < 1e-4 * plain.norm()


@torch.library.custom_op("rlpost_tests::varlen", mutates_args={})
def varlen(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    """What the GPU's kernel computes, as one operation that a compiler cannot look into, as the kernel is."""
    heads = query.shape[1] // key.shape[1]
    weights = _weights(query, key, bounds)
    return (weights @ value.repeat_interleave(heads, 1).transpose(0, 1)).transpose(0, 1).contiguous()


@torch.library.custom_op("rlpost_tests::varlen_backward", mutates_args={})
def varlen_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    tokens, shared, size = key.shape
    heads, scale = query.shape[1] // shared, size**-0.5
    weights, slope = _weights(query, key, bounds), grad.transpose(0, 1)
    by_weight = slope @ value.repeat_interleave(heads, 1).permute(1, 2, 0)
    by_score = weights * (by_weight - (by_weight * weights).sum(-1, keepdim=True)) * scale
    by_query = by_score @ key.repeat_interleave(heads, 1).transpose(0, 1)
    repeated = by_score.transpose(1, 2) @ query.transpose(0, 1), weights.transpose(1, 2) @ slope
    by_key, by_value = (one.transpose(0, 1).reshape(tokens, shared, heads, size).sum(2) for one in repeated)
    return by_query.transpose(0, 1).contiguous(), by_key, by_value


def _weights(query: Tensor, key: Tensor, bounds: Tensor) -> Tensor:
    """(H, N, N) causal weights within each sequence."""
    place = torch.arange(len(query))
    sequence = torch.bucketize(place, bounds[1:], right=True)
    hidden = (sequence[:, None] != sequence) | (place[:, None] < place)
    repeated = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query.transpose(0, 1) @ repeated.permute(1, 2, 0) * query.shape[2] ** -0.5
    return scores.masked_fill(hidden, float("-inf")).softmax(-1)


varlen.register_fake(lambda query, key, value, bounds, longest: torch.empty_like(query))
varlen_backward.register_fake(lambda grad, *states: tuple(torch.empty_like(one) for one in states[:3]))
varlen.register_autograd(
    lambda ctx, grad: (*varlen_backward(grad, *ctx.saved_tensors), None, None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:4]),
)


def use_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learners from here on take ``varlen`` for the GPU's kernel."""

    def kernel(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, *_: Any) -> Tensor:
        return varlen(query, key, value, bounds, longest)

    monkeypatch.setattr(model, "available", lambda device, dtype: True)
    monkeypatch.setattr(attention, "varlen_attention", kernel)


@pytest.mark.slow
def test_a_compiled_layer_is_one_graph_with_the_kernel_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    folder = tiny_folder(tmp_path / "m", layers=12)
    plain = moved(folder, dtype="fp32")
    use_kernel(monkeypatch)
    counters.clear()
    compiled = moved(folder, dtype="fp32", compiled=True)
    assert not counters["graph_break"]
    assert 0 < counters["stats"]["unique_graphs"] <= 6  # scored, learned, with shared prompts and without
    assert (compiled - plain).norm() < 1e-4 * plain.norm()


def kept_bytes(folder: Path) -> int:
    """What the forward pass of one pack keeps for the backward pass, weights aside."""
    torch._dynamo.reset()
    made = replace(setup(folder, dtype="bf16", max_tokens_per_pack=10_000, optimizer=DESCENT), compiled=True)
    learner = Learner(made, algorithm=Clipped())
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.learn(batch(32))
    learner.close()
    return sum(kept.values())


@pytest.mark.slow
def test_a_compiled_layer_does_not_keep_what_is_cheap_to_compute_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernel(monkeypatch)
    folder = tiny_folder(tmp_path / "m", layers=4, hidden=64)
    frugal = kept_bytes(folder)
    monkeypatch.setattr(model, "CHEAP", 1.0)
    everything = kept_bytes(folder)
    torch._dynamo.reset()
    assert frugal < 0.8 * everything
