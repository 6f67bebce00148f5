"""LISA: what is active, what is kept, and that with all layers active it is AdamW itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from rlpost.learner.config import LisaConfig, LoraConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.learner import Learner
from rlpost.learner.lisa import drawn_layers
from tests.learner.helpers import Clipped, batch, setup, tiny_folder, weights_of

LAYERS = 4


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("lisa") / "model", layers=LAYERS)


def learner(folder: Path, lisa: LisaConfig | None, dtype: str = "fp32") -> Learner:
    options, name = (lisa.model_dump(), "lisa") if lisa else ({}, "adamw")
    config = OptimizerConfig(name=name, lr=1e-2, weight_decay=0.1, options=options)
    return Learner(setup(folder, optimizer=config, dtype=dtype), algorithm=Clipped())


def steps(one: Learner, first: int, last: int) -> list[float]:
    return [one.learn(batch(6, seed=step, step=step)).metrics["loss"] for step in range(first, last)]


def state_numel(one: Learner) -> int:
    """Moments, without step counts."""
    return sum(value.numel() for state in one._optimizer.state.values() for value in state.values() if value.ndim)


def layer_of(name: str) -> int | None:
    return int(name.split(".")[2]) if name.startswith("model.layers.") else None


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_with_all_layers_active_it_is_adamw_bit_for_bit(deep_folder: Path, dtype: str) -> None:
    ends = []
    for lisa in (None, LisaConfig(layers=LAYERS, every=1)):
        one = learner(deep_folder, lisa, dtype)
        steps(one, 0, 4)
        ends.append(weights_of(one))
        one.close()
    for name, weight in ends[0].items():
        assert (weight == ends[1][name]).all(), name


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_state_and_movement_after_every_switch(deep_folder: Path, dtype: str) -> None:
    config = LisaConfig(layers=1, every=2)
    one = learner(deep_folder, config, dtype)
    sizes = {name: weight.size for name, weight in weights_of(one).items()}
    always = sum(size for name, size in sizes.items() if layer_of(name) is None)
    for step in range(8):
        before = weights_of(one)
        steps(one, step, step + 1)
        active = drawn_layers(config, LAYERS, 0, step)
        for name, weight in weights_of(one).items():
            moved = bool((weight != before[name]).any())
            assert moved == (layer_of(name) is None or layer_of(name) in active), name
        trained = sum(size for name, size in sizes.items() if layer_of(name) in active)
        assert state_numel(one) == 2 * (always + trained)
        assert all(weight.grad is None for weight in one.policy.parameters())
    assert len({tuple(drawn_layers(config, LAYERS, 0, step)) for step in range(8)}) > 1
    one.close()


def test_moments_of_what_is_always_trained_are_kept(deep_folder: Path) -> None:
    one = learner(deep_folder, LisaConfig(layers=1, every=1))
    steps(one, 0, 5)
    count = {name: one._optimizer.state[weight]["step"].item() for name, weight in one.policy.trainable()}
    assert {value for name, value in count.items() if layer_of(name) is None} == {5}
    assert {value for name, value in count.items() if layer_of(name) is not None} == {1}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_embeddings_can_stay_frozen(deep_folder: Path, dtype: str) -> None:
    one = learner(deep_folder, LisaConfig(layers=2, every=1, train_embeddings=False), dtype)
    before = weights_of(one)
    steps(one, 0, 3)
    after = weights_of(one)
    assert (before["model.embed_tokens.weight"] == after["model.embed_tokens.weight"]).all()
    assert (before["model.norm.weight"] != after["model.norm.weight"]).any()
    one.close()


def test_resuming_in_a_new_learner_is_exact(deep_folder: Path, tmp_path: Path) -> None:
    lisa = LisaConfig(layers=2, every=3)
    one = learner(deep_folder, lisa)
    steps(one, 0, 4)
    one.save(tmp_path / "step-4")
    expected = steps(one, 4, 8)
    other = learner(deep_folder, lisa)
    assert other.load(tmp_path / "step-4") == 4
    assert steps(other, 4, 8) == expected


def test_each_layer_is_visited_as_often_as_it_should_be() -> None:
    config, layers, draws = LisaConfig(layers=2, every=5), 12, 3000
    visits = Counter(index for step in range(0, 5 * draws, 5) for index in drawn_layers(config, layers, 7, step))
    share = config.layers / layers
    sigma = (draws * share * (1 - share)) ** 0.5
    assert all(abs(visits[index] - draws * share) < 3 * sigma for index in range(layers))
    assert drawn_layers(config, layers, 7, 10) == drawn_layers(config, layers, 7, 14)


def test_state_of_two_of_22_layers(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "m", layers=22, hidden=16, intermediate=16, heads=2, kv_heads=1)
    one = learner(folder, LisaConfig(layers=2, every=1))
    steps(one, 0, 2)
    layers = {id(weight) for layer in one.policy.layers() for weight in layer.parameters()}
    total = sum(weight.numel() for layer in one.policy.layers() for weight in layer.parameters())
    kept = sum(
        v.numel() for w, state in one._optimizer.state.items() if id(w) in layers for v in state.values() if v.ndim
    )
    assert kept / total == pytest.approx(0.182, abs=5e-4)  # 2 * 2 / 22


def test_what_cannot_be_is_refused(deep_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"options\.layers: 5 layers .* has 4"):
        learner(deep_folder, LisaConfig(layers=5))
    with pytest.raises(ValueError, match="every"):
        OptimizerConfig(name="lisa", options={"every": 0})
    both = OptimizerConfig(name="lisa")
    with pytest.raises(ModelError, match="keep one"):
        Learner(setup(deep_folder, optimizer=both, lora=LoraConfig(rank=2)), algorithm=Clipped())


def test_torch_draws_are_left_alone(deep_folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    learner(deep_folder, LisaConfig(layers=1))
    assert torch.rand(1) == expected
