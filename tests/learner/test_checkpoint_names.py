"""Weights leave by the names and in the shapes of a checkpoint, buffers among them; engines expect the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlpost.benchmarks.model_families import write_family
from rlpost.learner.learner import Learner
from rlpost.rollout.parameters import ModelParameters
from tests.learner.helpers import Clipped, setup

FAMILIES = ["Llama", "Mixtral", "Qwen3-MoE", "GLM-4-MoE", "DeepSeek-V3", "GPT-OSS (sinks)", "GPT-NeoX", "GPT-2"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_published_is_what_a_checkpoint_has(family: str, tmp_path: Path) -> None:
    """Name for name and bit for bit, of experts (one tensor a layer in memory) and of a router's correction bias."""
    folder = write_family(family, tmp_path / "model")
    learner = Learner(setup(folder), algorithm=Clipped())
    update = learner.weights(1)
    saved = load_file(folder / "model.safetensors")
    assert sorted(update.names) == sorted(saved)
    for name, shape, array in zip(update.names, update.shapes, update.payload, strict=True):
        assert shape == array.shape
        np.testing.assert_array_equal(array, saved[name].numpy(), err_msg=name)
    ModelParameters.of(str(folder)).check(update)
    announced = learner.policy.announced(torch.float32)
    assert [(name, shape) for name, _, shape in announced] == list(zip(update.names, update.shapes, strict=True))

    learner.save(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert {name: one.shape for name, one in again.items()} == {name: one.shape for name, one in saved.items()}
    assert all(torch.equal(one, saved[name]) for name, one in again.items())


def test_a_correction_bias_keeps_its_dtype_in_bf16(tmp_path: Path) -> None:
    """vLLM holds it in fp32; rounded, it would choose other experts."""
    learner = Learner(setup(write_family("GLM-4-MoE", tmp_path), dtype="bf16"), algorithm=Clipped())
    update = learner.weights(1)
    kinds = dict(zip(update.names, update.dtypes, strict=True))
    assert {kind for name, kind in kinds.items() if "correction_bias" in name} == {"float32"}
    assert {kind for name, kind in kinds.items() if "correction_bias" not in name} == {"bfloat16"}
    learner.close()


@pytest.mark.parametrize(
    "generation",
    [
        {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 2},
        {"do_sample": False, "temperature": 0.6},
        {"top_k": 20},
        {"pad_token_id": -1},
        {"do_sample": True, "temperature": 0.7, "repetition_penalty": 1.05},
    ],
)
def test_a_generation_config_that_transformers_would_not_write_is_copied(generation: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    folder = write_family("Llama", tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps(generation))
    learner = Learner(setup(folder), algorithm=Clipped())
    learner.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text()) == generation
    AutoModelForCausalLM.from_pretrained(tmp_path / "saved")


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_models_own_code_is_read_where_it_is_trusted(tmp_path: Path) -> None:
    folder = write_family("Llama", tmp_path)
    (folder / "modeling_own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    assert "lm_head.weight" in ModelParameters.of(str(folder), trust_remote_code=True).required
