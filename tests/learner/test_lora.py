"""Adapters: only they learn, the base is the reference, and what is published is their merge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from rlpost.algorithms import registry
from rlpost.algorithms.base import Plan
from rlpost.benchmarks.model_families import family_config, write_family
from rlpost.learner.batch import LearnerError
from rlpost.learner.config import LoraConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.learner import Learner
from rlpost.learner.lora import adapters, check_targets, targeted
from rlpost.rollout.parameters import ModelParameters
from tests.learner.helpers import Clipped, batch, setup

LORA = LoraConfig(rank=4, alpha=8)


def learner(folder: Path, **config: object) -> Learner:
    chosen = {"lora": LORA, "optimizer": OptimizerConfig(lr=3e-2)} | config
    return Learner(setup(folder, **chosen), algorithm=Clipped(Plan(2, 2)))


def test_published_weights_are_pefts_own_merge(model_folder: Path) -> None:
    ours = learner(model_folder)
    ours.learn(batch(8))
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    peft = get_peft_model(base, PeftConfig(r=4, lora_alpha=8, target_modules=list(LORA.targets)))
    adapters = dict(ours.policy.trainable())
    for name, weight in peft.named_parameters():
        if ".lora_" in name:
            weight.data.copy_(adapters[name.removeprefix("base_model.model.")])
    merged = dict(peft.merge_and_unload().named_parameters())
    update = ours.weights(1)
    assert update.names == list(merged)
    moved = 0
    for name, array in zip(update.names, update.payload, strict=True):
        np.testing.assert_allclose(array, merged[name].detach().numpy(), rtol=0, atol=1e-6, err_msg=name)
        moved += not np.array_equal(array, dict(_base(model_folder))[name])
    assert moved == 14  # seven linear layers in each of two
    ours.close()


def _base(folder: Path) -> list[tuple[str, np.ndarray]]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return [(name, weight.detach().numpy()) for name, weight in model.named_parameters()]


def test_the_reference_is_the_base(model_folder: Path) -> None:
    ours = learner(model_folder)
    sequences = [list(range(20)), [5, 4, 3]]
    before = ours.score(sequences)
    ours.learn(batch(8))
    after = ours.score(sequences)
    with ours.policy.reference():
        reference = ours.score(sequences)
    assert np.abs(after[0] - before[0]).max() > 1e-3
    np.testing.assert_array_equal(np.concatenate(reference), np.concatenate(before))
    np.testing.assert_array_equal(np.concatenate(ours.score(sequences)), np.concatenate(after))
    ours.close()


def test_a_kl_to_the_base_pulls_back(model_folder: Path) -> None:
    options = {"kl": 0.5, "epochs": 1, "minibatches": 1}
    kl = registry.build(registry.locate("grpo"), options)
    ours = Learner(setup(model_folder, lora=LORA, optimizer=OptimizerConfig(lr=3e-2)), algorithm=kl)
    first = ours.learn(batch(8)).metrics["kl_ref"]
    drifted = ours.learn(batch(8, step=1)).metrics["kl_ref"]
    assert first == pytest.approx(0.0, abs=1e-6)
    assert drifted > 1e-3
    zero = batch(8, step=2)
    zero.advantages[:] = 0.0
    result = ours.learn(zero)
    assert not result.skipped  # there is no signal, but the KL still pulls
    assert ours.learn(batch(8, step=3)).metrics["kl_ref"] < result.metrics["kl_ref"]
    ours.close()


def test_a_reference_without_adapters_is_refused(model_folder: Path) -> None:
    with pytest.raises(LearnerError, match=r"set learner\.lora"):
        Learner(setup(model_folder), algorithm=registry.build(registry.locate("grpo"), {"kl": 0.1}))


@pytest.mark.parametrize("targets", [("nothing_like_this",), ("lm_head",), ("embed_tokens",)])
def test_targets_that_cannot_carry_an_adapter(targets: tuple[str, ...], model_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"learner\.lora\.targets"):
        Learner(setup(model_folder, lora=LoraConfig(targets=targets)))


def test_frozen_weights_are_kept_in_the_compute_dtype(model_folder: Path) -> None:
    ours = learner(model_folder, dtype="bf16")
    kinds = {(weight.dtype, weight.requires_grad) for weight in ours.policy.parameters()}
    assert kinds == {(torch.bfloat16, False), (torch.float32, True)}
    ours.learn(batch(6))
    ours.close()


@pytest.mark.parametrize(
    ("family", "targets", "words"),
    [
        ("Phi-3", LORA.targets, "no layer q_proj, k_proj, v_proj, gate_proj, up_proj; .* are down_proj, gate_up"),
        ("Llama", ("q_proj", "v_porj"), "no layer v_porj"),
        ("Qwen3-MoE", LORA.targets, "no layer gate_proj, up_proj, down_proj"),
        ("GLM-4-MoE", LORA.targets, "'down_proj' also names .*experts.down_proj.* mlp.down_proj, shared_exp"),
        (
            "Phi-3.5-MoE (window, longrope)",
            ("q_proj", "router"),
            "'model.layers.0.*router' is not a plain linear layer",
        ),
    ],
)
def test_targets_that_the_model_lacks_are_named(family: str, targets: tuple[str, ...], words: str) -> None:
    """The default ones too: they would train a part of the weights in silence."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(family_config(family))
    with pytest.raises(ModelError, match=words):
        targeted(model, targets)


def test_targets_are_refused_without_the_models_weights(tmp_path: Path) -> None:
    write_family("Phi-3", tmp_path).joinpath("model.safetensors").unlink()
    check_targets(tmp_path, LoraConfig(targets=("qkv_proj", "mlp.down_proj")))
    with pytest.raises(ModelError, match="no layer q_proj"):
        check_targets(tmp_path, LORA)


def test_layers_beside_experts_carry_adapters_and_the_experts_do_not(tmp_path: Path) -> None:
    lora = LoraConfig(rank=4, alpha=8, targets=("q_proj", "mlp.down_proj", "shared_experts.down_proj"))
    ours = Learner(setup(write_family("GLM-4-MoE", tmp_path), lora=lora), algorithm=Clipped())
    carriers = {name.split("layers.")[1] for name, _ in adapters(ours.policy.model)}
    assert carriers == {"0.self_attn.q_proj", "1.self_attn.q_proj", "0.mlp.down_proj", "1.mlp.shared_experts.down_proj"}
    ModelParameters.of(str(tmp_path)).check(ours.weights(1))


def test_adapters_of_a_transposed_matrix_merge_as_they_compute(tmp_path: Path) -> None:
    """GPT-2 keeps its matrices as (in, out)."""
    lora = LoraConfig(rank=4, alpha=8, targets=("c_attn", "c_fc", "attn.c_proj", "mlp.c_proj"))
    ours = Learner(setup(write_family("GPT-2", tmp_path / "model"), lora=lora), algorithm=Clipped())
    with torch.no_grad():
        for _, weight in ours.policy.trainable():
            weight.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(weight.numel()))
    ours.save(tmp_path / "merged")
    merged = Learner(setup(tmp_path / "merged"), algorithm=Clipped())
    sequences = [list(range(40))]
    np.testing.assert_allclose(ours.score(sequences)[0], merged.score(sequences)[0], rtol=0, atol=1e-5)
