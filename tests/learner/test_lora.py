"""Adapters: only they learn, the base is the reference, and they are published and saved unmerged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from rlpost.algorithms import registry
from rlpost.algorithms.base import Plan
from rlpost.benchmarks.model_families import family_config, write_family
from rlpost.learner.adapter_files import served
from rlpost.learner.batch import LearnerError
from rlpost.learner.config import LoraConfig, ModelConfig, OptimizerConfig
from rlpost.learner.errors import ModelError
from rlpost.learner.export import DTYPES
from rlpost.learner.learner import Learner
from rlpost.learner.lora import adapters, check_targets, targeted
from rlpost.learner.sharding import whole
from rlpost.learner.source import materialise
from rlpost.rollout.digest import Sent
from rlpost.rollout.parameters import ModelParameters
from rlpost.rollout.transport.object_store import as_tensor
from tests.learner.helpers import Clipped, batch, setup

LORA = LoraConfig(rank=4, alpha=8)


def learner(folder: Path, **config: object) -> Learner:
    chosen = {"lora": LORA, "optimizer": OptimizerConfig(lr=3e-2)} | config
    return Learner(setup(folder, **chosen), algorithm=Clipped(Plan(2, 2)))


def with_adapters(ours: Learner, folder: Path) -> Any:
    """The model in ``folder`` with the learner's adapters, by peft."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    peft = get_peft_model(base, PeftConfig(r=4, lora_alpha=8, target_modules=list(LORA.targets)))
    adapters = dict(ours.policy.trainable())
    for name, weight in peft.named_parameters():
        if ".lora_" in name:
            weight.data.copy_(whole(adapters[name.removeprefix("base_model.model.")]))
    return peft


def test_adapters_alone_are_published_with_their_scale(model_folder: Path) -> None:
    ours = learner(model_folder)
    ours.learn(batch(8))
    own = get_peft_model_state_dict(with_adapters(ours, model_folder))
    update = ours.weights(1)
    assert update.rank == 4
    assert sorted(update.names) == sorted(own)
    assert len(own) == 28  # two factors on seven linear layers in each of two
    for name, array in zip(update.names, update.payload, strict=True):
        scale = 2.0 if ".lora_B." in name else 1.0
        np.testing.assert_array_equal(array, scale * own[name].numpy(), err_msg=name)
    assert ours.sent(1) == {
        name: Sent.of(as_tensor(array, "float32")) for name, array in zip(update.names, update.payload, strict=True)
    }
    assert ours.sent(2) == {}  # nothing was published as that
    ours.close()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_checkpoint_is_pefts_and_a_merge_is_in_fp32(dtype: str, model_folder: Path, tmp_path: Path) -> None:
    ours = learner(model_folder, dtype=dtype)
    ours.learn(batch(8))
    ours.save(tmp_path / "step-1")
    own, published = with_adapters(ours, model_folder), ours.weights(0)
    ours.close()
    adapters, update = served(tmp_path / "step-1", DTYPES[dtype])
    assert (adapters.rank, set(adapters.targets)) == (4, set(LORA.targets))
    kept = dict(zip(update.names, update.payload, strict=True))
    for name, array in zip(published.names, published.payload, strict=True):
        np.testing.assert_array_equal(kept[name], array, err_msg=name)  # evaluation serves what training did
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "step-1"))
    for name, weight in get_peft_model_state_dict(own).items():
        torch.testing.assert_close(get_peft_model_state_dict(loaded)[name], weight, rtol=0, atol=1e-9)
    place = materialise(ModelConfig(path=str(tmp_path / "step-1")), tmp_path / "merged")
    assert place == tmp_path / "merged"
    merged = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    expected = own.merge_and_unload()
    for (name, weight), (_, wanted) in zip(merged.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, rtol=0, atol=1e-6, msg=name)


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
    ModelParameters.of(str(tmp_path)).check(ours.weights(1), 4)


def test_adapters_of_a_transposed_matrix_merge_as_they_compute(tmp_path: Path) -> None:
    """GPT-2 keeps its matrices as (in, out)."""
    lora = LoraConfig(rank=4, alpha=8, targets=("c_attn", "c_fc", "attn.c_proj", "mlp.c_proj"))
    ours = Learner(setup(write_family("GPT-2", tmp_path / "model"), lora=lora), algorithm=Clipped())
    with torch.no_grad():
        for _, weight in ours.policy.trainable():
            weight.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(weight.numel()))
    ours.save(tmp_path / "adapters")
    place = materialise(ModelConfig(path=str(tmp_path / "adapters")), tmp_path / "merged")
    merged = Learner(setup(place), algorithm=Clipped())
    sequences = [list(range(40))]
    np.testing.assert_allclose(ours.score(sequences)[0], merged.score(sequences)[0], rtol=0, atol=1e-5)
